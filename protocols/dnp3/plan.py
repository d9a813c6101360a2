"""What is asked of an outstation, and how often. Pure."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import msgspec

from protocols.base import PlannedRequest
from protocols.dnp3.config import Connection, Dnp3Device, Serial
from protocols.dnp3.fragment import Reply
from protocols.dnp3.objects import INDICES, STATIC_GROUP
from protocols.dnp3.point import Dnp3Point

_CLASS_HEADER = {1: b"\x3c\x02\x06", 2: b"\x3c\x03\x06", 3: b"\x3c\x04\x06", 0: b"\x3c\x01\x06"}
_ROOM = 2000
"""Octets of headers in one request; outstations take fragments of 2,048 octets as a rule."""


class Range(msgspec.Struct, frozen=True):
    """Points of one kind that one object header reads."""

    group: int
    variation: int
    start: int
    stop: int
    points: tuple[str, ...]

    def header(self) -> bytes:
        """Object header with a range of 8-bit or 16-bit indices (qualifiers 00 and 01)."""
        if self.stop < 256:
            return bytes((self.group, self.variation, 0x00, self.start, self.stop))
        span = self.start.to_bytes(2, "little") + self.stop.to_bytes(2, "little")
        return bytes((self.group, self.variation, 0x01)) + span


class Poll(msgspec.Struct, frozen=True):
    """One read request that is sent once each `period` seconds."""

    what: str
    period: float
    body: bytes
    points: tuple[str, ...]
    """Points whose present values it reads; events may be of any."""
    integrity: bool = False


def class_headers(classes: Iterable[int]) -> bytes:
    """Object headers that read classes, in this order (group 60); 0 is what is not an event."""
    return b"".join(_CLASS_HEADER[one] for one in classes)


def ranges_of(points: Iterable[Dnp3Point]) -> list[Range]:
    """The object headers that read these points, with the variations that the profile asks for.

    A header has neighbours only: outstations may refuse to read indices that they do not have. The headers
    fit in one request, though: of points that are very many and far apart, others between are read over.
    """
    wanted: dict[tuple[int, int], list[Dnp3Point]] = {}
    for point in sorted(points, key=lambda one: one.index):
        wanted.setdefault((STATIC_GROUP[point.type], point.variation or 0), []).append(point)
    gap = 1
    while True:
        ranges = [
            _range(group, variation, members)
            for (group, variation), all_of in sorted(wanted.items())
            for members in _runs(all_of, gap)
        ]
        if gap >= INDICES or sum(len(one.header()) for one in ranges) <= _ROOM:
            return ranges
        gap *= 2


def _runs(points: Sequence[Dnp3Point], gap: int) -> Iterator[list[Dnp3Point]]:
    run: list[Dnp3Point] = []
    for point in points:
        if run and point.index > run[-1].index + gap:
            yield run
            run = []
        run.append(point)
    yield run


def _range(group: int, variation: int, members: Sequence[Dnp3Point]) -> Range:
    names = tuple(one.name for one in members)
    return Range(group, variation, members[0].index, members[-1].index, names)


def polls_of(device: Dnp3Device) -> list[Poll]:
    """The integrity poll, the classes (those of one rate together), and points with a rate of their own."""
    readable = [point for point in device.points.values() if point.readable]
    polls = []
    if device.polls.integrity != "never":
        polls.append(integrity_poll(device, device.polls.integrity))
    rates: dict[float, list[int]] = {}
    for one, period in enumerate((device.polls.class_1, device.polls.class_2, device.polls.class_3), 1):
        if period != "never":
            rates.setdefault(device.poll if period is None else period, []).append(one)
    for period, classes in sorted(rates.items()):
        what = f"read events of class {', '.join(map(str, classes))} (group 60)"
        polls.append(Poll(what, period, class_headers(classes), ()))
    own: dict[float, list[Dnp3Point]] = {}
    for point in readable:
        if point.poll is not None:
            own.setdefault(point.poll, []).append(point)
    for period, points in sorted(own.items()):
        ranges = ranges_of(points)
        what = "read " + ", ".join(map(_named, ranges))
        body = b"".join(one.header() for one in ranges)
        polls.append(Poll(what, period, body, tuple(name for one in ranges for name in one.points)))
    return polls


def integrity_poll(device: Dnp3Device, period: float) -> Poll:
    """Events first, then present values, so that the last word on a point is its newest.

    Points with a variation of their own are read in it as well: class 0 comes as the outstation likes.
    """
    readable = [point for point in device.points.values() if point.readable]
    special = [point for point in readable if point.variation is not None]
    body = class_headers((1, 2, 3, 0)) + b"".join(one.header() for one in ranges_of(special))
    names = tuple(point.name for point in readable)
    return Poll("integrity poll: classes 1, 2, 3 and 0 (group 60)", period, body, names, integrity=True)


def _named(one: Range) -> str:
    variation = f" variation {one.variation}" if one.variation else ""
    span = f"{one.start}..{one.stop}" if one.stop > one.start else f"{one.start}"
    return f"group {one.group}{variation} {span}"


def describe(device: Dnp3Device) -> list[PlannedRequest]:
    """The polls as people read them."""
    return [
        PlannedRequest(poll.what, poll.points, len(poll.body) + 2, "octets", poll.period)
        for poll in polls_of(device)
    ]


Wanted = Mapping[int, Mapping[int, Sequence[str]]]
"""Names of points by the group of their present values and by index."""


def wanted_of(device: Dnp3Device, poll: Poll) -> Wanted:
    """What a poll is to bring."""
    wanted: dict[int, dict[int, list[str]]] = {}
    for name in poll.points:
        point = device.points[name]
        wanted.setdefault(STATIC_GROUP[point.type], {}).setdefault(point.index, []).append(name)
    return wanted


def missing_in(reply: Reply, wanted: Wanted) -> tuple[str, ...]:
    """Points whose present values did not come."""
    came: dict[int, set[int]] = {group: set() for group in wanted}
    for block in reply.blocks:
        if block.group in came:
            came[block.group].update(block.indices)
    return tuple(
        name
        for group, places in wanted.items()
        for index in sorted(places.keys() - came[group])
        for name in places[index]
    )


def name_of(connection: Connection) -> str:
    """The channel as people call it: `rtu-1.bench.example:20000` or `/dev/ttyUSB0`."""
    return connection.port if isinstance(connection, Serial) else f"{connection.host}:{connection.port}"


def channel_key(connection: Connection) -> Hashable:
    """What tells one channel from another."""
    return ("dnp3", name_of(connection))


def conflicts(devices: Mapping[str, Dnp3Device]) -> Mapping[str, str]:
    """Devices that share a channel and differ on it, or are the same outstation."""
    first: dict[Hashable, str] = {}
    stations: dict[tuple[Hashable, int], str] = {}
    found = {}
    for name, device in devices.items():
        key = channel_key(device.connection)
        other = first.setdefault(key, name)
        if devices[other].connection != device.connection:
            channel = name_of(device.connection)
            found[name] = f"device {other!r} uses {channel} with other settings; on one channel all are equal"
            continue
        same = stations.setdefault((key, device.outstation), name)
        if same != name:
            channel = name_of(device.connection)
            found[name] = f"device {same!r} is outstation {device.outstation} of {channel} already"
    return found
