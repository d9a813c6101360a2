"""Kernel filters pass exactly what is wanted; the load of a bus; arguments of `call`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import Refused
from protocols.can.arguments import frame, seconds
from protocols.can.config import Connection
from protocols.can.filters import between, exactly, passes
from protocols.can.frame import BRS, ERROR, EXTENDED, FDF, REMOTE, Frame, format_id, parse_id
from protocols.can.load import Load

STANDARD = st.integers(0, 0x7FF)
EXTENDED_ID = st.integers(0, 0x1FFFFFFF)


@given(STANDARD, STANDARD, STANDARD)
def test_a_range_of_11_bits_passes_its_ids_only(a: int, b: int, probe: int) -> None:
    first, last = sorted((a, b))
    filters = list(between(first, last))
    assert len(filters) <= 20
    assert passes(filters, probe) is (first <= probe <= last)
    assert passes(filters, probe | REMOTE) is (first <= probe <= last)
    assert not passes(filters, probe | EXTENDED)


@given(EXTENDED_ID, EXTENDED_ID, st.data())
def test_a_range_of_29_bits_passes_its_ids_only(a: int, b: int, data: st.DataObject) -> None:
    first, last = sorted((a, b))
    filters = list(between(first | EXTENDED, last | EXTENDED))
    assert len(filters) <= 56
    near = st.sampled_from((first - 1, first, last, last + 1)).filter(lambda i: 0 <= i <= 0x1FFFFFFF)
    probe = data.draw(st.one_of(EXTENDED_ID, near))
    assert passes(filters, probe | EXTENDED) is (first <= probe <= last)
    if probe <= 0x7FF:
        assert not passes(filters, probe)


@given(EXTENDED_ID, EXTENDED_ID)
def test_one_id_passes_alone_and_no_remote_frame(can_id: int, other: int) -> None:
    filters = [exactly(can_id | EXTENDED)]
    assert passes(filters, can_id | EXTENDED)
    assert passes(filters, other | EXTENDED) is (can_id == other)
    assert not passes(filters, can_id | EXTENDED | REMOTE)


@given(st.one_of(STANDARD, EXTENDED_ID.map(lambda i: i | EXTENDED)))
def test_an_id_is_read_as_it_is_written(can_id: int) -> None:
    assert parse_id(format_id(can_id)) == can_id


@pytest.mark.parametrize(
    ("written", "can_id"),
    [("0x123", 0x123), ("7E8", 0x7E8), (0x800, 0x800 | EXTENDED), ("0x123x", 0x123 | EXTENDED), (0, 0)],
)
def test_ids_in_the_ways_people_write_them(written: Any, can_id: int) -> None:
    assert parse_id(written) == can_id


@pytest.mark.parametrize("written", ["", "0x", "xyz", -1, 0x20000000, "0x123456789", True, None, 1.0, [1]])
def test_what_is_no_id_is_said(written: Any) -> None:
    with pytest.raises(ValueError, match="arbitration id"):
        parse_id(written)


def test_the_load_is_that_of_the_bits() -> None:
    load = Load(500_000)
    for _ in range(1000):
        load.add(Frame(0, 0x123, bytes(8)))
    # 47 + 64 bits without stuffing, as can-utils' canbusload counts them: 111,000 of 500,000 in a second.
    assert load.take(1.0) == pytest.approx(22.2)
    assert load.take(1.0) == 0
    load.add(Frame(0, ERROR | 4, bytes(8)))
    assert load.take(1.0) == 0


def test_data_of_a_fast_frame_takes_less_time() -> None:
    slow, fast = Load(500_000, 2_000_000), Load(500_000, 2_000_000)
    slow.add(Frame(0, 1, bytes(64), FDF))
    fast.add(Frame(0, 1, bytes(64), FDF | BRS))
    once, quick = slow.take(0.01), fast.take(0.01)
    assert quick < once / 2
    assert Load(1000).take(0.0) == 0


PLAIN = Connection(channel="can0")
FAST = Connection(channel="can0", fd=True)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"id": "0x123", "data": "01 02ff"}, Frame(0, 0x123, b"\x01\x02\xff")),
        ({"id": 5}, Frame(0, 5, b"")),
        ({"id": 5, "extended": True, "data": ""}, Frame(0, 5 | EXTENDED, b"")),
        ({"id": "0x1", "remote": True, "dlc": 4}, Frame(0, 1 | REMOTE, bytes(4))),
        ({"id": 1, "fd": True, "brs": True, "data": "00" * 12}, Frame(0, 1, bytes(12), FDF | BRS)),
    ],
)
def test_a_frame_is_made_of_its_arguments(args: dict[str, Any], expected: Frame) -> None:
    assert frame(args, FAST) == expected


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ({}, "malformed", "id"),
        ({"id": "zz"}, "malformed", "arbitration id"),
        ({"id": 1, "data": "0"}, "malformed", "hex"),
        ({"id": 1, "data": 5}, "malformed", "hex"),
        ({"id": 1, "data": "00" * 9}, "out-of-range", "0 to 8"),
        ({"id": 1, "fd": True}, "out-of-range", "no CAN FD bus"),
        ({"id": 1, "brs": True}, "malformed", "fd: true"),
        ({"id": 1, "remote": True, "data": "00"}, "malformed", "remote"),
        ({"id": 1, "remote": True, "dlc": 9}, "malformed", "dlc"),
        ({"id": 1, "dlc": 3}, "malformed", "dlc"),
        ({"id": 1, "extended": "yes"}, "malformed", "true or false"),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(args: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(Refused, match=text) as refused:
        frame(args, PLAIN)
    assert refused.value.code == code


def test_9_bytes_are_no_length_of_can_fd() -> None:
    with pytest.raises(Refused, match="12, 16"):
        frame({"id": 1, "fd": True, "data": "00" * 9}, FAST)


@pytest.mark.parametrize("value", [0, -1, "5", "1parsec", None, True, 61, float("nan")])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(Refused, match="timeout"):
        seconds({"timeout": value}, "timeout")
