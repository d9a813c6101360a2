"""From the fragments of an outstation to samples in engineering values. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple

from protocols.base import Quality, Sample, Value
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.fragment import Block, Fragment
from protocols.dnp3.objects import EVENT_GROUP, FLAG_NAMES, ONLINE, STATIC_GROUP, FlagName, PointType
from protocols.dnp3.once import Event, Once
from protocols.dnp3.point import Dnp3Point, Linear, scaled

_STATIC: Final[dict[int, PointType]] = {group: kind for kind, group in STATIC_GROUP.items()}
_EVENT: Final[dict[int, PointType]] = {group: kind for kind, group in EVENT_GROUP.items()}
_LATEST_MS: Final = (2**63 - 1) // 1_000_000
"""The last time that nanoseconds in 64 bits hold: in the year 2262."""

_FAULTS: Final[tuple[tuple[FlagName, Quality], ...]] = (
    ("comm-lost", Quality.DISCONNECTED),
    ("restart", Quality.STALE),
    ("over-range", Quality.OUT_OF_RANGE),
    ("chatter", Quality.DEVICE_ERROR),
    ("reference-error", Quality.DEVICE_ERROR),
    ("discontinuity", Quality.DEVICE_ERROR),
    ("rollover", Quality.DEVICE_ERROR),
    ("remote-forced", Quality.DEVICE_ERROR),
    ("local-forced", Quality.DEVICE_ERROR),
)
"""What flags say against a value, the weightiest first."""


def names_of(kind: PointType, octet: int) -> list[FlagName]:
    """The flags of a kind that are set in an octet."""
    return [name for bit, name in FLAG_NAMES[kind].items() if octet & bit]


def quality_of(kind: PointType, octet: int, tolerate: Iterable[FlagName]) -> Quality | None:
    """What is wrong with a value that has these flags; None if nothing is."""
    against = set(names_of(kind, octet)) - set(tolerate)
    for name, quality in _FAULTS:
        if name in against:
            return quality
    return None if octet & ONLINE else Quality.DEVICE_ERROR


class _Reading(NamedTuple):
    """A point and the way to its value."""

    name: str
    value_of: Callable[[Any], Value | Quality]
    flags: bool
    """Its value are its flags."""
    linear: Linear | None
    number: bool
    """A number or a boolean: its value is what came, or that scaled, if it is finite."""


class _Kind:
    """The points of one kind."""

    def __init__(self, kind: PointType, points: Sequence[Dnp3Point], tolerate: Sequence[FlagName]) -> None:
        self.readings: dict[int, list[_Reading]] = {}
        for point in points:
            number = point.kind in ("number", "integer", "boolean")
            reading = _Reading(point.name, point.value_of, point.field == "flags", point.linear, number)
            self.readings.setdefault(point.index, []).append(reading)
        self.faults = [quality_of(kind, octet, tolerate) for octet in range(256)]
        self.good = bytes(octet for octet in range(256) if self.faults[octet] is None)
        self.texts = [" ".join(names_of(kind, octet)) for octet in range(256)]
        self.span = lru_cache(maxsize=64)(self._span)

    def _span(self, indices: range) -> "_Span":
        return _Span(self.readings, indices)

    def read(self, reading: _Reading, raw: Any, octet: int) -> Value | Quality:
        """The point's value from one object, or why it has none."""
        if reading.flags:
            return self.texts[octet]
        return self.faults[octet] or reading.value_of(raw)


class _Span:
    """The points in a range of indices, which an outstation sends time after time."""

    def __init__(self, readings: dict[int, list[_Reading]], indices: range) -> None:
        self.places = [
            (place, reading)
            for place, index in enumerate(indices)
            if index in readings
            for reading in readings[index]
        ]
        self._names = [reading.name for _, reading in self.places]
        taken = [place for place, _ in self.places]
        self._whole = taken == list(range(len(indices)))
        # One more, so that it always gives a tuple.
        self._pick = itemgetter(*taken, taken[0]) if taken else None
        numbers = all(one.number for _, one in self.places)
        scales = [one.linear for _, one in self.places if one.linear is not None]
        self._plain = numbers and not scales
        self._scales = scales if numbers and len(scales) == len(taken) else None

    def good(self, raws: Sequence[Any]) -> dict[str, Value] | None:
        """The values of all at once, whatever their flags; None if they must be looked at one by one."""
        if self._pick is None or not (self._plain or self._scales):
            return None
        picked = raws if self._whole else self._pick(raws)
        if self._scales:
            picked = scaled(self._scales, picked)
        if isinstance(picked[0], float) and not math.isfinite(sum(picked)):  # a single one makes the sum so
            return None
        return dict(zip(self._names, picked, strict=False))


