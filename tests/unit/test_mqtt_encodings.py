"""How payloads hold values and times: known ones, round trips, and any bytes at all."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.base import Refused
from protocols.mqtt.encodings import NUMBERS, UnreadableError, decoded, encoded, time_ns
from protocols.mqtt.point import Encoding

ENCODINGS: tuple[str, ...] = get_args(Encoding)
NANOSECONDS = 1_000_000_000


def test_every_encoding_of_a_profile_is_known() -> None:
    assert set(ENCODINGS) == {*NUMBERS, "json", "plain", "hex", "base64"}


@pytest.mark.parametrize(
    ("encoding", "payload", "value"),
    [
        ("json", b' {"a": [1, 2.5, null]} ', {"a": [1, 2.5, None]}),
        ("plain", "21 °C".encode(), "21 °C"),
        ("hex", b"\x00\xff", "00ff"),
        ("base64", b"\x00\xff", "AP8="),
        ("int8", b"\xff", -1),
        ("uint16", b"\x01\x02", 0x0102),
        ("uint16-le", b"\x01\x02", 0x0201),
        ("int32-le", b"\xfe\xff\xff\xff", -2),
        ("float32", b"\x41\x20\x00\x00", 10.0),
        ("float64-le", b"\0\0\0\0\0\0\xf0\x3f", 1.0),
    ],
)
def test_known_payloads(encoding: str, payload: bytes, value: Any) -> None:
    assert decoded(encoding, payload) == value
    if encoding != "json":
        assert encoded(encoding, value) == payload


def test_a_number_at_its_place() -> None:
    assert decoded("uint16", b"\0\0\0\x07\0", 2) == 7


@pytest.mark.parametrize(
    ("encoding", "payload", "reason"),
    [
        ("json", b"", "not-json"),
        ("json", b"NaN", "not-json"),
        ("json", b"[" * 100_000, "not-json"),
        ("json", b'"\xff"', "not-json"),
        ("plain", b"\xff", "not-text"),
        ("uint32", b"\0\0\0", "too-short"),
    ],
)
def test_what_cannot_be_read(encoding: str, payload: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decoded(encoding, payload)


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("int16", 1e9),
        ("hex", "xy"),
        ("base64", "?"),
        ("int8", math.inf),
        ("float32", 1e39),
    ],
)
def test_what_cannot_be_written_is_refused(encoding: str, value: Any) -> None:
    with pytest.raises(Refused, match=f"cannot be written as {encoding}") as refused:
        encoded(encoding, value)
    assert refused.value.code == "out-of-range"


def test_integers_are_the_nearest() -> None:
    assert (encoded("int16", 2.6), encoded("json", 2.6), encoded("plain", True)) == (b"\0\3", b"2.6", b"true")


@given(st.sampled_from(ENCODINGS), st.binary(max_size=40), st.integers(0, 50))
@settings(max_examples=300)
def test_any_bytes_are_a_value_or_unreadable_and_come_back(
    encoding: str, payload: bytes, offset: int
) -> None:
    try:
        value = decoded(encoding, payload, offset)
    except UnreadableError:
        return
    if encoding in NUMBERS and value == value:  # NaN is not
        size = len(encoded(encoding, value))
        assert encoded(encoding, value) == payload[offset : offset + size]
    elif encoding in ("plain", "hex", "base64"):
        assert encoded(encoding, value) == payload


@pytest.mark.parametrize(
    ("raw", "unit", "ns"),
    [
        ("1970-01-01T00:00:01Z", "s", NANOSECONDS),
        ("1970-01-01T01:00:00.000000001+01:00", "s", 1),
        ("2024-02-29t12:00:00.5z", "s", 1_709_208_000_500_000_000),
        (1.5, "s", 1_500_000_000),
        (1_709_208_000_123, "ms", 1_709_208_000_123_000_000),
        (7, "us", 7000),
        (7, "ns", 7),
    ],
)
def test_times(raw: Any, unit: str, ns: int) -> None:
    assert time_ns(raw, unit) == ns


@pytest.mark.parametrize(
    "raw",
    [
        None,
        True,
        "",
        "now",
        "2024-02-30T00:00:00Z",
        "2024-02-28T00:00:00",
        "2024-02-28T25:00:00Z",
        -1,
        math.nan,
        1e300,
        {},
    ],
)
def test_what_is_no_time(raw: Any) -> None:
    with pytest.raises(UnreadableError, match="bad-time"):
        time_ns(raw, "s")


@given(st.text(max_size=30) | st.floats() | st.integers(), st.sampled_from(["s", "ms", "us", "ns"]))
@settings(max_examples=200)
def test_anything_is_a_time_or_unreadable(raw: Any, unit: str) -> None:
    try:
        assert time_ns(raw, unit) >= 0
    except UnreadableError:
        pass
