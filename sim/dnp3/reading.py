"""What a READ is answered with: which events and present values its object headers name. Pure."""

import itertools
from collections.abc import Sequence
from typing import Final

from py1815.application import ObjectHeader, QualifierCode

from protocols.dnp3.objects import EVENT_GROUP, LAYOUTS, STATIC_GROUP, Iin, PointType
from sim.dnp3.encoder import Fragments, Part, absolute_time, count_of_one, event_header
from sim.dnp3.events import Event, EventBuffer
from sim.dnp3.points import Database, SimulatedPoint

_STATIC: Final[dict[int, PointType]] = {group: kind for kind, group in STATIC_GROUP.items()}
_EVENT: Final[dict[int, PointType]] = {group: kind for kind, group in EVENT_GROUP.items()}
_TIME: Final = (50, 1)
_ALL: Final = QualifierCode.ALL_OBJECTS
_COUNTS: Final = (QualifierCode.UINT8_COUNT, QualifierCode.UINT16_COUNT)


class Unreadable(Exception):
    """An object header that names nothing here; `iin` says why."""

    def __init__(self, iin: Iin) -> None:
        super().__init__(str(iin))
        self.iin = iin


def existing(database: Database, header: ObjectHeader) -> tuple[Sequence[SimulatedPoint], bool]:
    """The points that an object header of a static group names, in its order, and whether some are missing.

    Raises:
        Unreadable: the group is none of a kind of points, or has no such variation.
    """
    kind = _STATIC.get(header.group)
    if kind is None or not _known(header, kind):
        raise Unreadable(Iin.OBJECT_UNKNOWN)
    members = database.of(kind)
    indices = _indices(header)
    if indices is None:
        return list(members.values()), False
    found = [members[index] for index in indices if index in members]
    return found, len(found) < len(indices)


def _indices(header: ObjectHeader) -> Sequence[int] | None:
    """The indices that a header names; None: all."""
    if header.qualifier == _ALL:
        return None
    if header.start is not None and header.stop is not None:
        return range(header.start, header.stop + 1)
    if header.indices is not None:
        return list(dict.fromkeys(header.indices))
    return range(header.count or 0)


def _known(header: ObjectHeader, kind: PointType) -> bool:
    return header.variation == 0 or kind == "octet_string" or (header.group, header.variation) in LAYOUTS


class Reading:
    """Gathers the answer to one READ. No point is in it twice in one variation, so that it is bounded."""

    def __init__(self, database: Database, buffer: EventBuffer, limit: int) -> None:
        self._database = database
        self._buffer = buffer
        self._fragments = Fragments(limit)
        self._served: dict[tuple[int, int], set[int]] = {}
        """Indices by group and variation."""
        self._events: list[tuple[Event, int]] = []
        self.iin = Iin(0)
        """What was wrong with some of the headers."""

    def answer(self, headers: Sequence[ObjectHeader], clock_ms: int, synchronised: bool) -> list[Part]:
        """The fragments: events in the order in which they happened, then present values.

        The events in them are taken: they are in no other response until they are released.
        """
        others = [header for header in headers if not self._select_events(header)]
        self._add_events(synchronised)
        for header in others:
            try:
                self._add_static(header, clock_ms)
            except Unreadable as why:
                self.iin |= why.iin
        return self._fragments.parts()

    def _select_events(self, header: ObjectHeader) -> bool:
        """Takes the events that a header names; False: it does not ask for events."""
        event_class = header.event_class
        kind = _EVENT.get(header.group)
        if not event_class and kind is None:
            return False
        if kind is not None and not _known(header, kind):
            self.iin |= Iin.OBJECT_UNKNOWN
        elif header.qualifier != _ALL and header.qualifier not in _COUNTS:
            self.iin |= Iin.PARAMETER_ERROR
        else:
            waiting = self._buffer.waiting((event_class,)) if event_class else self._buffer.waiting()
            wanted = (event for event in waiting if kind is None or event.point.kind == kind)
            for event in list(itertools.islice(wanted, header.count)):
                event.taken = True
                self._events.append((event, header.variation if kind else 0))
        return True

    def _add_events(self, synchronised: bool) -> None:
        self._events.sort(key=lambda one: one[0].order)
        for (group, variation), members in itertools.groupby(
            self._events, key=lambda one: event_header(*one)
        ):
            self._fragments.events(group, variation, [event for event, _ in members], synchronised)

    def _add_static(self, header: ObjectHeader, clock_ms: int) -> None:
        if header.event_class == 0:
            if header.qualifier != _ALL:
                raise Unreadable(Iin.PARAMETER_ERROR)
            for kind in STATIC_GROUP:
                self._add_points(kind, 0, list(self._database.of(kind).values()))
        elif (header.group, header.variation or 1) == _TIME:
            if _TIME not in self._served:
                self._served[_TIME] = set()
                self._fragments.objects(count_of_one(*_TIME, absolute_time(clock_ms)))
        else:
            points, missing = existing(self._database, header)
            self._add_points(_STATIC[header.group], header.variation, points)
            if missing:
                raise Unreadable(Iin.PARAMETER_ERROR)

    def _add_points(self, kind: PointType, variation: int, points: Sequence[SimulatedPoint]) -> None:
        chosen = 0 if kind == "octet_string" else variation
        served = self._served.setdefault((STATIC_GROUP[kind], chosen), set())
        fresh = [point for point in points if point.index not in served]
        served.update(point.index for point in fresh)
        self._fragments.static(kind, chosen, fresh)


def unsolicited(buffer: EventBuffer, classes: Sequence[int], limit: int, synchronised: bool) -> Part:
    """The oldest events of these classes that one fragment holds; they are taken."""
    fragments = Fragments(limit)
    # No fragment holds more events than it has octets, so no more are looked at.
    waiting = list(itertools.islice(buffer.waiting(classes), limit))
    for (group, variation), members in itertools.groupby(waiting, key=lambda event: event_header(event, 0)):
        fragments.events(group, variation, list(members), synchronised)
    part = fragments.parts()[0]
    for event in part.events:
        event.taken = True
    return part
