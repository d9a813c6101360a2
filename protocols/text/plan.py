"""Which queries serve these points, and who shares a line. Pure."""

from collections.abc import Hashable, Iterable, Mapping, Sequence

import msgspec

from protocols.base import PlannedRequest
from protocols.text.config import Connection, Serial, TextDevice
from protocols.text.point import TextPoint

_LINE_FIELDS = ("terminator", "prompt", "checksum", "max_line", "encoding")
"""Of devices on one line these are equal: the line is cut by them before it is known whose a line is."""


class Query(msgspec.Struct, frozen=True):
    """A query and the points that are in its answer; `timeout` in seconds."""

    command: str
    points: tuple[TextPoint, ...]
    timeout: float

    @property
    def block_limit(self) -> int | None:
        """The most bytes of the block that the answer is; None: it is a line."""
        blocks = [point.block.most for point in self.points if point.block is not None]
        return max(blocks) if blocks else None


class Poll(msgspec.Struct, frozen=True):
    """Queries that are asked once each `period` seconds."""

    period: float
    queries: tuple[Query, ...]


def queries_of(device: TextDevice, points: Iterable[TextPoint]) -> list[Query]:
    """The queries that read these points, each once; points that only come unasked are in none."""
    by_command: dict[str, list[TextPoint]] = {}
    for point in points:
        if point.query is not None:
            by_command.setdefault(point.query, []).append(point)
    return [
        Query(command, tuple(members), max(one.timeout or device.timeout for one in members))
        for command, members in by_command.items()
    ]


def polls_of(device: TextDevice) -> list[Poll]:
    """What is polled how often, the fastest first."""
    rates: dict[float, list[TextPoint]] = {}
    for point in device.points.values():
        if point.readable and point.query is not None:
            rates.setdefault(point.poll or device.poll, []).append(point)
    return [Poll(period, tuple(queries_of(device, points))) for period, points in sorted(rates.items())]


def describe(device: TextDevice) -> Sequence[PlannedRequest]:
    """The poll plan as people read it, and the points that come unasked."""
    planned = [
        PlannedRequest(
            what=f"ask {device.prefix}{query.command}",
            points=tuple(point.name for point in query.points),
            size=1,
            size_unit="answers" if query.block_limit is None else "blocks",
            period=poll.period,
        )
        for poll in polls_of(device)
        for query in poll.queries
    ]
    reports = tuple(name for name, point in device.points.items() if point.report is not None)
    if reports:
        planned.append(PlannedRequest("lines that come unasked", reports, 0, "lines", device.poll))
    return planned


def name_of(connection: Connection) -> str:
    """The line as people call it: `psu-1.bench.example:5025` or `/dev/ttyUSB0`."""
    return connection.port if isinstance(connection, Serial) else f"{connection.host}:{connection.port}"


def key_of(connection: Connection) -> Hashable:
    """What devices on one line have in common."""
    return ("text", name_of(connection))


def disagreement(one: TextDevice, other: TextDevice) -> str | None:
    """Why two devices cannot be on one line; None if they can."""
    if one.connection != other.connection:
        return "with other settings; on one line they are equal"
    if not (one.shared and other.shared):
        return "as well; if both are on it, say shared: true and give each its prefix"
    if one.prefix == other.prefix:
        return f"with the same prefix {one.prefix!r}"
    for field in _LINE_FIELDS:
        if getattr(one, field) != getattr(other, field):
            return f"with another {field}; on one line it is the same"
    return None


def conflicts(devices: Mapping[str, TextDevice]) -> Mapping[str, str]:
    """Devices on a line that an earlier one uses in another way, or with the same prefix. Pure."""
    lines: dict[Hashable, list[str]] = {}
    found: dict[str, str] = {}
    for name, device in devices.items():
        earlier = lines.setdefault(key_of(device.connection), [])
        for other in earlier:
            if (why := disagreement(devices[other], device)) is not None:
                found[name] = f"device {other!r} uses {name_of(device.connection)} {why}"
                break
        earlier.append(name)
    return found
