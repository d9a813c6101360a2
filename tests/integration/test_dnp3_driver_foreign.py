"""The driver and the outstation of py1815, which others wrote: its session, its buffers, its listener."""

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from dnp3_rig import NOON, OUTSTATION, connected, device, told
from py1815 import objects
from py1815.application import ObjectHeader
from py1815.control import CommandStatus, ControlRelayOutputBlock
from py1815.events import EventBuffers, EventClass
from py1815.server import OutstationServer
from py1815.session import Control, Session
from scripted import Heard, running
from waiting import until

from protocols.base import DeviceState, DriverError
from protocols.dnp3.driver import Dnp3Driver

ANALOGS = 1000
POINTS: dict[str, Any] = {
    "breaker": {"type": "binary_input", "index": 0},
    "current": {"type": "analog_input", "index": 0},
    "last": {"type": "analog_input", "index": ANALOGS - 1, "scale": 0.5},
    "close": {"type": "binary_output", "index": 3, "access": "wo", "operation": "trip-close"},
    "setpoint": {"type": "analog_output", "index": 1, "access": "wo", "mode": "direct"},
}


class Plant:
    """What py1815's session asks: values to read, controls to carry out, a clock to set."""

    def __init__(self) -> None:
        self.breaker = True
        self.analogs = [float(number) for number in range(ANALOGS)]
        self.operated: list[tuple[int, Any]] = []
        self.status = CommandStatus.SUCCESS
        self.clock_ms: list[int] = []
        self.events = EventBuffers(capacity=100)
        self.restarted = 0

    def read(self, headers: Sequence[ObjectHeader]) -> bytes:
        return b"".join(self.read_blocks(headers))

    def read_blocks(self, headers: Sequence[ObjectHeader]) -> Sequence[bytes]:
        blocks = []
        for header in headers:
            if header.group in (1, 60):
                blocks.append(objects.binary_range(0, [objects.BinaryPoint(self.breaker)]))
            if header.group in (30, 60):
                points = [objects.AnalogPoint(value) for value in self.analogs]
                variation = objects.AnalogVariation.FLOAT32_WITH_FLAG
                blocks += [
                    objects.analog_range(start, points[start : start + 100], variation=variation)
                    for start in range(0, ANALOGS, 100)
                ]
        return blocks

    def select(self, controls: Sequence[Control]) -> Sequence[CommandStatus]:
        return [self.status] * len(controls)

    def operate(self, controls: Sequence[Control]) -> Sequence[CommandStatus]:
        for one in controls:
            command = one.command
            what = command.trip_close.name if isinstance(command, ControlRelayOutputBlock) else command.value
            self.operated.append((one.index, what))
        return [self.status] * len(controls)

    def restart(self) -> int:
        self.restarted += 1
        return 1500


@contextlib.asynccontextmanager
async def outstation(
    plant: Plant, **options: Any
) -> AsyncIterator[tuple[OutstationServer, Session, dict[str, Any]]]:
    session = Session(
        plant,
        control_provider=plant,
        events=plant.events,
        outstation_address=OUTSTATION,
        time_sink=plant.clock_ms.append,
        restart_handler=plant.restart,
        **options,
    )
    server = OutstationServer(session, bind="127.0.0.1:0", unsolicited_interval=0.02)
    await server.start()
    try:
        yield server, session, {"transport": "tcp", "host": "127.0.0.1", "port": server.port}
    finally:
        await server.stop()


async def ready(session: Session, condition: Callable[[], object] = lambda: True) -> None:
    await until(lambda: session.unsolicited_classes and condition())


async def test_everything_is_read_and_the_restart_cleared() -> None:
    plant = Plant()
    async with outstation(plant, unsolicited=True, need_time=True) as (_, session, connection):
        async with connected(connection, points=POINTS) as driver, running(driver) as heard:
            await ready(session, lambda: not session.restart_indication and not session.need_time)
            await heard.until(lambda: len(told(heard.samples, "last")) >= 1)
            assert len(session.unsolicited_classes) == 3
            assert abs(plant.clock_ms[0] - time.time() * 1000) < 5000
            latest = {name: told(heard.samples, name)[-1][1] for name in ("breaker", "current", "last")}
    assert latest == {"breaker": True, "current": 0.0, "last": 499.5}
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_events_arrive_with_their_times_in_order_by_report_and_by_poll() -> None:
    plant = Plant()
    async with outstation(plant, unsolicited=True) as (server, session, connection):
        async with connected(connection, points=POINTS) as driver, running(driver) as heard:
            await ready(session)
            for n in range(1, 6):
                record(plant, n)
            server.notify()
            await until(lambda: not plant.events.total)
            await driver.call("unsolicited", {"enable": False})
            for n in range(6, 11):
                record(plant, n)
            await driver.call("class-poll", {})
            await until(lambda: not plant.events.total)
    found = [one for one in told(heard.samples, "current") if one[0] < NOON + 1000]
    assert found == [(NOON + n, n) for n in range(1, 11)]
    states = [one for one in told(heard.samples, "breaker") if one[0] < NOON + 1000]
    assert states == [(NOON + n, n % 2 == 0) for n in range(1, 11)]


def record(plant: Plant, n: int) -> None:
    first = EventClass.CLASS_1
    plant.events.record_analog(0, objects.AnalogPoint(n), event_class=first, timestamp_ms=NOON + n)
    point = objects.BinaryPoint(n % 2 == 0)
    plant.events.record_binary(0, point, event_class=first, timestamp_ms=NOON + n)


async def test_buffered_events_of_an_outage_arrive_once() -> None:
    plant, heard = Plant(), Heard()
    async with outstation(plant, unsolicited=True) as (server, session, connection):
        async with connected(connection, points=POINTS) as driver:
            async with running(driver, heard):
                await ready(session)
                port = server.port
                await server.stop()
                with pytest.raises(DriverError):
                    await heard.run
            for n in range(1, 31):
                record(plant, n)
            again = OutstationServer(session, bind=f"127.0.0.1:{port}", unsolicited_interval=0.02)
            await again.start()
            try:
                await driver.connect()
                async with running(driver, heard):
                    await until(lambda: not plant.events.total)
            finally:
                await again.stop()
    found = [one for one in told(heard.samples, "current") if one[0] < NOON + 1000]
    assert found == [(NOON + n, n) for n in range(1, 31)]


async def test_a_buffer_that_overflowed_is_a_loss() -> None:
    plant = Plant()
    async with outstation(plant) as (_, session, connection):
        async with connected(connection, points=POINTS, poll="100ms") as driver, running(driver) as heard:
            await heard.until(lambda: told(heard.samples, "last"))
            for n in range(1, 131):
                record(plant, n)
            await until(lambda: not plant.events.total)
            await heard.until(lambda: heard.losses)
            await until(lambda: not plant.events.overflowed())
            assert session.restart_indication is False
    assert heard.losses == [(1, "event-buffer-overflow")]
    found = [one for one in told(heard.samples, "current") if one[0] < NOON + 1000]
    assert found == sorted(set(found))
    assert found[-1] == (NOON + 130, 130)


async def test_controls_are_carried_out_once() -> None:
    plant = Plant()
    async with outstation(plant) as (_, _, connection):
        async with connected(connection, points=POINTS) as driver, running(driver):
            await driver.write({"close": True})
            await driver.write({"close": False})
            await driver.write({"setpoint": 12.5})
            plant.status = CommandStatus.LOCAL
            with pytest.raises(DriverError, match=r"(?i)local") as refused:
                await driver.write({"close": True})
    assert refused.value.code == "device-error"
    assert plant.operated == [(3, "CLOSE"), (3, "TRIP"), (1, 12.5)]


async def test_a_select_that_expires_is_said() -> None:
    plant = Plant()
    looks = itertools.count()  # its clock goes on by a minute at each look

    def clock() -> float:
        return next(looks) * 60.0

    async with outstation(plant, clock=clock, select_timeout=1.0) as (_, _, connection):
        async with connected(connection, points=POINTS) as driver:
            with pytest.raises(DriverError) as failed:
                await driver.write({"close": True})
    assert failed.value.code == "device-error"
    assert not plant.operated


async def test_a_restart_is_asked_for_and_noticed() -> None:
    plant = Plant()
    async with outstation(plant, unsolicited=True) as (_, session, connection):
        async with connected(connection, points=POINTS) as driver, running(driver) as heard:
            await ready(session)
            await heard.until(lambda: told(heard.samples, "last"))
            heard.samples.clear()
            answer = await driver.call("cold-restart", {})
            assert "1.5" in repr(answer)
            await ready(session, lambda: not session.restart_indication)
            await heard.until(lambda: told(heard.samples, "last"))
    assert plant.restarted == 1


async def test_a_second_master_that_takes_the_outstation_away_is_a_lost_connection() -> None:
    plant = Plant()
    async with outstation(plant) as (_, _, connection):
        async with connected(connection, points=POINTS) as driver, running(driver) as heard:
            await heard.until(lambda: told(heard.samples, "last"))
            other = Dnp3Driver(device(connection, points=POINTS), {})
            await other.connect()
            with pytest.raises(DriverError) as lost:
                await heard.run
            assert (await other.read(["current"])).values == {"current": 0.0}
            await other.close()
    assert lost.value.code == "disconnected"
