"""Objects of responses: known bytes, py1815 as an oracle, and anything at all."""

import struct
import tracemalloc
from typing import Any

import py1815.decode as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dnp3.decoder import decode
from protocols.dnp3.fragment import Block, Decoded
from protocols.dnp3.objects import LAYOUTS, VARIATIONS, Layout


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def only(body: str) -> tuple[Any, ...]:
    """Indices, values, flags and times of the one block that this is."""
    decoded = decode(hexed(body))
    assert decoded.problem == ""
    (block,) = decoded.blocks
    return tuple(
        None if c is None else list(c) for c in (block.indices, block.values, block.flags, block.times)
    )


# Bytes by hand, after the layouts of the standard's object library.


@pytest.mark.parametrize(
    ("body", "columns"),
    [
        ("1e 01 00 03 04 01 10270000 05 f0d8ffff", ([3, 4], [10000, -10000], [1, 5], None)),
        ("1e 02 01 0300 0300 01 ffff", ([3], [-1], [1], None)),
        ("1e 05 17 01 07 41 0000c03f", ([7], [1.5], [0x41], None)),
        ("20 03 28 0100 0002 01 05000000 0100 0000 0080", ([512], [5], [1], [0x800000000001])),
        ("16 05 17 01 02 21 ffffffff e80300000000", ([2], [0xFFFFFFFF], [0x21], [1000])),
        ("01 02 00 00 02 81 01 c1", ([0, 1, 2], [True, False, True], [1, 1, 0x41], None)),
        ("01 01 00 02 0b 05 02", ([*range(2, 12)], [True, False, True, *[False] * 6, True], None, None)),
        ("03 01 00 00 04 e4 02", ([0, 1, 2, 3, 4], [0, 1, 2, 3, 2], None, None)),
        ("03 02 00 09 0a 81 7f", ([9, 10], [2, 1], [1, 0x3F], None)),
        ("04 02 17 01 09 c1 0a0000000000", ([9], [3], [1], [10])),
        ("6e 05 00 01 02 48656c6c6f 776f726c64", ([1, 2], [b"Hello", b"world"], None, None)),
        ("6f 01 28 0100 0700 41", ([7], [b"A"], None, None)),
        ("0c 01 17 01 05 4101 64000000 64000000 00", ([5], [hexed("4101 64000000 64000000 00")], None, None)),
        ("29 02 28 0100 0500 0a00 04", ([5], [hexed("0a0004")], None, None)),
        ("0d 02 17 01 01 80 0a0000000000", ([1], [hexed("80 0a0000000000")], None, None)),
        ("32 01 07 01 0a0000000000", ([], [10], None, None)),
        ("34 01 07 01 0300", ([], [3000], None, None)),
        ("34 02 08 0100 0300", ([], [3], None, None)),
    ],
)
def test_known_bytes(body: str, columns: tuple[Any, ...]) -> None:
    assert only(body) == columns


@pytest.mark.parametrize(("variation", "synchronised"), [(1, True), (2, False)])
def test_relative_times_count_from_the_common_time_before_them(variation: int, synchronised: bool) -> None:
    body = bytes((51, variation)) + hexed(
        "07 01 e80300000000 02 03 17 02 05 81 0500 06 01 ffff 04 03 17 01 01 41 0100"
    )
    common, binaries, double = decode(body).blocks
    assert (common.values, common.times) == ((1000,), None)
    assert (list(binaries.indices), binaries.times) == ([5, 6], (1005, 1000 + 0xFFFF))
    assert (list(double.values), double.times) == ([1], (1001,))
    assert {common.synchronised, binaries.synchronised, double.synchronised} == {synchronised}


def test_a_relative_time_without_a_common_time_is_none() -> None:
    assert only("02 03 17 01 05 81 0500") == ([5], [True], [1], None)


def test_absolute_times_stand_by_themselves() -> None:
    body = hexed("33 02 07 01 e80300000000 02 02 17 01 05 81 0a0000000000")
    assert decode(body).blocks[1] == Block(2, 2, (5,), (True,), b"\x01", (10,), True)


def test_no_objects_are_no_block() -> None:
    assert decode(b"") == Decoded([])
    assert decode(hexed("20 03 28 0000 1e 01 17 00")) == Decoded([])


# What cannot be read.

