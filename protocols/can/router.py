"""From frames to samples: each message's points, when they are reported, and when they are stale."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from protocols.base import Quality, Sample, Value
from protocols.can.config import CanDevice
from protocols.can.frame import Frame
from protocols.can.point import CanPoint
from protocols.can.signals.database import Message
from protocols.can.signals.decoder import compile_points

Take = Callable[[Sample], None]
Decoded = tuple[Mapping[str, Value], Mapping[str, Quality]]

STALE_CYCLES = 3
STALE_LEAST_S = 0.1
"""A shorter silence may be the host's, which was busy, and not the bus's."""
_NOTHING: Decoded = ({}, {})


class Route:
    """One message of the profile: the last frame of it, and what was reported of it."""

    def __init__(self, message: Message, points: Sequence[CanPoint], device: CanDevice) -> None:
        settings = device.settings_of(message.name)
        self.message = message
        self.points = [point.name for point in points]
        self.report = settings.report
        self.timeout = settings.timeout
        self.payload: bytes | None = None
        """Of the last frame on the bus."""
        self.time_ns = 0
        self.seen = 0.0
        """When it came, in monotonic seconds."""
        self.stale = False
        self.held: dict[str, Value | Quality] = {}
        """The last value of each point, or why it has none."""
        self.sent = any(point.writable for point in points)
        """Whether this agent sends it."""
        cycle = settings.cycle or message.cycle
        # What we send ourselves is as old as our last write: only the profile can say that this is too old.
        if self.timeout is None and cycle is not None and not self.sent:
            self.timeout = max(STALE_CYCLES * cycle, STALE_LEAST_S)
        self._decode = compile_points(message, [point for point in points if point.readable])
        self._readable = [point.name for point in points if point.readable]
        self._refresh = device.refresh
        self._full_at = 0.0
        self._decoded: Decoded = _NOTHING
        self._waiting: dict[str, Value | Quality] = {}
        """What the next report at a rate is to say."""
        self._in_turns = any(point.bound[1].selector is not None for point in points)
        """Whether a frame has only some of the points: then each has a time of its own."""
        self._times: dict[str, int] = {}

    def restart(self, now: float) -> None:
        """Forgets what was seen; from now on it is awaited."""
        self.payload, self.seen, self.stale = None, now, False
        self.held.clear()
        self._times.clear()
        self._waiting = {}

    def time_of(self, point: str) -> int:
        """When the frame came that a point's value is from."""
        return self._times.get(point, self.time_ns)

    def take(self, frame: Frame, now: float, report: Take) -> None:
        """Takes a frame of this message; `now` is in monotonic seconds."""
        same = frame.data == self.payload and not self.stale
        self.payload, self.time_ns, self.seen, self.stale = frame.data, frame.time_ns, now, False
        if not self._readable:
            return
        if not same:
            self._decoded = self._decode(frame.data)
        values, bad = self._decoded
        if self._in_turns:
            self._times.update(dict.fromkeys(values, frame.time_ns))
            if not values and not bad:
                return
        if same and self.report == "change" and now < self._full_at:
            return
        if self.report is None or self.report == "every":
            if not same:
                self._hold(values, bad)
            report(Sample(frame.time_ns, values, bad))
        elif self.report == "change":
            self._report_news(values, bad, now, report)
        else:
            self._hold(values, bad)
            self._waiting.update(values)
            self._waiting.update(bad)

    def _hold(self, values: Mapping[str, Value], bad: Mapping[str, Quality]) -> None:
        self.held.update(values)
        self.held.update(bad)

    def _report_news(
        self, values: Mapping[str, Value], bad: Mapping[str, Quality], now: float, report: Take
    ) -> None:
        held = self.held
        if now >= self._full_at:
            self._full_at = now + self._refresh
        else:
            # A label may read like a quality, which equals its text.
            values = {
                name: value
                for name, value in values.items()
                if (last := held.get(name)) != value or isinstance(last, Quality)
            }
            bad = {name: why for name, why in bad.items() if held.get(name) is not why}
        self._hold(values, bad)
        if values or bad:
            report(Sample(self.time_ns, values, bad))

    def report_newest(self, report: Take) -> None:
        """Reports, of a message that is reported at a rate, what came since the last time."""
        if self._waiting:
            report(_sample(self.time_ns, self._waiting))
            self._waiting = {}

    @property
    def due(self) -> float:
        """When it becomes stale, in monotonic seconds; never: infinity."""
        return math.inf if self.timeout is None else self.seen + self.timeout

    def expire(self, now: float, report: Take) -> bool:
        """Makes the points stale if the message was not seen for its timeout; whether it is stale."""
        if now < self.due:
            return False
        if not self.stale:
            self.report_newest(report)
            self.stale, self._full_at = True, 0.0
            stale = dict.fromkeys(self._readable, Quality.STALE)
            self._hold({}, stale)
            if stale:
                report(Sample(time.time_ns(), {}, stale))
        return True


def _sample(time_ns: int, held: Mapping[str, Value | Quality]) -> Sample:
    values = {name: value for name, value in held.items() if not isinstance(value, Quality)}
    bad = {name: why for name, why in held.items() if isinstance(why, Quality)}
    return Sample(time_ns, values, bad)


class Router:
    """The messages of a profile, by identifier."""

    def __init__(self, device: CanDevice) -> None:
        by_message: dict[str, list[CanPoint]] = {}
        for point in device.points.values():
            if point.bus is None:
                by_message.setdefault(point.bound[0].name, []).append(point)
        routes = [
            Route(device.contents.messages[name], points, device) for name, points in by_message.items()
        ]
        self.routes: Mapping[int, Route] = {route.message.can_id: route for route in routes}
        self.of_point: Mapping[str, Route] = {name: route for route in routes for name in route.points}

    def restart(self, now: float) -> None:
        """Forgets what was seen; from now on messages are awaited."""
        for route in self.routes.values():
            route.restart(now)

    def take(self, batch: Iterable[Frame], now: float, report: Take) -> None:
        """Takes frames in the order of the bus."""
        routes = self.routes
        for frame in batch:
            route = routes.get(frame.can_id)
            if route is not None:
                route.take(frame, now, report)

    def values(self, points: Iterable[str]) -> Sample:
        """What the bus last said of these points; its time is that of the oldest frame that it is from."""
        held: dict[str, Value | Quality] = {}
        times = []
        for name in points:
            route = self.of_point[name]
            held[name] = route.held.get(name, Quality.TIMEOUT)
            if not isinstance(held[name], Quality):
                times.append(route.time_of(name))
        return _sample(min(times, default=time.time_ns()), held)
