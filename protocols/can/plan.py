"""What a device is to receive and to send, and which devices cannot be together. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from protocols.base import PlannedRequest
from protocols.can.config import CanDevice
from protocols.can.frame import format_id
from protocols.can.point import CanPoint
from protocols.can.signals.database import Message

_SHARED: Final = ("socketcan", "socketcand", "udp_multicast", "virtual")
"""Interfaces that may be opened several times at once."""


def describe(device: CanDevice) -> list[PlannedRequest]:
    """The messages that points are of, with the cycles they come in, and what is polled of the bus itself."""
    return [*_messages(device), *_figures(device)]


def _messages(device: CanDevice) -> Iterator[PlannedRequest]:
    by_message: dict[str, list[CanPoint]] = {}
    for point in device.points.values():
        if point.is_bound:
            by_message.setdefault(point.bound[0].name, []).append(point)
    for points in by_message.values():
        message = points[0].bound[0]
        settings = device.settings_of(message.name)
        cycle = settings.cycle or message.cycle
        if not any(point.writable for point in points):
            # Where nobody knows a cycle, at least all values are reported anew as often as this.
            known = cycle or settings.timeout or device.refresh
            yield _planned("receive", message, points, known, "" if cycle else " (no cycle known)")
        elif settings.send == "cyclic" and cycle is not None:
            yield _planned("send", message, points, cycle)


def _planned(
    verb: str, message: Message, points: Sequence[CanPoint], period: float, note: str = ""
) -> PlannedRequest:
    return PlannedRequest(
        what=f"{verb} 0x{format_id(message.can_id)} {message.name}{note}",
        points=tuple(point.name for point in points),
        size=message.length,
        size_unit="bytes",
        period=period,
    )


def _figures(device: CanDevice) -> Iterator[PlannedRequest]:
    names = tuple(point.name for point in device.points.values() if point.bus is not None)
    if names:
        yield PlannedRequest("figures of the bus", names, len(names), "figures", device.poll)


def conflicts(devices: Mapping[str, CanDevice]) -> Mapping[str, str]:
    """Devices on an interface that another one has opened, where it can be open but once."""
    found: dict[str, str] = {}
    first: dict[tuple[str, str], str] = {}
    for name, device in devices.items():
        if device.enabled and device.connection.interface not in _SHARED:
            other = first.setdefault(device.connection.key, name)
            if other != name:
                found[name] = f"{device.connection} is the bus of device {other} already: it opens but once"
    return found