GOOD = hexed("01 02 00 00 00 81")


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("1e 01", "the response ends inside an object header"),
        ("1e 01 00 05", "group 30 variation 1 has a header that is cut off"),
        ("1e 01 28 05", "group 30 variation 1 has a header that is cut off"),
        ("1e 01 00 05 04", "group 30 variation 1 has a range that ends before it begins: 5 to 4"),
        ("1e 01 01 ffff 0000", "group 30 variation 1 has a range that ends before it begins: 65535 to 0"),
        (
            "1e 01 00 00 01 01 00000000",
            "group 30 variation 1 promises 2 objects, and the response ends inside them",
        ),
        (
            "1e 01 28 ffff 0000",
            "group 30 variation 1 promises 65535 objects, and the response ends inside them",
        ),
        ("01 01 00 00 08 ff", "group 1 variation 1 promises 9 objects, and the response ends inside them"),
        ("01 01 17 01 00 01", "group 1 variation 1 came with an index to each, and its objects share octets"),
        ("63 01 00 00 00 00", "group 99 variation 1 is not an object that is read here"),
        ("1e 09 00 00 00 00", "group 30 variation 9 is not an object that is read here"),
        ("6e 00 00 00 00 00", "group 110 variation 0 is not an object that is read here"),
        ("1e 01 06", "group 30 variation 1 came with qualifier 06 (hex), which is not read here"),
        (
            "1e 01 02 00000000 00000000",
            "group 30 variation 1 came with qualifier 02 (hex), which is not read here",
        ),
        ("1e 01 07 01 01 00000000", "group 30 variation 1 came without indices"),
        ("0c 01 07 01 4101 64000000 64000000 00", "group 12 variation 1 came without indices"),
        ("32 01 17 01 00 0a0000000000", "group 50 variation 1 came with indices, which times do not have"),
        ("33 01 00 00 00 0a0000000000", "group 51 variation 1 came with indices, which times do not have"),
    ],
)
def test_reading_stops_and_says_where_and_why(rest: str, problem: str) -> None:
    decoded = decode(GOOD + hexed(rest))
    assert [block.group for block in decoded.blocks] == [1]
    assert (decoded.problem, decoded.unread) == (problem, hexed(rest))


def test_what_is_promised_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        decode(hexed("1e 01 28 ffff 0000"))
        decode(hexed("01 01 01 0000 ffff 00"))
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


# Against py1815, whose decoder was written by others.

THEIRS = dict(oracle.LAYOUTS)
_KINDS = {
    "binary_input": oracle.PointType.BINARY_INPUT,
    "binary_output": oracle.PointType.BINARY_OUTPUT,
    "counter": oracle.PointType.COUNTER,
    "frozen_counter": oracle.PointType.FROZEN_COUNTER,
    "analog_input": oracle.PointType.ANALOG_INPUT,
    "analog_output": oracle.PointType.ANALOG_OUTPUT,
}


def layout_there(layout: Layout) -> oracle.Layout:
    """One of our layouts as py1815 writes it; of kinds that it does not know as numbers of binary inputs."""
    kind = None if layout.kind is None else _KINDS.get(layout.kind, oracle.PointType.BINARY_INPUT)
    time = {"": oracle._Time.NONE, "absolute": oracle._Time.ABSOLUTE, "relative": oracle._Time.RELATIVE}
    return oracle.Layout(
        kind,
        event=layout.event and layout.kind is not None,
        flags=layout.flags or layout.opaque > 0,  # of what it walks past it says so
        number="<" + layout.number if layout.number else None,
        time=time[layout.time],
        packed=layout.bits == 1,
        opaque=layout.opaque,
    )


def test_every_layout_of_py1815_is_ours() -> None:
    assert {key: layout_there(LAYOUTS[key]) for key in THEIRS} == THEIRS


