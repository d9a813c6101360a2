"""Event buffers of a simulated outstation: one of a fixed size for each class. Pure."""

import dataclasses
import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from sim.dnp3.points import SimulatedPoint

CLASSES: Final = (1, 2, 3)


@dataclasses.dataclass(slots=True, eq=False)
class Event:
    """A change as it was when it happened."""

    order: int
    event_class: int
    point: SimulatedPoint
    value: Any
    flags: int
    time_ms: int
    """By the outstation's clock."""
    taken: bool = False
    """It is in a response whose confirmation is awaited."""


class EventBuffer:
    """Keeps events until a master has confirmed them, or newer ones need the room."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._classes: dict[int, dict[int, Event]] = {one: {} for one in CLASSES}
        self._order = itertools.count()
        self.overflown = False
        """Events were dropped, and the master does not know it yet or there is still no room."""
        self.dropped = 0
        """Events that were dropped so far."""

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def add(self, point: SimulatedPoint, time_ms: int) -> None:
        """Takes the point as it is now; a full buffer drops its oldest event."""
        buffer = self._classes[point.event_class]
        if len(buffer) >= self._capacity:
            del buffer[next(iter(buffer))]
            self.overflown = True
            self.dropped += 1
        order = next(self._order)
        buffer[order] = Event(order, point.event_class, point, point.value, point.flags, time_ms)

    def waiting(self, classes: Collection[int] = CLASSES) -> Iterator[Event]:
        """Events of these classes that are in no response, oldest first."""
        buffers = [self._classes[one].values() for one in classes]
        everything = heapq.merge(*buffers, key=lambda event: event.order)
        return (event for event in everything if not event.taken)

    def has(self, event_class: int) -> bool:
        """Whether an event of the class is in no response yet."""
        return any(not event.taken for event in reversed(self._classes[event_class].values()))

    def confirmed(self, events: Iterable[Event], told: bool) -> None:
        """Forgets events that the master has. `told`: the response said that events were dropped."""
        for event in events:
            self._classes[event.event_class].pop(event.order, None)
        if told and all(len(buffer) < self._capacity for buffer in self._classes.values()):
            self.overflown = False

    def release(self, events: Iterable[Event]) -> None:
        """Has events reported again: their response was not confirmed."""
        for event in events:
            event.taken = False

    def clear(self) -> None:
        """Forgets everything."""
        for buffer in self._classes.values():
            buffer.clear()
        self.overflown = False
