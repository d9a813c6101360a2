"""PyVISA with its pure Python backend, a client that we did not write, at our simulated instruments."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import pyvisa
from pyvisa.resources import MessageBasedResource

from protocols.text.config import TextDevice
from sim.text.devices import simulated

T = TypeVar("T")
POINTS: dict[str, Any] = {
    "set": {"query": "VOLT?", "write": "VOLT {value:.3f}", "access": "rw", "max": 60, "unit": "V"},
    "volts": {"query": "MEAS?", "field": 1},
    "amps": {"query": "MEAS?", "field": 2},
    "trace": {
        "query": "CURV?",
        "write": "CURV {value}",
        "access": "rw",
        "type": "array",
        "block": {"items": "float32"},
    },
}


def device(connection: dict[str, Any], **fields: Any) -> TextDevice:
    whole = {
        "protocol": "text",
        "connection": connection,
        "points": POINTS,
        "sim": {"volts": {"follow": "set"}, "amps": 1.5, "trace": [0.5, 1.0, -2.0]},
        "identify": {},
        "errors": {},
    }
    return TextDevice.model_validate(whole | fields).named("psu")


def spoken_with(resource: str, **settings: Any) -> dict[str, Any]:
    """What a VISA client gets for what it asks; blocks, so it runs in a thread."""
    manager = pyvisa.ResourceManager("@py")
    try:
        opened = manager.open_resource(resource, timeout=20_000, **settings)
        assert isinstance(opened, MessageBasedResource)
        with opened as psu:
            got: dict[str, Any] = {"identity": psu.query("*IDN?").strip()}
            psu.write("VOLT 12.34")
            got["set"] = float(psu.query("VOLT?"))
            got["measured"] = psu.query_ascii_values("MEAS?")
            got["trace"] = psu.query_binary_values("CURV?", datatype="f", is_big_endian=True)
            psu.write_binary_values("CURV ", [1.5, 2.5], datatype="f", is_big_endian=True)
            got["written"] = psu.query_binary_values("CURV?", datatype="f", is_big_endian=True)
            psu.write("VOLT 99")
            psu.write("FOO")
            got["errors"] = [psu.query("SYST:ERR?").strip() for _ in range(3)]
            return got
    finally:
        manager.close()


async def in_thread(work: Callable[[], T]) -> T:
    async with asyncio.timeout(60):
        return await asyncio.to_thread(work)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("transport", ["tcp", "serial"])
async def test_pyvisa_py_speaks_with_our_instrument(transport: str, end: str) -> None:
    connection = {"transport": transport, **({"host": "x"} if transport == "tcp" else {"port": "/dev/x"})}
    async with simulated({"psu": device(connection, terminator=end)}) as moved:
        where = moved["psu"].connection
        if where.transport == "serial":
            resource = f"ASRL{where.port}::INSTR"
        else:
            resource = f"TCPIP::{where.host}::{where.port}::SOCKET"
        ends = {"read_termination": end, "write_termination": end}
        got = await in_thread(lambda: spoken_with(resource, **ends))
    assert got == {
        "identity": "hilgate,psu,0,sim",
        "set": 12.34,
        "measured": [12.34, 1.5],
        "trace": [0.5, 1.0, -2.0],
        "written": [1.5, 2.5],
        "errors": ['-222,"Data out of range"', '-113,"Undefined header"', '0,"No error"'],
    }
