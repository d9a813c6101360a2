"""Sparkplug B's payloads: what the specification has as examples, round trips, and hostile bytes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.mqtt import tahu
from protocols.mqtt.tahu_values import DataType, Malformed

D = DataType


def back(datatype: int, value: Any) -> Any:
    (metric,) = tahu.parse(tahu.encode([("m", 1, datatype, value)], 1000, 7)).metrics
    return metric.value(datatype)


VALUES: list[tuple[int, Any]] = [
    (D.Int8, -128),
    (D.Int16, -32768),
    (D.Int32, -(2**31)),
    (D.Int64, -(2**63)),
    (D.UInt8, 255),
    (D.UInt16, 65535),
    (D.UInt32, 2**32 - 1),
    (D.UInt64, 2**64 - 1),
    (D.Float, -1.5),
    (D.Double, 1e300),
    (D.Boolean, False),
    (D.String, "é"),
    (D.Text, ""),
    (D.UUID, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    (D.DateTime, "2026-01-02T03:04:05.678000000Z"),
    (D.Bytes, "00ff"),
    (D.File, ""),
    (D.Int8Array, [-23, 123]),
    (D.UInt64Array, [52, 16444743074749521625]),
    (D.DoubleArray, [12.5, -1.0]),
    (D.BooleanArray, [False, True, True]),
    (D.BooleanArray, []),
    (D.StringArray, ["ABC", "", "hello"]),
    (D.DateTimeArray, ["2009-10-21T05:27:55.335000000Z"]),
    (
        D.DataSet,
        {"columns": ["a", "b"], "types": ["Int8", "String"], "rows": [[-1, "x"], [None, "y"]]},
    ),
]


@pytest.mark.parametrize(("datatype", "value"), VALUES)
def test_values_come_back_as_they_were(datatype: int, value: Any) -> None:
    assert back(datatype, value) == value


@pytest.mark.parametrize(
    ("datatype", "value", "raw"),
    [
        (D.Int32Array, [123456789, 987654321], "15cd5b07b168de3a"),
        (D.Int16Array, [-30000, 30000], "d08a3075"),
        (D.UInt16Array, [30, 52360], "1e0088cc"),
        (D.StringArray, ["ABC", "hello"], "4142430068656c6c6f00"),
    ],
)
def test_the_specifications_own_examples_of_arrays(datatype: int, value: Any, raw: str) -> None:
    assert bytes.fromhex(raw) in tahu.encode([("m", None, datatype, value)], 1)
    assert back(datatype, value) == value


def test_booleans_are_packed_from_the_highest_bit() -> None:
    bits = [c == "1" for c in "001101001101"]
    assert bytes.fromhex("0c00000034d0") in tahu.encode([("m", None, D.BooleanArray, bits)], 1)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (D.Int8, 128),
        (D.UInt8, -1),
        (D.UInt64, 2**64),
        (D.Float, 1e300),
        (D.Int32, 1.5),
        (D.Int32, True),
        (D.Boolean, 1),
        (D.String, 5),
        (D.Bytes, "zz"),
        (D.DateTime, "yesterday"),
        (D.Int8Array, [200]),
        (D.Int8Array, ["a"]),
        (D.StringArray, ["a\0b"]),
        (D.DataSet, {"columns": ["a"], "types": [], "rows": []}),
        (D.DataSet, {"columns": ["a"], "types": ["Nothing"], "rows": []}),
        (D.Template, {}),
    ],
)
def test_what_a_type_cannot_hold_is_refused(datatype: int, value: Any) -> None:
    with pytest.raises(Malformed):
        tahu.encode([("m", None, datatype, value)], 1)


def _int(raw: int, datatype: int) -> Any:
    """A metric whose int_value is raw, read as a type."""
    (metric,) = tahu.parse(tahu.encode([("m", None, D.UInt32, raw)], 1)).metrics
    return metric.value(datatype)


def test_signed_integers_may_be_sign_extended_and_never_wrap() -> None:
    assert _int(0xFF, D.Int8) == -1
    assert _int(0xFFFFFFFF, D.Int8) == -1
    assert _int(127, D.Int8) == 127
    for raw, datatype in ((300, D.UInt8), (0x1FF, D.Int8), (70000, D.Int16)):
        with pytest.raises(Malformed):
            _int(raw, datatype)


def test_a_null_and_a_time_of_its_own() -> None:
    (metric,) = tahu.parse(tahu.encode([("m", 3, D.Double, None)], 1000, times={"m": 5})).metrics
    assert (metric.null, metric.time_ms, metric.alias, metric.name) == (True, 5, 3, "m")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_hostile_bytes_are_malformed_or_a_payload(body: bytes) -> None:
    try:
        payload = tahu.parse(body)
    except Malformed:
        return
    for metric in payload.metrics:
        for datatype in (*DataType, 0, 99):
            try:
                metric.value(datatype)
            except Malformed:
                continue


GOOD = tahu.encode([(str(n), n, kind, value) for n, (kind, value) in enumerate(VALUES)], 1, 1)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_damaged_payloads_are_malformed_or_a_payload(place: int, byte: int, end: int) -> None:
    damaged = bytearray(GOOD)
    damaged[place] = byte
    try:
        payload = tahu.parse(bytes(damaged[:end]))
    except Malformed:
        return
    for metric in payload.metrics:
        try:
            metric.value(metric.datatype or 0)
        except Malformed:
            continue
