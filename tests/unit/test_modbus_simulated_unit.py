"""The simulated unit, without a line: encoding, time, coverage, hostile requests."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import Quality
from protocols.modbus.config import ModbusDevice, ModbusPoint
from sim.modbus.encoder import encoder
from sim.modbus.unit import SimulatedUnit

NUMBERS = [
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bcd16",
    "bcd32",
]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def unit(points: dict[str, Any], sim: dict[str, Any], clock: Clock | None = None) -> SimulatedUnit:
    raw = {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc.example"},
        "address_base": 1,
        "points": points,
        "sim": sim,
    }
    return SimulatedUnit([ModbusDevice.model_validate(raw).named("rig")], clock or Clock())


def registers(one: SimulatedUnit, function: int, start: int, count: int) -> bytes:
    answer = one.answer(struct.pack(">BHH", function, start, count))
    assert answer[:2] == bytes((function, count * 2))
    return answer[2:]


orders = st.sampled_from(["ABCD", "BADC", "CDAB", "DCBA"])
scales = st.sampled_from([1.0, 0.1, -0.5, 3.0, 0.001])


@given(
    st.sampled_from(NUMBERS), orders, scales, st.floats(-1e3, 1e3), st.floats() | st.integers(-(2**70), 2**70)
)
def test_every_number_is_held_as_nearly_as_the_type_allows(
    kind: str, order: str, scale: float, offset: float, value: float
) -> None:
    raw = {"table": "input", "address": 1, "type": kind, "order": order, "scale": scale, "offset": offset}
    point = ModbusPoint.model_validate(raw)
    if math.isnan(value):
        return
    read = point.codec.decode(encoder(point)(value))
    assert not isinstance(read, Quality)
    assert not isinstance(read, str)
    again = point.codec.decode(encoder(point)(read))
    assert again == pytest.approx(read, rel=1e-3, abs=abs(scale))  # what was read is held as it is
    if abs(value) <= 1000 and kind in ("int32", "float64", "int64"):
        assert read == pytest.approx(value, abs=abs(scale) * 0.51 + 1e-9)


@pytest.mark.parametrize(
    ("kind", "scale", "value", "held"),
    [
        ("uint16", 1, -5, 0),
        ("uint16", 0.1, 1e9, 6553.5),
        ("int16", -1, 1e9, 32768),
        ("bcd16", 1, 123456, 9999),
        ("float16", 1, 1e9, 65504.0),
        ("float32", 1, math.inf, 3.4028234663852886e38),
        ("uint64", 1, 2**64 - 1, 2**64 - 1),
        ("uint64", 1, math.inf, 2**64 - 1),
    ],
)
def test_numbers_saturate(kind: str, scale: float, value: float, held: float) -> None:
    point = ModbusPoint.model_validate({"table": "input", "address": 1, "type": kind, "scale": scale})
    assert point.codec.decode(encoder(point)(value)) == held


def test_reading_brings_points_to_the_time_of_the_request() -> None:
    clock = Clock()
    points = {
        "ramp": {"table": "input", "address": 1, "type": "float32"},
        "field": {"table": "input", "address": 3, "bits": "4..7", "order": "BADC"},
        "beside": {"table": "input", "address": 3, "bit": 0, "order": "BADC"},
        "on": {"table": "discrete", "address": 9},
    }
    rising = {"ramp": {"from": 0, "to": 15, "period": "15s"}}
    one = unit(
        points, {"ramp": rising, "field": rising, "beside": True, "on": {"square": {"period": "8s"}}}, clock
    )
    clock.now = 2.0
    assert struct.unpack(">f", registers(one, 4, 0, 2)) == (2.0,)
    clock.now = 5.0
    assert registers(one, 4, 0, 3) == struct.pack(">f", 5.0) + bytes((0x51, 0))
    assert one.answer(b"\2\0\x08\0\1") == b"\2\1\0"
    clock.now = 9.0
    assert one.answer(b"\2\0\x08\0\1") == b"\2\1\1"


def test_a_lag_follows_what_was_written_even_if_nobody_reads() -> None:
    clock = Clock()
    points = {
        "setpoint": {"table": "holding", "address": 1, "access": "rw"},
        "speed": {"table": "input", "address": 1, "type": "float64"},
    }
    one = unit(points, {"speed": {"follow": "setpoint", "tau": "2s"}}, clock)
    clock.now = 10.0
    one.answer(b"\6\0\0\0\x64")
    clock.now = 12.0
    one.answer(b"\x10\0\0\0\1\2\0\0")
    clock.now = 14.0
    [speed] = struct.unpack(">d", registers(one, 4, 0, 4))
    assert speed == pytest.approx(100 * (1 - math.exp(-1)) * math.exp(-1))


def test_bits_are_packed_as_the_standard_says() -> None:
    points = {f"coil-{n}": {"table": "coil", "address": n + 1, "access": "rw"} for n in range(2000)}
    one = unit(points, {})
    # Section 6.11's example: ten coils from 20 on become CD 01.
    assert one.answer(bytes.fromhex("0f0013000a02cd01")) == bytes.fromhex("0f0013000a")
    assert one.answer(bytes.fromhex("010013000a")) == bytes.fromhex("0102cd01")
    assert one.answer(bytes.fromhex("01000007d0"))[:2] == bytes((1, 250))
    assert one.answer(bytes.fromhex("01000007d1")) == bytes((0x81, 3))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("03", "8303"),
        ("0300000000", "8303"),
        ("030000007e", "8303"),
        ("0300640001", "8302"),
        ("0600010001", "8602"),  # the address is read-only
        ("06000000", "8603"),
        ("0500000001", "8503"),
        ("1000000001020001ff", "9003"),
        ("1000000002020001", "9003"),
        ("63", "e301"),
        ("2b0d0000", "ab01"),
        ("2b0e0500", "ab03"),
        ("08000100ff", "8801"),
        ("0800", "8803"),
        ("1407060001000000ff", "9403"),
        ("1407060001000000fa", "9403"),  # more than one answer holds
        ("1407050001000000 01", "9402"),
        ("1407060005000000 01", "9402"),
        ("1503060001", "9503"),
        ("1500", "9503"),
        ("150a06000100000002ffff01", "9503"),
        ("18", "9803"),
        ("1101", "9103"),
    ],
)
def test_wrong_requests_get_their_exceptions(request_: str, answer: str) -> None:
    points = {
        "out": {"table": "holding", "address": 1, "access": "rw"},
        "fixed": {"table": "holding", "address": 2},
        "coil": {"table": "coil", "address": 1, "access": "rw"},
    }
    one = unit(points, {})
    assert one.answer(bytes.fromhex(request_)).hex() == answer
    assert registers(one, 3, 0, 2) == b"\0\0\0\0"


functions = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 17, 20, 21, 22, 23, 24, 43])
bodies = st.lists(st.sampled_from([0, 1, 2, 6, 7, 14, 255]) | st.integers(0, 255), max_size=30).map(bytes)


@given(
    st.lists(st.binary(min_size=1, max_size=253) | st.builds(lambda f, b: bytes((f,)) + b, functions, bodies))
)
def test_any_request_has_an_answer(requests: list[bytes]) -> None:
    points = {
        "a": {"table": "holding", "address": 1, "type": "float32", "access": "rw"},
        "b": {"table": "input", "address": 1, "type": "string", "length": 9},
        "c": {"table": "coil", "address": 1, "access": "rw"},
        "d": {"table": "discrete", "address": 1},
    }
    one = unit(points, {"b": "text", "d": {"follow": "c"}})
    for request in requests:
        answer = one.answer(request)
        assert 2 <= len(answer) <= 253
        assert answer[0] & 0x7F == request[0] & 0x7F
