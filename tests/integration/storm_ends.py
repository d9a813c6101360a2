"""The buses that storms are made on: a device of each, and what a good driver says to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dnp3_scripted_master import POINTS as DNP3_POINTS
from scripted import Heard, running
from storm import PATIENCE_S, Turns, recording

from agent.plugins import protocols, simulators
from protocols.base import DeviceConfig, Driver
from protocols.units import WRITTEN

LOOPBACK: dict[str, Any] = {"host": "127.0.0.1"}
MODBUS: Mapping[str, Any] = {
    "speed": {"table": "input", "address": 0, "type": "float32"},
    "name": {"table": "input", "address": 4, "type": "string", "length": 5},
    "set": {"table": "holding", "address": 10, "scale": 0.1, "access": "rw"},
    "on": {"table": "coil", "address": 3, "access": "rw"},
    "ready": {"table": "discrete", "address": 0},
}
TEXT: Mapping[str, Any] = {
    "set": {"query": "VOLT?", "write": "VOLT {value:.2f}", "access": "rw"},
    "name": {"query": "NAME?", "write": 'NAME "{value}"', "access": "rw", "type": "string"},
    "volts": {"query": "MEAS?", "field": 1},
    "temp": {"query": "TEMP?", "pattern": r"T=([\d.]+) C"},
    "curve": {"query": "CURV?", "block": {"items": "int16"}, "type": "array"},
}
OPCUA: Mapping[str, Any] = {
    "set": {"node": "ns=2;s=Set", "access": "rw"},
    "recipe": {"node": "ns=2;s=Recipe", "type": "object", "fields": {"name": "String", "steps": "UInt16"}},
    "profile": {"node": "ns=2;s=Profile", "type": "array"},
}
MQTT: Mapping[str, Any] = {
    "t": {"topic": "oven/t", "encoding": "plain"},
    "state": {"topic": "oven/state", "encoding": "json", "path": "$.a"},
    "set": {"topic": "oven/set", "encoding": "plain", "access": "rw", "write": {"topic": "oven/set/now"}},
}
DEVICES: Mapping[str, Mapping[str, Any]] = {
    "modbus": {
        "protocol": "modbus",
        "connection": LOOPBACK | {"transport": "tcp"},
        "address_base": 0,
        "timeout": "100ms",
        "poll": "20ms",
        "points": MODBUS,
    },
    "modbus-rtu": {
        "protocol": "modbus",
        "connection": LOOPBACK | {"transport": "rtu-tcp", "port": 4001},
        "address_base": 0,
        "timeout": "100ms",
        "poll": "20ms",
        "points": MODBUS,
    },
    "dnp3": {
        "protocol": "dnp3",
        "connection": LOOPBACK | {"transport": "tcp"},
        "outstation": 10,
        "timeout": "100ms",
        "points": DNP3_POINTS,
    },
    "opcua": {
        "protocol": "opcua",
        "connection": {"url": "opc.tcp://127.0.0.1:4840", "security": {"policy": "None"}},
        "points": OPCUA,
        "sim": {"profile": [1.0, 2.0], "recipe": {"constant": {"name": "rinse", "steps": 3}}},
    },
    "mqtt": {
        "protocol": "mqtt",
        "connection": LOOPBACK | {"transport": "tcp", "client_id": "storm"},
        "points": MQTT,
    },
    "text": {
        "protocol": "text",
        "connection": LOOPBACK | {"transport": "tcp"},
        "identify": {"query": "*IDN?"},
        "errors": {"query": "SYST:ERR?"},
        "poll": "20ms",
        "timeout": "100ms",
        "points": TEXT,
        "sim": {"volts": 12.5, "temp": 20.5, "curve": [1, 2, 3]},
    },
}
WRITES: Mapping[str, Mapping[str, Any]] = {
    "modbus": {"set": 12.5, "on": True},
    "modbus-rtu": {"set": 12.5, "on": True},
    "dnp3": {"setpoint": 10.0},
    "opcua": {"set": 12.5},
    "mqtt": {"set": 12.5},
    "text": {"set": 12.5, "name": "psu"},
}


def device(kind: str, **fields: Any) -> DeviceConfig:
    """A device of a kind."""
    whole = dict(DEVICES[kind]) | fields
    return protocols()[whole["protocol"]].config().model_validate(whole, context=WRITTEN).named("rig")


def at(made: DeviceConfig, port: int) -> DeviceConfig:
    """The device at another port."""
    connection: Any = made.connection  # type: ignore[attr-defined]  # each protocol has its own
    update = {"url": f"opc.tcp://127.0.0.1:{port}"} if made.protocol == "opcua" else {"port": port}
    return made.model_copy(update={"connection": connection.model_copy(update=update)}).named("rig")


def port_of(made: DeviceConfig) -> int:
    """The port of a device on loopback."""
    connection: Any = made.connection  # type: ignore[attr-defined]  # each protocol has its own
    return (
        int(connection.url.rstrip("/").rpartition(":")[2])
        if made.protocol == "opcua"
        else int(connection.port)
    )


def driver(made: DeviceConfig) -> Driver:
    return protocols()[made.protocol].driver(made, {})


@contextlib.asynccontextmanager
async def simulated(kind: str, **fields: Any) -> AsyncIterator[DeviceConfig]:
    """A simulated device of a kind."""
    made = device(kind, **fields)
    async with simulators()[made.protocol].start({"rig": made}) as moved:
        yield moved["rig"].named("rig")


async def served(kind: str, made: DeviceConfig) -> None:
    """A good driver connects, gets samples, reads, writes and leaves."""
    one = driver(made)
    readable = [name for name, point in made.points.items() if point.readable]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await one.connect()
            async with running(one, Heard()) as heard:
                await heard.until(lambda: heard.samples)
                sample = await one.read(readable)
                assert sample.values
                await one.write(dict(WRITES[kind]))
    finally:
        await one.close()


async def recorded(kind: str, made: DeviceConfig) -> Turns:
    """What a good driver and the device say to each other."""
    async with recording(port_of(made)) as (port, turns):
        await served(kind, at(made, port))
    assert turns
    return turns


async def get(port: int, path: str) -> bytes:
    """What an HTTP server answers to a good client."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer
