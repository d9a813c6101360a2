"""Drivers bear whatever the devices that they call say, and take a good one's values afterwards."""

import pytest
from scripted import Heard
from storm import Storm, at_client, storming
from storm_ends import at, driver, recorded, served, simulated

from protocols.base import DeviceConfig, DriverError


async def withstand(storm: Storm, kind: str, made: DeviceConfig, most: int) -> None:
    """One driver, as its supervisor has it: connected, run until it is lost, closed, and again."""
    turns = await recorded(kind, made)
    one = None
    sink = Heard()

    async def live(port: int) -> None:
        nonlocal one
        one = one or driver(at(made, port))
        try:
            await one.connect()
            await one.run(sink)
        except DriverError as error:
            assert str(error)
            storm.refused += 1
        finally:
            await one.close()
            for said in (sink.samples, sink.states, sink.losses):
                said.clear()

    await at_client(storm, turns, live, most)


@pytest.mark.parametrize(
    ("kind", "in_ci", "most"),
    [
        ("modbus", 5000, 100),
        ("modbus-rtu", 5000, 100),  # what is no answer is passed over: many reach one connection
        ("dnp3", 5000, 100),
        ("text", 5000, 100),
        ("mqtt", 2000, 8),
        ("opcua", 1000, 8),
    ],
)
async def test_hostile_devices(kind: str, in_ci: int, most: int) -> None:
    async with simulated(kind) as made:
        async with storming(f"driver of {kind}", in_ci) as storm:
            await withstand(storm, kind, made, most)
        await served(kind, made)
