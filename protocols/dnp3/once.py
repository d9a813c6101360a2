"""Events, each once: an outstation that did not see a confirmation sends its events again. Pure."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

Event = tuple[int, int, Any, int, int | None]
"""Group, index, value, flags, and UTC milliseconds by the outstation's clock: as it would come again."""

_POINT_AND_TIME: Final = itemgetter(0, 1, 4)
_TIME: Final = itemgetter(4)
_REMEMBERED = 10_000
"""Events that are remembered at most, besides those of one fragment."""


class Once:
    """Knows the events that may come again, of one outstation.

    A point has no two events of one time, as a rule: what comes with the same time was sent before, whatever
    the order, and however it is spread over fragments. Where times tell nothing apart (there are none, or one
    for several events of a point), only the whole run of such events at the head of the first fragment with
    events after a lost connection is taken as sent again: at any other time they may be new.
    """

    def __init__(self) -> None:
        self._stamped: set[Event] = set()
        self._run: list[Event] = []
        self._doubted = False

    def connection_lost(self) -> None:
        """The last confirmation may not have arrived."""
        self._doubted = True

    def without_events(self, present: bool) -> None:
        """A fragment came that has none; `present`: but present values, which come after all events.

        Then, and while the connection lasts, the last confirmation has arrived.
        """
        if present or not self._doubted:
            self._doubted = False
            self._run = []

    def fresh(self, events: Sequence[Event]) -> Sequence[bool]:
        """Says of the events of a fragment, in their order, which are new. There is at least one."""
        told = _told_apart(events)
        stamped = {event for event, apart in zip(events, told, strict=True) if apart}
        run = [event for event, apart in zip(events, told, strict=True) if not apart]
        again = len(self._run) if self._doubted and run[: len(self._run)] == self._run else 0
        known = self._stamped
        new = [True] * len(events)
        if again or not known.isdisjoint(stamped):
            for place, (event, apart) in enumerate(zip(events, told, strict=True)):
                if apart:
                    new[place] = event not in known
                else:
                    new[place] = again <= 0
                    again -= 1
        # What was sent again may come in smaller parts than before: the rest of it is still to come.
        rest = set() if known.isdisjoint(stamped) else known - stamped
        self._stamped = stamped | rest if len(rest) <= _REMEMBERED else stamped
        self._run = run
        self._doubted = False
        return new


def _told_apart(events: Sequence[Event]) -> list[bool]:
    """Which events are the only one of their point and time; time 0 is none."""
    if len(set(map(_POINT_AND_TIME, events))) == len(events):
        return list(map(bool, map(_TIME, events)))
    seen = Counter(map(_POINT_AND_TIME, events))
    return [bool(event[4]) and seen[_POINT_AND_TIME(event)] == 1 for event in events]
