"""Simulated instruments, asked by the driver: on TCP, on a pty, several on a line, with all its options."""

from typing import Any

import pytest
from pydantic import ValidationError
from text_peer import connected, device
from waiting import until

from protocols.base import DriverError
from protocols.text.config import TextDevice
from sim.text.devices import simulated

TCP = {"transport": "tcp", "host": "psu.bench.example"}
SERIAL = {"transport": "serial", "port": "/dev/ttyUSB0", "parity": "even", "bytesize": 7}
POINTS: dict[str, Any] = {
    "set": {"query": "VOLT?", "write": "VOLT {value:.2f}", "access": "rw", "max": 60, "safe": 0},
    "out": {"query": "OUTP?", "write": "OUTP {value}", "access": "rw", "type": "boolean"},
    "mode": {
        "query": "MODE?",
        "write": "MODE {value}",
        "access": "rw",
        "type": "enumeration",
        "labels": {"CV": "voltage", "CC": "current"},
    },
    "name": {"query": "NAME?", "write": 'NAME "{value}"', "access": "rw", "type": "string"},
    "volts": {"query": "MEAS?", "field": 1},
    "amps": {"query": "MEAS?", "field": 3},
    "temp": {"query": "TEMP?", "pattern": r"T=([\d.]+) C", "unit": "C"},
    "power": {"query": "POW?", "suffix": {"mW": 0.001, "W": 1}},
    "bits": {"query": "BITS?", "type": "integer", "base": 16},
}
SIM = {"volts": {"follow": "set"}, "amps": 1.5, "temp": 20.5, "power": 2.5, "bits": 31, "name": "psu"}
VALUES = {"set": 0, "out": False, "mode": "voltage", "volts": 0, "amps": 1.5, "temp": 20.5, "power": 2.5}
SCPI: dict[str, Any] = {"identify": {"query": "*IDN?"}, "errors": {"query": "SYST:ERR?"}, "init": ["*CLS"]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"connection": SERIAL},
        {"connection": {"transport": "rfc2217", "host": "x"}},
        {"terminator": "\r", "write_terminator": "\r\n"},
        {"echo": True, "write_terminator": "\r\n"},
        {"prompt": "> "},
        {"echo": True, "prompt": "> ", "connection": SERIAL, "terminator": "\r\n"},
        {"checksum": {"algorithm": "crc16-modbus"}},
        {"checksum": {"algorithm": "sum8", "template": "${text}*{checksum}", "format": "raw"}},
        {"prefix": "01", "answer_prefix": "01"},
    ],
    ids=["tcp", "pty", "rfc2217", "ends", "echo", "prompt", "all", "crc", "raw", "prefix"],
)
async def test_the_driver_reads_and_writes_it(fields: dict[str, Any]) -> None:
    made = device(**{"connection": TCP, "points": POINTS, "sim": SIM, "timeout": "10s"} | SCPI | fields)
    async with simulated({"psu": made}) as moved, connected(moved["psu"].named("psu")) as driver:
        sample = await driver.read(list(POINTS))
        assert sample.bad == {}
        assert sample.values == VALUES | {"name": "psu", "bits": 31}
        told: dict[str, Any] = {"set": 12.34, "out": True, "mode": "current", "name": 'a "b"; c'}
        assert (await driver.write(told)).values == told
        assert (await driver.read(list(told))).values == told
        assert (await driver.read(["volts"])).values == {"volts": 12.34}
        with pytest.raises(DriverError, match='-222,"Data out of range"'):
            await driver.call("send", {"command": "VOLT 99"})
        with pytest.raises(DriverError, match='-104,"Data type error"'):
            await driver.call("send", {"command": "OUTP maybe"})
        with pytest.raises(DriverError, match='-113,"Undefined header"'):
            await driver.call("send", {"command": "FOO 1"})
        assert (await driver.call("identify", {}))["model"] == "psu"
        assert (await driver.call("status", {}))["dropped"] == {}


async def test_what_follows_a_setpoint_begins_with_it() -> None:
    made = device(TCP, POINTS, sim=SIM | {"set": 48}, timeout="10s")
    async with simulated({"psu": made}) as moved, connected(moved["psu"]) as driver:
        assert (await driver.read(["set", "volts"])).values == {"set": 48, "volts": 48}


async def test_blocks_are_read_and_written() -> None:
    points = {
        "trace": {
            "query": "CURV?",
            "write": "CURV {value}",
            "access": "rw",
            "type": "array",
            "block": {"items": "int16", "order": "little"},
        }
    }
    made = device(TCP, points, sim={"trace": [1, 2, 3]}, timeout="10s", **SCPI)
    async with simulated({"psu": made}) as moved, connected(moved["psu"]) as driver:
        assert (await driver.read(["trace"])).values == {"trace": [1, 2, 3]}
        await driver.write({"trace": [2570, 10, -1]})
        assert (await driver.read(["trace"])).values == {"trace": [2570, 10, -1]}


async def test_several_on_one_line_and_what_they_report() -> None:
    points: dict[str, Any] = {
        "relay": {
            "query": "R?",
            "pattern": "R=([01])",
            "write": "R={value}",
            "answer": "OK",
            "access": "rw",
            "type": "boolean",
            "true_as": "1",
            "false_as": "0",
        },
        "key": {"report": "KEY ([01])", "type": "boolean"},
    }
    common = {"shared": True, "sim": {"key": True}, "timeout": "10s"}
    made = {
        name: device(SERIAL, points, prefix=f"{name}:", answer_prefix=f"{name}:", **common).named(name)
        for name in ("a", "b")
    }
    shared: dict[Any, Any] = {}
    async with simulated(made) as moved:
        assert moved["a"].connection == moved["b"].connection
        async with connected(moved["a"], shared) as a, connected(moved["b"], shared) as b:
            await a.write({"relay": True})
            assert (await a.read(["relay"])).values == {"relay": True}
            assert (await b.read(["relay"])).values == {"relay": False}
            await until(lambda: a._reported or b._reported)


async def test_answers_that_patterns_do_not_tell_are_given() -> None:
    points = {"volts": {"query": "MEAS?", "pattern": r"(?:V|U)[=:] *([\d.]+)[ ;].*"}}
    made = device(TCP, points, sim={"volts": 12.5})
    with pytest.raises(ValidationError, match="does not follow from the pattern of 'volts'"):
        async with simulated({"psu": made}):
            pass
    told = made.model_copy(
        update={"simulation": made.simulation.model_copy(update={"answers": {"MEAS?": "V= {volts:.3f}; ok"}})}
    )
    async with simulated({"psu": told}) as moved, connected(moved["psu"]) as driver:
        assert (await driver.read(["volts"])).values == {"volts": 12.5}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"identify": {"expect": "ACME.*"}}, "give one that identify: expect takes"),
        ({"errors": {"ok": "NONE"}}, "give one that errors: ok takes"),
        ({"simulation": {"answers": {"A?": "{nobody}"}}}, "no point is called 'nobody'"),
    ],
)
async def test_simulations_that_the_driver_would_not_take(fields: dict[str, Any], text: str) -> None:
    made: TextDevice = device(TCP, **fields)
    with pytest.raises(ValidationError, match=text):
        async with simulated({"psu": made}):
            pass
