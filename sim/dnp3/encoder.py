"""Raw values to objects under headers, in fragments of a bounded size. Pure.

A number that its variation cannot hold saturates and has the flag over-range, as in a real outstation.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from protocols.dnp3.objects import EVENT_GROUP, LAYOUTS, OVER_RANGE, STATIC_GROUP, Layout, PointType
from sim.dnp3.events import Event
from sim.dnp3.points import SimulatedPoint, runs

_INTEGERS: Final = {"i": 2**31, "h": 2**15}
_COUNTERS: Final = {"I": 2**32, "H": 2**16}
_FLOAT32_MAX: Final = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_RANGE_HEADER: Final = 7
_INDEX_HEADER: Final = 5
_COMMON_TIME: Final = 10
"""Octets of object headers: with 16-bit start and stop, with a 16-bit count, and of a common time with it."""
_RELATIVE_REACH_MS: Final = 65535

SYNCHRONISED: Final = 1
UNSYNCHRONISED: Final = 2
"""Variations of group 51: whether the outstation's clock was set when it stamped what follows."""


class Part(NamedTuple):
    """The objects of one fragment, and the events among them."""

    body: bytes
    events: Sequence[Event] = ()


def absolute_time(ms: int) -> bytes:
    """Milliseconds since 1970 as six octets."""
    return (ms % 2**48).to_bytes(6, "little")


def count_of_one(group: int, variation: int, octets: bytes) -> bytes:
    """One object without an index (qualifier 07)."""
    return bytes((group, variation, 0x07, 1)) + octets


def _number(number: str, value: float, flags: int) -> tuple[bytes, int]:
    if number in _COUNTERS:
        return struct.pack("<" + number, int(value) % _COUNTERS[number]), flags
    fitted: float = value
    if number in _INTEGERS:
        limit = _INTEGERS[number]
        finite = value if math.isfinite(value) else math.copysign(limit, value)
        fitted = 0 if math.isnan(value) else min(max(round(finite), -limit), limit - 1)
        if math.isnan(value) or round(finite) != fitted or not math.isfinite(value):
            flags |= OVER_RANGE
    elif number == "f" and math.isfinite(value) and abs(value) > _FLOAT32_MAX:
        fitted, flags = math.copysign(_FLOAT32_MAX, value), flags | OVER_RANGE
    return struct.pack("<" + number, fitted), flags


def encode(kind: PointType, layout: Layout, value: Any, flags: int) -> bytes:
    """Flags and value of one object, without its time. Not for layouts that share octets."""
    if kind in ("binary_input", "binary_output"):
        return bytes((flags & 0x7F | (0x80 if value else 0),))
    if kind == "double_bit_input":
        return bytes((flags & 0x3F | value << 6,))
    octets, flags = _number(layout.number, value, flags)
    return bytes((flags,)) + octets if layout.flags else octets


