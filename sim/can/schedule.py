"""What a simulated node sends when. Pure, but for the clock it is given."""

import heapq
import itertools
from collections.abc import Sequence
from typing import Protocol

from protocols.can.frame import BRS, FDF, Frame
from sim.can.content import Content


class Job(Protocol):
    """Frames that come again and again."""

    can_id: int
    period: float
    """Seconds."""

    def frames(self, t: float) -> Sequence[Frame]:
        """What is to be sent at `t`, in seconds since the simulation began."""


class Cyclic:
    """A message with a cycle: a frame each cycle."""

    def __init__(self, content: Content, period: float, flags: int) -> None:
        self.period = period
        self._content = content
        self.can_id, self._flags = content.message.can_id, flags

    def frames(self, t: float) -> Sequence[Frame]:
        """The one frame of this cycle."""
        return (Frame(0, self.can_id, self._content.next(t), self._flags),)


class OnChange:
    """A message without a cycle: looked at each `period`, and sent when it changed.

    Unchanged it is repeated after one period, two, four, and so on up to each `refresh`: who comes late does
    not wait long for the first, and a quiet message costs little.
    """

    def __init__(self, content: Content, period: float, refresh: float, flags: int) -> None:
        self.period = period
        self._content = content
        self.can_id, self._flags = content.message.can_id, flags
        self._refresh = refresh
        self._gap = period
        self._repeat_at = 0.0

    def frames(self, t: float) -> Sequence[Frame]:
        """A frame for each selector value, or where there are none for the message, if it is its time."""
        repeats = t >= self._repeat_at
        payloads = self._content.news(t, everything=repeats)
        if payloads:
            self._gap = min(2 * self._gap, self._refresh) if repeats else self.period
            self._repeat_at = t + self._gap
        return [Frame(0, self.can_id, payload, self._flags) for payload in payloads]


def flags_of(length: int, fd: bool, switches: bool) -> int:
    """The flags of a frame: FD where the message says so or the payload needs it; `switches` the bit rate."""
    return (FDF | (BRS if switches else 0)) if fd or length > 8 else 0


class Schedule:
    """All jobs by when they are due, on an absolute schedule, and frames that are sent once."""

    def __init__(self, begin: float, jobs: Sequence[Job], now: float) -> None:
        """`begin` is when the simulation began; times are those of one clock, in seconds."""
        self._begin = begin
        self._order = itertools.count()  # what is due at the same time goes in the order of the database
        self._heap: list[tuple[float, int, Job | Frame]] = [(now, next(self._order), job) for job in jobs]
        self.muted: set[int] = set()
        """Identifiers whose jobs send nothing any more."""

    @property
    def due(self) -> float:
        """When something is due next."""
        return self._heap[0][0] if self._heap else float("inf")

    def once(self, due: float, frame: Frame) -> None:
        """Has a frame sent at a time."""
        heapq.heappush(self._heap, (due, next(self._order), frame))

    def take(self, now: float) -> list[Frame]:
        """What is to be sent now. Cycles that time ran out for are skipped, not made up for."""
        heap, frames = self._heap, []
        while heap and heap[0][0] <= now:
            due, order, what = heap[0]
            if isinstance(what, Frame):
                heapq.heappop(heap)
                frames.append(what)
                continue
            if what.can_id not in self.muted:
                frames.extend(what.frames(now - self._begin))
            period = what.period
            heapq.heapreplace(heap, (due + period * ((now - due) // period + 1), order, what))
        return frames
