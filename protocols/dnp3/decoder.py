"""From the octets of a response to its objects, column by column. Pure.

What comes is hostile until it was read. An object's size is the only way to the next, so reading ends at
the first header that makes no sense, and what came before it stands.
"""

import functools
from collections.abc import Sequence
from itertools import chain
from struct import Struct
from typing import Any, Final, NamedTuple

from protocols.dnp3.fragment import Block, Decoded
from protocols.dnp3.objects import EVENT_GROUP, LAYOUTS, STATIC_GROUP, Layout

_STRINGS: Final = {STATIC_GROUP["octet_string"]: False, EVENT_GROUP["octet_string"]: True}
_COMMON_TIME, _DELAY = 51, 52
_RANGES: Final = {0x00: Struct("<BB"), 0x01: Struct("<HH")}
_COUNTS: Final = {0x07: Struct("<B"), 0x08: Struct("<H")}
_PREFIXES: Final = {0x17: Struct("<B"), 0x28: Struct("<H")}

# What an octet says, by its value: flags without the state, and the state.
_BINARY_FLAGS: Final = bytes(octet & 0x7F for octet in range(256))
_DOUBLE_FLAGS: Final = bytes(octet & 0x3F for octet in range(256))
_DOUBLE: Final = bytes(octet >> 6 for octet in range(256))
_BINARY: Final = tuple(octet > 0x7F for octet in range(256))
_BITS: Final = tuple(tuple(bool(octet >> place & 1) for place in range(8)) for octet in range(256))
_PAIRS: Final = tuple(tuple(octet >> place & 3 for place in range(0, 8, 2)) for octet in range(256))


class _Stop(Exception):
    """Reading cannot go on; says why."""


class _Common(NamedTuple):
    """The common time of occurrence (group 51), from which relative times count."""

    milliseconds: int
    synchronised: bool


class _Header(NamedTuple):
    """An object header: what comes under it, and how many."""

    group: int
    variation: int
    layout: Layout
    objects: int
    indices: range
    """Empty where each object has its own before it, or none."""
    prefix: str
    """`struct` code of the index before each object; else empty."""


_Columns = tuple[Sequence[int], Sequence[Any], Sequence[int] | None, Sequence[int] | None]
"""Indices, values, flags and times, as a `Block` has them."""


class _Records:
    """How objects of one layout are taken apart, with an index before each or without."""

    def __init__(self, layout: Layout, prefix: str) -> None:
        self._layout = layout
        number = f"{layout.opaque}s" if layout.opaque else layout.number
        time = {"": "", "absolute": "IH", "relative": "H"}[layout.time]
        record = Struct("<" + prefix + ("x" if layout.flags else "") + number + time)
        self.size = record.size
        self._unpack = record.iter_unpack
        self._prefixed = bool(prefix)
        self._state_at = Struct("<" + prefix).size
        self._number = bool(number)

    def take(self, data: bytes, indices: Sequence[int], common: _Common | None) -> _Columns:
        """Takes whole objects apart; there is at least one."""
        layout = self._layout
        columns = list(zip(*self._unpack(data), strict=True))
        if self._prefixed:
            indices = columns.pop(0)
        values: Sequence[Any] = columns.pop(0) if self._number else ()
        times: Sequence[int] | None = None
        if layout.time == "absolute":
            times = tuple([low | high << 32 for low, high in zip(*columns, strict=True)])
        elif layout.time == "relative" and common is not None:
            start = common.milliseconds
            times = tuple([start + after for after in columns[0]])
        flags = data[self._state_at :: self.size] if layout.flags else None
        if flags is not None and not self._number:
            values, flags = _states(layout, flags)
        if layout.kind is None and times is not None:
            values, times = times, None
        return indices, values, flags, times


def _states(layout: Layout, octets: bytes) -> tuple[Sequence[Any], bytes]:
    """Values and flags of objects whose state lies in the flag octet."""
    if layout.kind == "double_bit_input":
        return octets.translate(_DOUBLE), octets.translate(_DOUBLE_FLAGS)
    return tuple([_BINARY[octet] for octet in octets]), octets.translate(_BINARY_FLAGS)