def _packed(values: Sequence[Any], bits: int) -> bytes:
    """Values of some bits each, the first in the lowest bits of the first octet."""
    whole = sum(int(value) << place * bits for place, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


class Fragments:
    """Gathers objects, and begins a new fragment whenever one is full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()
        self._events: list[Event] = []
        self._parts: list[Part] = []

    def parts(self) -> list[Part]:
        """The fragments so far: at least one, which may be empty."""
        return [*self._parts, Part(bytes(self._body), tuple(self._events))]

    def objects(self, octets: bytes) -> None:
        """Adds whole objects with their header."""
        if len(self._body) + len(octets) > self._limit:
            self._cut()
        self._body += octets

    def static(self, kind: PointType, variation: int, points: Sequence[SimulatedPoint]) -> None:
        """Adds present values; variation 0: each point's own."""
        group = STATIC_GROUP[kind]
        for run in runs(points):
            for chosen, members in _alike(run, variation):
                self._static_run(group, chosen, members)

    def _static_run(self, group: int, variation: int, points: Sequence[SimulatedPoint]) -> None:
        layout = LAYOUTS.get((group, variation))
        bits = layout.bits if layout is not None else 0
        size = len(_static_objects(layout, points[:1]))
        done = 0
        while done < len(points):
            room = self._limit - len(self._body) - _RANGE_HEADER
            fit = room * 8 // bits if bits else room // size
            if fit <= 0:
                self._cut()
                continue
            members = points[done : done + fit]
            self._body += _range_header(group, variation, members[0].index, members[-1].index)
            self._body += _static_objects(layout, members)
            done += len(members)

    def events(self, group: int, variation: int, events: Sequence[Event], synchronised: bool) -> None:
        """Adds events under one header, or more where fragments end or relative times do not reach."""
        layout = LAYOUTS.get((group, variation))
        relative = layout is not None and layout.time == "relative"
        for members in _reachable(events) if relative else (events,):
            encoded = [_event_object(layout, event, members[0].time_ms) for event in members]
            size = len(encoded[0]) + 2
            overhead = _INDEX_HEADER + (_COMMON_TIME if relative else 0)
            done = 0
            while done < len(members):
                fit = (self._limit - len(self._body) - overhead) // size
                if fit <= 0:
                    self._cut()
                    continue
                taken = members[done : done + fit]
                if relative:
                    common = SYNCHRONISED if synchronised else UNSYNCHRONISED
                    self._body += count_of_one(51, common, absolute_time(members[0].time_ms))
                indices = [event.point.index for event in taken]
                self._body += _indexed(group, variation, indices, encoded[done : done + fit])
                self._events += taken
                done += len(taken)

    def _cut(self) -> None:
        self._parts.append(Part(bytes(self._body), tuple(self._events)))
        self._body, self._events = bytearray(), []


def _alike(
    points: Sequence[SimulatedPoint], variation: int
) -> Iterator[tuple[int, Sequence[SimulatedPoint]]]:
    """Neighbours that are reported in the same variation; that of an octet string is its length."""
    begin = 0
    chosen = [
        len(point.value) if point.kind == "octet_string" else variation or point.variation for point in points
    ]
    for at in range(1, len(points) + 1):
        if at == len(points) or chosen[at] != chosen[begin]:
            yield chosen[begin], points[begin:at]
            begin = at


def _static_objects(layout: Layout | None, points: Sequence[SimulatedPoint]) -> bytes:
    if layout is None:
        return b"".join(point.value for point in points)
    if layout.bits:
        return _packed([point.value for point in points], layout.bits)
    if layout.number and not layout.time:
        try:
            return _as_they_are(layout, points)
        except (struct.error, OverflowError):
            pass  # some do not fit, and are fitted one by one
    encoded = (
        encode(point.kind, layout, point.value, point.flags)
        + (absolute_time(point.time_ms) if layout.time else b"")
        for point in points
    )
    return b"".join(encoded)


def _as_they_are(layout: Layout, points: Sequence[SimulatedPoint]) -> bytes:
    """Numbers that fit their variation, at once: class 0 is mostly these."""
    if not layout.flags:
        return struct.pack(f"<{len(points)}{layout.number}", *[point.value for point in points])
    columns: list[Any] = [0] * (2 * len(points))
    columns[::2] = [point.flags for point in points]
    columns[1::2] = [point.value for point in points]
    return struct.pack("<" + ("B" + layout.number) * len(points), *columns)


def _event_object(layout: Layout | None, event: Event, common_ms: int) -> bytes:
    if layout is None:
        return bytes(event.value)
    octets = encode(event.point.kind, layout, event.value, event.flags)
    if layout.time == "absolute":
        return octets + absolute_time(event.time_ms)
    if layout.time == "relative":
        return octets + struct.pack("<H", event.time_ms - common_ms)
    return octets


def _reachable(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Runs of events that one common time serves: none before the first, none too long after it."""
    begin = 0
    for at in range(1, len(events) + 1):
        if at == len(events) or not 0 <= events[at].time_ms - events[begin].time_ms <= _RELATIVE_REACH_MS:
            yield events[begin:at]
            begin = at


def _range_header(group: int, variation: int, start: int, stop: int) -> bytes:
    if stop < 256:
        return bytes((group, variation, 0x00, start, stop))
    return bytes((group, variation, 0x01)) + struct.pack("<HH", start, stop)


def _indexed(group: int, variation: int, indices: Sequence[int], objects: Sequence[bytes]) -> bytes:
    """Objects that each have their index before them (qualifiers 17 and 28)."""
    if max(indices) < 256 and len(indices) < 256:
        head, index = bytes((group, variation, 0x17, len(indices))), "<B"
    else:
        head, index = bytes((group, variation, 0x28)) + struct.pack("<H", len(indices)), "<H"
    return head + b"".join(
        struct.pack(index, place) + octets for place, octets in zip(indices, objects, strict=True)
    )


def event_header(event: Event, variation: int | None) -> tuple[int, int]:
    """Group and variation in which an event is reported; None and 0: as its point has it."""
    if event.point.kind == "octet_string":
        return EVENT_GROUP["octet_string"], len(event.value)
    return EVENT_GROUP[event.point.kind], variation or event.point.event_variation
