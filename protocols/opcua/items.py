"""Monitored items: what is asked of the server for each point, and what its notifications become."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from protocols.base import Quality, Sample
from protocols.opcua.alarms import event_filter, needs_refresh, taken
from protocols.opcua.codec import Codec, time_ns
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.point import OpcuaPoint
from protocols.opcua.status import Judge, overflowed, words
from protocols.opcua.structures import Dictionary

_log = structlog.get_logger("opcua")

_EVENT_QUEUE: Final = 1000
"""Events that the server holds for a point that does not say how many: they come in bursts."""
_TRIGGERS: Final[Mapping[str, ua.DataChangeTrigger]] = {
    "status": ua.DataChangeTrigger.Status,
    "status-value": ua.DataChangeTrigger.StatusValue,
    "status-value-timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}
_UNFIT: Final = frozenset(
    {
        StatusCodes.BadDeadbandFilterInvalid,
        StatusCodes.BadFilterNotAllowed,
        StatusCodes.BadMonitoredItemFilterInvalid,
        StatusCodes.BadMonitoredItemFilterUnsupported,
        StatusCodes.BadEventFilterInvalid,
    }
)
"""The server does not report this node so: with a deadband or a percent of a range, or events of it."""
_OVERFLOWS: Final = ua.NodeId(ua.Int32(ObjectIds.EventQueueOverflowEventType))
_NAMED: Final = 0xFFFF_0000


def part_of(point: OpcuaPoint) -> ua.NumericRange | None:
    """The index range to ask for; None of the whole value (an empty text would be no index range)."""
    return None if point.index_range is None else ua.NumericRange(point.index_range)


class Item:
    """A point as the server monitors it."""

    __slots__ = ("codec", "handle", "node", "point", "point_name", "queue", "sampling", "status")

    def __init__(self, point: OpcuaPoint, node: ua.NodeId, codec: Codec, handle: int) -> None:
        self.point = point
        self.point_name = point.name  # kept, for each change asks for it
        self.node = node
        self.codec = codec
        self.handle = handle
        self.status = 0
        """The status code with which the server answered to its making."""
        self.sampling = 0.0
        """Seconds between two looks of the server, as it revised them."""
        self.queue = 0
        """Changes that the server holds, as it revised them."""

    def request(self, device: OpcuaDevice) -> ua.MonitoredItemCreateRequest:
        """What asks for it (OPC 10000-4, CreateMonitoredItems)."""
        point = self.point
        attribute = AttributeIds.Value if point.events is None else AttributeIds.EventNotifier
        queue = point.queue or (device.queue if point.events is None else _EVENT_QUEUE)
        return ua.MonitoredItemCreateRequest(
            ua.ReadValueId(self.node, ua.IntegerId(attribute), part_of(point)),
            ua.MonitoringMode.Reporting,
            ua.MonitoringParameters(
                ua.IntegerId(self.handle),
                ua.Duration(asked_sampling(device, point) * 1000),
                filter_of(point),
                ua.Counter(queue),
                point.discard == "oldest",
            ),
        )

    def made(self, result: ua.MonitoredItemCreateResult) -> None:
        """Takes the server's answer."""
        self.status = result.StatusCode.value
        self.sampling = result.RevisedSamplingInterval / 1000
        self.queue = result.RevisedQueueSize


def asked_sampling(device: OpcuaDevice, point: OpcuaPoint) -> float:
    """How often the server is asked to look, in seconds; events come by themselves."""
    if point.events is not None:
        return 0.0
    for asked in (point.sampling_interval, device.sampling_interval):
        if asked is not None:
            return asked
    return device.subscription.publishing_interval


def filter_of(point: OpcuaPoint) -> ua.DataChangeFilter | ua.EventFilter | None:
    """Which changes are reported; None: all of status and value, as a server does by itself."""
    if point.events is not None:
        return event_filter(point)
    kind, least = ua.DeadbandType.None_, 0.0
    if point.deadband is not None:
        kind, least = ua.DeadbandType.Absolute, point.deadband
    elif point.deadband_percent is not None:
        kind, least = ua.DeadbandType.Percent, point.deadband_percent
    if kind is ua.DeadbandType.None_ and point.trigger == "status-value":
        return None
    return ua.DataChangeFilter(_TRIGGERS[point.trigger], ua.UInt32(kind), ua.Double(least))


