"""What a consumer of one bench knows from the events it received so far. Pure: no I/O, time is passed in."""

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from protocols.base import Value

if TYPE_CHECKING:
    from protocols.amqp.cloudevents import Event

SAMPLES = "io.hilgate.samples.v1"
AVAILABILITY = "io.hilgate.availability.v1"

TREND_COLUMNS = 30
TREND_STEP_S = 0.5
LOST_AFTER_INTERVALS = 3
"""A bench is taken as lost when it was silent for so many intervals (wire.md section 3)."""
_RATE_TICKS = 16
_MOST = sys.float_info.max


class _Sample(msgspec.Struct):
    time: datetime
    values: dict[str, Value] = {}
    bad: dict[str, str] = {}


class _Samples(msgspec.Struct):
    samples: list[_Sample]


class DeviceStatus(msgspec.Struct):
    """A device as its bench's availability shows it."""

    protocol: str
    state: str
    mode: str
    reason: str = ""


class _Profile(msgspec.Struct):
    name: str
    digest: str


class LeaseView(msgspec.Struct):
    """Who has the bench, as its availability shows it."""

    holder: str
    devices: list[str] | None = None
    """None: the whole bench."""
    expires: datetime | None = None
    """None: it is being prepared."""


class Availability(msgspec.Struct):
    """The parts of an availability body (wire.md section 3) that people look at."""

    bench: str
    epoch: int
    revision: int
    state: str
    mode: str
    enabled: bool
    interval_s: float
    profile: _Profile
    since: datetime
    reason: str = ""
    devices: dict[str, DeviceStatus] = {}
    lease: LeaseView | None = None


class _PointDescription(msgspec.Struct):
    unit: str = ""


class _DeviceDescription(msgspec.Struct):
    points: dict[str, _PointDescription] = {}


class Description(msgspec.Struct):
    """The parts of a bench's description (op `describe`) that stand beside its values."""

    devices: dict[str, _DeviceDescription] = {}


_samples_decoder = msgspec.json.Decoder(_Samples)
_availability_decoder = msgspec.json.Decoder(Availability)


class PointView:
    """One point: its last value, or why it has none, and how it went lately."""

    def __init__(self) -> None:
        self.value: Value | None = None
        self.bad = ""
        self.time: float | None = None
        """When something was last heard of it; None: never."""
        self.trend: deque[float] = deque(maxlen=TREND_COLUMNS)
        self._column = 0

    def take(self, value: Value, time: float) -> None:
        """Takes a good value; the trend keeps the last one of each `TREND_STEP_S`."""
        self.value, self.bad, self.time = value, "", time
        if not isinstance(value, int | float):
            return
        number = float(min(max(value, -_MOST), _MOST))
        column = int(time / TREND_STEP_S)
        if column == self._column and self.trend:
            self.trend[-1] = number
        else:
            self.trend.append(number)
            self._column = column

    def miss(self, reason: str, time: float) -> None:
        """Takes that there is no good value, and why."""
        self.value, self.bad, self.time = None, reason, time


class Board:
    """The latest of every point of one bench, and how many events came or are missing."""

    def __init__(self, bench: str) -> None:
        self.bench = bench
        self._devices = f"/benches/{bench}/devices/"
        self.availability: Availability | None = None
        self.heard = 0.0
        self.points: dict[str, dict[str, PointView]] = {}
        self.events = 0
        self.values = 0
        self.lost = 0
        self.malformed = 0
        self._sequences: dict[str, tuple[int, int]] = {}
        self._ticks: deque[tuple[float, int, int]] = deque(maxlen=_RATE_TICKS)

    def take(self, event: "Event", now: float) -> None:
        """Takes one event of this bench; one whose body is not as the wire says is counted as malformed.

        Args:
            event: As it was received.
            now: Wall clock in seconds.
        """
        if not self._ticks:
            self._ticks.append((now, 0, 0))
        self.events += 1
        if event.source.startswith(self._devices):
            self._count_holes(event)
        try:
            if event.type == SAMPLES:
                self._take_samples(event)
            elif event.type == AVAILABILITY:
                self._take_availability(event, now)
        except msgspec.DecodeError:
            self.malformed += 1

    def expect(self, points: Iterable[tuple[str, str]]) -> None:
        """Has points (device and name) stand there also before anything is heard of them."""
        for device, point in points:
            self.points.setdefault(device, {}).setdefault(point, PointView())

    def skip(self) -> None:
        """Counts a message that is no event."""
        self.malformed += 1

    def tick(self, now: float) -> tuple[float, float]:
        """Events and values per second since some ticks ago; call it at each refresh."""
        self._ticks.append((now, self.events, self.values))
        then, events, values = self._ticks[0]
        span = now - then
        return ((self.events - events) / span, (self.values - values) / span) if span > 0 else (0.0, 0.0)

    def _take_samples(self, event: "Event") -> None:
        device = event.source.removeprefix(self._devices)
        points = self.points.setdefault(device, {})
        for sample in _samples_decoder.decode(event.data).samples:
            time = sample.time.timestamp()
            self.values += len(sample.values)
            for name, value in sample.values.items():
                points.setdefault(name, PointView()).take(value, time)
            for name, reason in sample.bad.items():
                points.setdefault(name, PointView()).miss(reason, time)

    def _count_holes(self, event: "Event") -> None:
        epoch, last = self._sequences.get(event.source, (event.epoch, event.sequence - 1))
        if epoch == event.epoch and event.sequence > last + 1:
            self.lost += event.sequence - last - 1
        if (event.epoch, event.sequence) > (epoch, last):
            self._sequences[event.source] = (event.epoch, event.sequence)

    def _take_availability(self, event: "Event", now: float) -> None:
        availability = _availability_decoder.decode(event.data)
        if availability.bench != self.bench:
            return
        self.availability = newest(self.availability, availability)
        self.heard = now


class Fleet:
    """The latest availability of every bench, and when it was last heard."""

    def __init__(self) -> None:
        self.benches: dict[str, tuple[Availability, float]] = {}
        self.malformed = 0

    def take(self, event: "Event", now: float) -> None:
        """Takes an availability event; others are none of its business."""
        if event.type != AVAILABILITY:
            return
        try:
            availability = _availability_decoder.decode(event.data)
        except msgspec.DecodeError:
            self.malformed += 1
            return
        known = self.benches.get(availability.bench)
        self.benches[availability.bench] = (newest(known[0] if known else None, availability), now)

    def skip(self) -> None:
        """Counts a message that is no event."""
        self.malformed += 1

    def rows(self) -> Sequence[tuple[Availability, float]]:
        """Benches by name, each with when it was last heard."""
        return [self.benches[bench] for bench in sorted(self.benches)]


def newest(known: Availability | None, other: Availability) -> Availability:
    """The one of two with the highest (epoch, revision), which is the truth (wire.md section 3)."""
    if known is None or (other.epoch, other.revision) >= (known.epoch, known.revision):
        return other
    return known


def is_lost(availability: Availability, heard: float, now: float) -> bool:
    """Whether a bench was silent for so long that nobody should count on it."""
    silent = now - heard > LOST_AFTER_INTERVALS * availability.interval_s
    return silent and availability.state != "offline"
