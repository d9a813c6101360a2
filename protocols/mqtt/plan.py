"""What is subscribed to, and which points a topic feeds. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from protocols.base import PlannedRequest
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Subscription
from protocols.mqtt.point import MqttPoint


def captured(topic_filter: str, topic: str) -> str | None:
    """What the + and # of a filter stand for in a topic, with / between; None if it does not match.

    Wildcards do not match a first level that begins with $ (MQTT 5.0, 4.7.2).
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return None
    found: list[str] = []
    for place, one in enumerate(wanted):
        if one == "#":
            return "/".join(found + levels[place:])
        if place >= len(levels) or one not in ("+", levels[place]):
            return None
        if one == "+":
            found.append(levels[place])
    return "/".join(found) if len(wanted) == len(levels) else None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription with this filter brings messages of this topic."""
    return captured(unshared(topic_filter), topic) is not None


def unshared(topic_filter: str) -> str:
    """The filter of a shared subscription, or the filter as it is (MQTT 5.0, 4.8.2)."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that `narrow` matches is matched by `wide` too."""
    one, other = wide.split("/"), narrow.split("/")
    if other[0].startswith("$") and one[0] in ("+", "#"):
        return False
    for place, level in enumerate(one):
        if level == "#":
            return True
        if place >= len(other) or other[place] == "#" or level not in ("+", other[place]):
            return False
    return len(one) == len(other)


def feeds(point: MqttPoint, topic: str) -> bool:
    """Whether messages of a topic hold the point's value."""
    if point.topic is None or not point.readable:
        return False
    found = captured(point.topic, topic)
    return found is not None and point.wildcard in (None, found)


def subscriptions_of(device: MqttDevice) -> list[Subscription]:
    """The fewest subscriptions that bring everything: one that another covers would bring messages twice.

    Each has the highest QoS of what it brings.
    """
    wanted: dict[str, int] = {}
    for point in device.points.values():
        if point.topic is not None and point.readable:
            qos = device.qos if point.qos is None else point.qos
            wanted[point.topic] = max(wanted.get(point.topic, 0), qos)
    if device.presence is not None:
        wanted[device.presence.topic] = max(wanted.get(device.presence.topic, 0), device.qos)
    kept = _uncovered(wanted)
    share = f"$share/{device.share}/" if device.share else ""
    return [
        Subscription(share + one, max(qos for other, qos in wanted.items() if covers(one, other)))
        for one in kept
    ]


def _uncovered(filters: Iterable[str]) -> list[str]:
    ordered = list(filters)
    wild = [one for one in ordered if "+" in one or "#" in one]
    return [one for one in ordered if not any(covers(other, one) for other in wild if other != one)]


def overlapping(filters: Sequence[str]) -> bool:
    """Whether two of these filters, of which none covers another, may match one topic."""
    wild = [one for one in filters if "+" in one or "#" in one]
    return any(_meet(one.split("/"), other.split("/")) for one in wild for other in filters if one != other)


def _meet(one: Sequence[str], other: Sequence[str]) -> bool:
    for place in range(max(len(one), len(other))):
        if "#" in one[place : place + 1] or "#" in other[place : place + 1]:
            return True
        if place >= len(one) or place >= len(other):
            return False
        levels = {one[place], other[place]}
        if "+" not in levels and len(levels) == 2:
            return False
    return True


def points_of(device: MqttDevice, topic_filter: str) -> tuple[str, ...]:
    """The points that a subscription feeds."""
    wide = unshared(topic_filter)
    return tuple(
        name
        for name, point in device.points.items()
        if point.readable and point.topic is not None and covers(wide, point.topic)
    )


def describe(device: MqttDevice) -> list[PlannedRequest]:
    """The subscriptions as people read them."""
    if device.payload == "topics":
        return [
            PlannedRequest(
                f"SUBSCRIBE {one.filter} QoS {one.qos}",
                points_of(device, one.filter),
                len(one.filter.encode()),
                "octets",
                None,
            )
            for one in subscriptions_of(device)
        ]
    names = tuple(name for name, point in device.points.items() if point.readable)
    what = f"SUBSCRIBE to the {device.payload} topics of {_whose(device)}"
    return [PlannedRequest(what, names, len(names), "values", None)] if names else []


def _whose(device: MqttDevice) -> str:
    if device.sparkplug is not None:
        parts = device.sparkplug.group, device.sparkplug.edge_node, device.sparkplug.device
        return "/".join(part for part in parts if part)
    assert device.kubeedge is not None
    return device.kubeedge.device


def conflicts(devices: Mapping[str, MqttDevice]) -> Mapping[str, str]:
    """Devices with one client_id at one broker: it would put out one as soon as the other comes."""
    found: dict[str, str] = {}
    first: dict[tuple[str, int, str], str] = {}
    for name, device in devices.items():
        where = device.connection
        if not device.enabled or where.client_id is None:
            continue
        other = first.setdefault((where.host, where.port, where.client_id), name)
        if other != name:
            text = f"{other} has client_id {where.client_id!r} at {where.host}:{where.port} too"
            found[name] = f"{text}: the broker would put out one of them for the other, again and again"
    return found