def _packed(header: _Header, data: bytes) -> _Columns:
    """Objects that share octets; the lowest index lies in the lowest bits."""
    table: Sequence[tuple[int, ...]] = _BITS if header.layout.bits == 1 else _PAIRS
    values = chain.from_iterable([table[octet] for octet in data])
    return header.indices, tuple(values)[: header.objects], None, None


@functools.lru_cache(maxsize=1024)
def _records(layout: Layout, prefix: str) -> _Records:
    return _Records(layout, prefix)


def _layout(group: int, variation: int) -> Layout:
    if group in _STRINGS and variation:
        return Layout("octet_string", _STRINGS[group], f"{variation}s", flags=False)
    try:
        return LAYOUTS[group, variation]
    except KeyError:
        raise _Stop("is not an object that is read here") from None


class _Reader:
    """Goes through one body once."""

    def __init__(self, body: bytes) -> None:
        self.blocks: list[Block] = []
        self._body = body
        self._at = 0
        self._common: _Common | None = None

    def run(self) -> Decoded:
        """Reads headers and their objects until the end, or until one makes no sense."""
        while (start := self._at) < len(self._body):
            head = self._body[start : start + 3]
            if len(head) < 3:
                return Decoded(self.blocks, head, "the response ends inside an object header")
            group, variation, qualifier = head
            self._at += 3
            try:
                self._objects(self._header(group, variation, qualifier))
            except _Stop as why:
                problem = f"group {group} variation {variation} {why}"
                return Decoded(self.blocks, self._body[start:], problem)
        return Decoded(self.blocks)

    def _header(self, group: int, variation: int, qualifier: int) -> _Header:
        layout = _layout(group, variation)
        if qualifier in _RANGES:
            start, stop = self._numbers(_RANGES[qualifier])
            if stop < start:
                raise _Stop(f"has a range that ends before it begins: {start} to {stop}")
            indices, prefix = range(start, stop + 1), ""
            count = len(indices)
        elif qualifier in _PREFIXES:
            indices, prefix = range(0), _PREFIXES[qualifier].format[1:]
            (count,) = self._numbers(_PREFIXES[qualifier])
        elif qualifier in _COUNTS:
            indices, prefix = range(0), ""
            (count,) = self._numbers(_COUNTS[qualifier])
        else:
            raise _Stop(f"came with qualifier {qualifier:02X} (hex), which is not read here")
        indexed = layout.kind is not None or layout.opaque > 0
        if indexed is (qualifier in _COUNTS):
            raise _Stop("came without indices" if indexed else "came with indices, which times do not have")
        if layout.bits and prefix:
            raise _Stop("came with an index to each, and its objects share octets")
        return _Header(group, variation, layout, count, indices, prefix)

    def _numbers(self, record: Struct) -> tuple[int, ...]:
        return record.unpack(self._next(record.size, "has a header that is cut off"))

    def _next(self, size: int, otherwise: str) -> bytes:
        end = self._at + size
        if end > len(self._body):
            raise _Stop(otherwise)
        data = self._body[self._at : end]
        self._at = end
        return data

    def _objects(self, header: _Header) -> None:
        group, variation, layout, count = header[:4]
        cut = f"promises {count} objects, and the response ends inside them"
        if layout.bits:
            columns = _packed(header, self._next((count * layout.bits + 7) // 8, cut))
        else:
            records = _records(layout, header.prefix)
            data = self._next(count * records.size, cut)
            if not count:
                return
            columns = records.take(data, header.indices, self._common)
        indices, values, flags, times = columns
        synchronised = True
        if group == _COMMON_TIME:
            synchronised = variation == 1
            self._common = _Common(values[-1], synchronised)
        elif layout.time == "relative" and self._common is not None:
            synchronised = self._common.synchronised
        elif group == _DELAY and variation == 1:  # in seconds
            values = tuple([delay * 1000 for delay in values])
        self.blocks.append(Block(group, variation, indices, values, flags, times, synchronised))


def decode(body: bytes) -> Decoded:
    """The objects of a response, as far as they can be read. Never raises.

    Times that are relative (2 variation 3, 4 variation 3) count from the common time before them in the same
    fragment; without one they have none.
    """
    return _Reader(body).run()