@pytest.fixture(scope="module", autouse=True)
def _more_groups() -> Any:
    """A py1815 that knows our groups as well."""
    more = {key: layout_there(layout) for key, layout in LAYOUTS.items() if layout.bits != 2}
    for group, event in ((110, False), (111, True)):
        strings = Layout("octet_string", event, "", flags=False)
        for size in range(1, 256):
            more[group, size] = layout_there(strings._replace(number=f"{size}s"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle, "LAYOUTS", more)
        yield


Row = tuple[Any, ...]


def ours(decoded: Decoded) -> list[Row]:
    rows: list[Row] = []
    for block in decoded.blocks:
        count = len(block.values)
        columns = [list(c) if c else [None] * count for c in (block.indices, block.flags, block.times)]
        indices, flags, times = columns
        raw = [
            value.hex() if isinstance(value, float) else value for value in block.values
        ]  # NaN is not itself
        rows += [(block.group, block.variation, *row) for row in zip(indices, raw, flags, times, strict=True)]
    return rows


def theirs(objects: tuple[oracle.DecodedObject, ...]) -> list[Row]:
    return [_row(one) for one in objects]


def _row(one: oracle.DecodedObject) -> Row:
    value: Any = one.value
    flags, time = one.flags, one.time_ms
    layout = LAYOUTS.get((one.group, one.variation))
    if layout is None or layout.opaque:
        value = one.raw
    elif layout.kind == "double_bit_input":
        value, flags = one.raw[0] >> 6, one.raw[0] & 0x3F
    elif (one.group, one.variation) == (52, 1):
        value *= 1000
    if one.index is None:
        time = None
    return (
        one.group,
        one.variation,
        one.index,
        value.hex() if isinstance(value, float) else value,
        flags,
        time,
    )


def size_of(group: int, variation: int) -> int:
    return layout_there(LAYOUTS[group, variation]).size if (group, variation) in LAYOUTS else variation


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """One object header with its objects, as an outstation may send it."""
    known = [key for key, layout in LAYOUTS.items() if layout.bits != 2]
    strings = st.tuples(st.sampled_from([110, 111]), st.integers(1, 255))
    group, variation = draw(st.one_of(st.sampled_from(known), strings))
    layout = LAYOUTS.get((group, variation))
    head = bytes((group, variation))
    size = size_of(group, variation)
    if 50 <= group <= 52:
        count = draw(st.integers(0, 3))
        qualifier = draw(st.sampled_from([b"\x07" + bytes((count,)), b"\x08" + struct.pack("<H", count)]))
        return head + qualifier + draw(st.binary(min_size=count * size, max_size=count * size))
    if draw(st.booleans()) or (layout and layout.bits):
        wide = draw(st.booleans())
        start = draw(st.integers(0, 65000 if wide else 200))
        count = draw(st.integers(1, 20))
        span = struct.pack("<HH" if wide else "<BB", start, start + count - 1)
        octets = (count + 7) // 8 if layout and layout.bits else count * size
        return head + bytes((wide,)) + span + draw(st.binary(min_size=octets, max_size=octets))
    wide = draw(st.booleans())
    count = draw(st.integers(0, 10))
    octets = count * (size + 1 + wide)
    number = struct.pack("<H" if wide else "<B", count)
    return head + (b"\x28" if wide else b"\x17") + number + draw(st.binary(min_size=octets, max_size=octets))


bodies = st.lists(blocks(), max_size=5).map(b"".join)


@given(bodies)
def test_a_valid_response_is_read_as_py1815_reads_it(body: bytes) -> None:
    here, there = decode(body), oracle.decode_objects(body)
    assert here.problem == ""
    assert ours(here) == theirs(there.objects)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 4)) if body else 0):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))])


@given(st.one_of(damaged(), st.binary(max_size=300)))
def test_nothing_raises_and_nothing_is_read_that_py1815_does_not(body: bytes) -> None:
    decoded = decode(body)
    assert body.endswith(decoded.unread)
    assert bool(decoded.problem) == bool(decoded.unread)
    doubles = any(block.group == 3 and block.variation == 1 for block in decoded.blocks)
    rows = ours(decoded)
    assert doubles or theirs(oracle.decode_objects(body).objects)[: len(rows)] == rows
    for block in decoded.blocks:
        layout = LAYOUTS.get((block.group, block.variation))
        if layout and layout.kind and block.flags:
            state = (
                0x80 if layout.kind.startswith("binary") else 0xC0 if layout.kind.startswith("double") else 0
            )
            assert not any(octet & (0 if layout.number else state) for octet in block.flags)


# The tables.


def test_variations_that_a_kind_can_be_read_in() -> None:
    assert VARIATIONS["analog_input"] == (1, 2, 3, 4, 5, 6)
    assert VARIATIONS["double_bit_input"] == (1, 2)
    assert VARIATIONS["octet_string"] == ()


def test_an_object_is_of_a_kind_of_point_or_walked_past() -> None:
    for layout in LAYOUTS.values():
        assert [bool(layout.kind), bool(layout.opaque), layout.time != "" or bool(layout.number)].count(
            True
        ) >= 1
        assert not (layout.opaque and (layout.kind or layout.number or layout.time or layout.flags))
