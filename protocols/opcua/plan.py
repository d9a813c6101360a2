"""What is asked of a server, and how often. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from protocols.base import PlannedRequest
from protocols.opcua.config import OpcuaDevice

AT_ONCE = 500
"""Most operations of one request, whatever the server takes: coding a request holds up the loop."""

_One = TypeVar("_One")


def pieces(all_of: Sequence[_One], limit: int) -> Iterator[Sequence[_One]]:
    """Cuts operations into requests of at most `limit` (0: no limit of the server's)."""
    size = min(limit or AT_ONCE, AT_ONCE)
    for start in range(0, len(all_of), size):
        yield all_of[start : start + size]


def polls_of(device: OpcuaDevice) -> Mapping[float, Sequence[str]]:
    """Which points are read once each so many seconds."""
    polls: dict[float, list[str]] = {}
    for name, point in device.points.items():
        if point.readable:
            polls.setdefault(device.poll if point.poll is None else point.poll, []).append(name)
    return polls


def monitored(device: OpcuaDevice) -> Sequence[str]:
    """The points that are reported."""
    return [name for name, point in device.points.items() if point.readable]


def describe(device: OpcuaDevice) -> list[PlannedRequest]:
    """The subscriptions, or the reads, as people see them; a server's own limits may make more of them."""
    if device.acquisition == "poll":
        return [
            PlannedRequest("read values", tuple(piece), len(piece), "nodes", period)
            for period, names in sorted(polls_of(device).items())
            for piece in pieces(names, 0)
        ]
    names, most = monitored(device), device.subscription.max_items
    return [
        PlannedRequest(
            "subscription: monitored items",
            tuple(names[start : start + most]),
            len(names[start : start + most]),
            "items",
            device.subscription.publishing_interval,
        )
        for start in range(0, len(names), most)
    ]