class _Present:
    """Values of one time: of two for a point the later counts."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.bad: dict[str, Quality] = {}

    def put(self, name: str, value: Value | Quality) -> None:
        if isinstance(value, Quality):
            self.bad[name] = value
            self.values.pop(name, None)
        else:
            self.values[name] = value
            if self.bad:
                self.bad.pop(name, None)

    def put_good(self, values: dict[str, Value]) -> None:
        self.values.update(values)
        if self.bad:
            for name in values:
                self.bad.pop(name, None)

    def sample(self, time_ns: int) -> Sample:
        return Sample(time_ns, self.values, self.bad)

    def __bool__(self) -> bool:
        return bool(self.values or self.bad)


class Readings:
    """The points of one outstation, and what of its events was handed on already.

    Objects of points that the profile does not name are passed over: it is a selection.
    """

    def __init__(self, device: Dnp3Device) -> None:
        self.undecoded = ""
        """What of the last fragment could not be taken, and why; empty if all could."""
        members: dict[PointType, list[Dnp3Point]] = {kind: [] for kind in STATIC_GROUP}
        for point in device.points.values():
            if point.readable:
                members[point.type].append(point)
        self._kinds = {kind: _Kind(kind, points, device.tolerate) for kind, points in members.items()}
        self._by_event = {group: self._kinds[kind] for group, kind in _EVENT.items()}
        self._own_time = device.event_time == "outstation"
        self._once = Once()

    def connection_lost(self) -> None:
        """The confirmation of the last fragment may not have reached the outstation."""
        self._once.connection_lost()

    def take(self, fragment: Fragment) -> list[Sample]:
        """What a fragment says: its new events in their order, then its present values if it reports them."""
        decoded = fragment.decoded
        self.undecoded = decoded.problem
        samples: list[Sample] = []
        present = _Present()
        static = False
        happened: list[Block] = []
        for block in decoded.blocks:
            if block.group in _STATIC:
                static = True
                if fragment.report:
                    self._put(present, block)
            elif block.group in _EVENT and block.indices:
                happened.append(block)
        if not fragment.repeated:
            if happened:
                samples = self._events(happened, fragment.time_ns)
            elif not fragment.crossed:
                self._once.without_events(static)
        if present:
            samples.append(present.sample(fragment.time_ns))
        return samples

    def answer(
        self, blocks: Iterable[Block], names: Sequence[str], time_ns: int, *, refused: bool = False
    ) -> Sample:
        """Present values of these points from the response to a read.

        A point that did not come is bad: `bad-config` where the outstation `refused` the request for its
        objects or their range, else `device-error`.
        """
        present = _Present()
        for block in blocks:
            if block.group in _STATIC:
                self._put(present, block)
        missing = Quality.BAD_CONFIG if refused else Quality.DEVICE_ERROR
        values = {name: present.values[name] for name in names if name in present.values}
        bad = {name: present.bad.get(name, missing) for name in names if name not in values}
        return Sample(time_ns, values, bad)

    def _put(self, present: _Present, block: Block) -> None:
        """Adds the present values of a block."""
        kind = self._kinds[_STATIC[block.group]]
        indices, values, flags = block.indices, block.values, block.flags
        if not isinstance(indices, range):
            for index, raw, octet in zip(indices, values, flags or repeat(ONLINE), strict=False):
                for reading in kind.readings.get(index, ()):
                    present.put(reading.name, kind.read(reading, raw, octet))
            return
        span = kind.span(indices)
        good = span.good(values)
        if good is None:
            for place, reading in span.places:
                octet = ONLINE if flags is None else flags[place]
                present.put(reading.name, kind.read(reading, values[place], octet))
            return
        present.put_good(good)
        if flags is not None and bytes(flags).translate(None, kind.good):
            for place, reading in span.places:
                if (fault := kind.faults[flags[place]]) is not None:
                    present.put(reading.name, fault)

    def _events(self, blocks: Sequence[Block], came_ns: int) -> list[Sample]:
        """New events in their order; those of one time and of different points are one sample."""
        events = [event for block in blocks for event in _events_of(block)]
        samples: list[Sample] = []
        values: dict[str, Value] = {}
        bad: dict[str, Quality] = {}
        at_ns = came_ns
        misfits = 0
        for event, new in zip(events, self._once.fresh(events), strict=True):
            group, index, raw, octet, time = event
            kind = self._by_event[group]
            readings = kind.readings.get(index)
            if readings is None or not new:
                continue
            time_ns = came_ns
            if time is not None and self._own_time:
                if time <= _LATEST_MS:
                    time_ns = time * 1_000_000
                else:
                    misfits += 1
            for reading in readings:
                name = reading.name
                if time_ns != at_ns or name in values or name in bad:
                    if values or bad:
                        samples.append(Sample(at_ns, values, bad))
                    values, bad, at_ns = {}, {}, time_ns
                value = kind.read(reading, raw, octet)
                if isinstance(value, Quality):
                    bad[name] = value
                else:
                    values[name] = value
        if values or bad:
            samples.append(Sample(at_ns, values, bad))
        if misfits:
            text = f"{misfits} events have a time after the year 2261; the time they came at is theirs"
            self.undecoded = f"{self.undecoded}; {text}" if self.undecoded else text
        return samples


def _events_of(block: Block) -> Iterator[Event]:
    flags = repeat(ONLINE) if block.flags is None else block.flags
    times: Iterable[int | None] = repeat(None) if block.times is None else block.times
    values = block.values
    if values and isinstance(values[0], float):  # NaN is only itself
        values = [value if value == value else math.nan for value in values]
    return zip(repeat(block.group), block.indices, values, flags, times, strict=False)