def refused(items: Iterable[Item], judge: Judge) -> tuple[Mapping[str, Quality], str]:
    """Points that the server does not monitor, why they have no value, and a sentence for people."""
    bad: dict[str, Quality] = {}
    why: dict[str, int] = {}
    for item in items:
        if not _is_bad(item.status):
            continue
        code = item.status & _NAMED
        name = item.point.name
        bad[name] = (
            Quality.BAD_CONFIG if code in _UNFIT else judge.quality(item.status) or Quality.DEVICE_ERROR
        )
        why[name] = code
    return bad, reasons(why)


def reasons(codes: Mapping[str, int]) -> str:
    """Points and what the server has against them, for people."""
    points: dict[int, list[str]] = {}
    for name, code in codes.items():
        points.setdefault(code, []).append(name)
    return "; ".join(f"{names_of(names)}: {words(code)}" for code, names in points.items())


def names_of(names: Sequence[str]) -> str:
    """Some points, by name, the first few of them."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _is_bad(code: int) -> bool:
    return code >= 0x8000_0000


class Readings:
    """Makes samples of what a server reports: values of one notification with one time are one sample."""

    def __init__(self, device: OpcuaDevice) -> None:
        self._mode = device.time
        self._items: dict[int, Item] = {}
        self._slow: set[str] = set()
        self._device = device
        self.overflows = 0
        """Values that stand beside a gap in what the server's queue held, since `taken_overflows`."""

    def watch(self, item: Item) -> None:
        """Takes the notifications of an item from now on."""
        self._items[item.handle] = item

    def forget(self) -> None:
        """Takes no notifications any more."""
        self._items.clear()

    def say_slow(self, items: Iterable[Item]) -> None:
        """Warns, once for each point, of sampling that is slower than was asked for."""
        slow = {
            item.point.name: item.sampling
            for item in items
            if item.sampling > asked_sampling(self._device, item.point) * 1.001
            and item.point.events is None
            and item.point.name not in self._slow
        }
        if slow:
            self._slow.update(slow)
            points = names_of(list(slow))
            _log.warning("slower sampling", device=self._device.name, points=points, s=max(slow.values()))

    def changes(self, notifications: Iterable[ua.MonitoredItemNotification]) -> list[Sample]:
        """Values that came together."""
        items = self._items
        known = [
            (item.point_name, item.codec, one.Value)
            for one in notifications
            if (item := items.get(one.ClientHandle)) is not None
        ]
        return self.samples(known, time.time_ns())

    def samples(self, values: Iterable[tuple[str, Codec, ua.DataValue]], now_ns: int) -> list[Sample]:
        """Samples of values; of one point in the order in which it has them."""
        samples: list[Sample] = []
        newest: dict[int, int] = {}
        last: dict[str, int] = {}
        mode = self._mode
        for name, codec, data in values:
            value = codec.take(data)
            status = data.StatusCode
            if status is not None and status.value and overflowed(status.value):
                self.overflows += 1
            at = time_ns(data, mode, now_ns)
            place = newest.get(at)
            if place is None or last.get(name, -1) >= place:
                place = newest[at] = len(samples)
                samples.append(
                    Sample(at, {name: value}) if type(value) is not Quality else Sample(at, {}, {name: value})
                )
            elif isinstance(value, Quality):
                old = samples[place]
                samples[place] = Sample(at, old.values, {**old.bad, name: value})
            else:
                samples[place].values[name] = value  # type: ignore[index]  # nobody has it yet
            last[name] = place
        return samples

    def events(self, notifications: Iterable[Any], dictionary: Dictionary) -> tuple[list[Sample], bool]:
        """Events that came together, and whether the server wants to be asked for its alarms again."""
        samples, refresh, now_ns = [], False, time.time_ns()
        for one in notifications:
            item = self._items.get(one.ClientHandle)
            fields: Sequence[ua.Variant] = one.EventFields or ()
            if item is None or item.point.events is None:
                continue
            if len(fields) > 1 and getattr(fields[1], "Value", None) == _OVERFLOWS:
                self.overflows += 1
                continue
            refresh = refresh or needs_refresh(fields)
            event = taken(item.point, fields, self._mode, now_ns, dictionary)
            if event is not None:
                samples.append(Sample(event.time_ns, {item.point.name: event.value}))
        return samples, refresh

    def taken_overflows(self) -> int:
        """How many there were since this was asked last."""
        overflows, self.overflows = self.overflows, 0
        return overflows
