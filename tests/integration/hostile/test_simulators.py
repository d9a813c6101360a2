"""Simulated devices bear whatever their clients send, and serve a good one afterwards."""

import pytest
from storm import at_server, storming
from storm_ends import port_of, recorded, served, simulated


@pytest.mark.parametrize(
    ("kind", "in_ci"),
    [
        ("modbus", 10_000),
        ("modbus-rtu", 2000),
        ("dnp3", 5000),
        ("text", 8000),
        ("mqtt", 6000),
        ("opcua", 2000),
    ],
)
async def test_hostile_clients(kind: str, in_ci: int) -> None:
    async with simulated(kind) as made:
        turns = await recorded(kind, made)
        async with storming(f"simulated {kind}", in_ci) as storm:
            await at_server(storm, port_of(made), [data for up, data in turns if up])
        await served(kind, made)
