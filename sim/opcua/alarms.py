"""Alarms of a simulated server: one for each value with a range, active while the value is outside of it.

They are exclusive level alarms (OPC 10000-9) that want to be acknowledged and confirmed.
"""

import asyncio
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.common.event_objects import ExclusiveLevelAlarm, RefreshEndEvent, RefreshStartEvent
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from protocols.base import Quality
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.point import OpcuaPoint
from sim.opcua.services import standard, status
from sim.opcua.space import Space
from sim.opcua.values import now
from sim.opcua.variable import Variable

_STEP_S: Final = 0.1
_SEVERITY: Final = 700
"""Of an alarm that is active; those that are over have the half of it."""
_MOST: Final = 500
"""Alarms of a server: the first of its points that have ranges."""


class _Alarm:
    """The condition of one point."""

    def __init__(self, node: ua.NodeId, variable: Variable, point: OpcuaPoint) -> None:
        self.variable = variable
        self.point = point
        self.event: Any = ExclusiveLevelAlarm(variable.node_id)  # type: ignore[no-untyped-call]  # as it is
        self.active, self.acked, self.confirmed = False, True, True
        self.comment = ua.LocalizedText("")
        fixed = {
            "NodeId": (node, ua.VariantType.NodeId),
            "SourceName": (point.name, ua.VariantType.String),
            "ConditionName": (f"{point.name} out of range", ua.VariantType.String),
            "ConditionClassId": (standard(ObjectIds.ProcessConditionClassType), ua.VariantType.NodeId),
            "ConditionClassName": (ua.LocalizedText("Process"), ua.VariantType.LocalizedText),
            "EnabledState": (ua.LocalizedText("Enabled"), ua.VariantType.LocalizedText),
            "EnabledState/Id": (True, ua.VariantType.Boolean),
            "InputNode": (variable.node_id, ua.VariantType.NodeId),
            "HighLimit": (float(point.raw(point.max or 0)), ua.VariantType.Double),
            "LowLimit": (float(point.raw(point.min or 0)), ua.VariantType.Double),
            "Quality": (ua.StatusCode(), ua.VariantType.StatusCode),
            "SuppressedOrShelved": (False, ua.VariantType.Boolean),
        }
        self._say(fixed)

    def _say(self, fields: Mapping[str, tuple[Any, ua.VariantType]]) -> None:
        for name, (value, kind) in fields.items():
            self.event.add_property(name, value, kind)

    @property
    def retain(self) -> bool:
        """Whether somebody has still to see it."""
        return self.active or not self.acked or not self.confirmed

    def look(self) -> bool:
        """Whether the value has gone out of its range, or come back into it, since the last look."""
        value = self.point.engineering(self.variable.raw)
        if isinstance(value, Quality | list | dict | str) or self.point.min is None or self.point.max is None:
            return False
        active = not self.point.min <= value <= self.point.max
        if active == self.active:
            return False
        self.active = active
        if active:
            self.acked = self.confirmed = False
        self._level = "High" if active and value > self.point.max else "Low"
        return True

    _level = ""

    def tell(self, message: str | None = None) -> None:
        """Brings the event up to what is now, as one that was never sent before."""
        time = now()
        text = f"{self.point.name} is {'above' if self._level == 'High' else 'below'} its range"
        if not self.active:
            text = f"{self.point.name} is back in its range"
        states = {
            "ActiveState": (self.active, "Active", "Inactive"),
            "AckedState": (self.acked, "Acknowledged", "Unacknowledged"),
            "ConfirmedState": (self.confirmed, "Confirmed", "Unconfirmed"),
        }
        for name, (state, yes, no) in states.items():
            shown = ua.LocalizedText(yes if state else no)
            self._say(
                {
                    name: (shown, ua.VariantType.LocalizedText),
                    f"{name}/Id": (state, ua.VariantType.Boolean),
                }
            )
        self._say(
            {
                "EventId": (uuid.uuid4().bytes, ua.VariantType.ByteString),
                "Time": (time, ua.VariantType.DateTime),
                "ReceiveTime": (time, ua.VariantType.DateTime),
                "Message": (ua.LocalizedText(message or text), ua.VariantType.LocalizedText),
                "Severity": (_SEVERITY if self.active else _SEVERITY // 2, ua.VariantType.UInt16),
                "Retain": (self.retain, ua.VariantType.Boolean),
                "Comment": (self.comment, ua.VariantType.LocalizedText),
            }
        )


class Alarms:
    """The alarms of a server, and its methods to acknowledge, confirm and refresh them."""

    def __init__(self, space: Space, device: OpcuaDevice, variables: Mapping[str, Variable]) -> None:
        self._service = space.server.iserver.subscription_service
        self._notifiers = [
            space.notifier(point) for point in device.points.values() if point.events is not None
        ]
        self._alarms: dict[ua.NodeId, _Alarm] = {}
        if self._notifiers:
            ranged = (point for point in device.points.values() if _has_range(point, variables))
            for point in itertools.islice(ranged, _MOST):
                node = space.condition(variables[point.name].node_id, f"{point.name} out of range")
                self._alarms[node] = _Alarm(node, variables[point.name], point)
        for method, take in (
            (ObjectIds.AcknowledgeableConditionType_Acknowledge, self._acknowledge),
            (ObjectIds.AcknowledgeableConditionType_Confirm, self._confirm),
            (ObjectIds.ConditionType_ConditionRefresh, self._refresh),
            (ObjectIds.ConditionType_ConditionRefresh2, self._refresh),
        ):
            space.aspace.add_method_callback(standard(method), take)

    async def run(self) -> None:
        """Looks after the values until it is cancelled."""
        while True:
            for alarm in self._alarms.values():
                if alarm.look():
                    await self._send(alarm)
            await asyncio.sleep(_STEP_S)

    async def _send(self, alarm: _Alarm, message: str | None = None) -> None:
        alarm.tell(message)
        for notifier in self._notifiers:
            alarm.event.emitting_node = notifier
            await self._service.trigger_event(alarm.event)

    # Methods.

    async def _acknowledge(self, condition: ua.NodeId, *args: ua.Variant) -> Any:
        alarm = self._meant(condition, args)
        if isinstance(alarm, ua.StatusCode):
            return alarm
        if alarm.acked:
            return status(StatusCodes.BadConditionBranchAlreadyAcked)
        alarm.acked = True
        return await self._commented(alarm, args, "is acknowledged")

    async def _confirm(self, condition: ua.NodeId, *args: ua.Variant) -> Any:
        alarm = self._meant(condition, args)
        if isinstance(alarm, ua.StatusCode):
            return alarm
        if alarm.confirmed:
            return status(StatusCodes.BadConditionBranchAlreadyConfirmed)
        alarm.confirmed = True
        return await self._commented(alarm, args, "is confirmed")

    def _meant(self, condition: ua.NodeId, args: Sequence[ua.Variant]) -> _Alarm | ua.StatusCode:
        alarm = self._alarms.get(condition)
        if alarm is None:
            return status(StatusCodes.BadNodeIdUnknown)
        if len(args) < 2:
            return status(StatusCodes.BadArgumentsMissing)
        if args[0].Value is None or args[0].Value != alarm.event.EventId:
            return status(StatusCodes.BadEventIdUnknown)
        return alarm

    async def _commented(self, alarm: _Alarm, args: Sequence[ua.Variant], done: str) -> Any:
        if isinstance(args[1].Value, ua.LocalizedText) and args[1].Value.Text is not None:
            alarm.comment = args[1].Value
        await self._send(alarm, f"{alarm.point.name} {done}")
        return []

    async def _refresh(self, condition: ua.NodeId, *args: ua.Variant) -> Any:
        """Sends what is to be retained again, between a start and an end (OPC 10000-9, ConditionRefresh)."""
        subscription = self._service.subscriptions.get(args[0].Value) if args else None
        if subscription is None:
            return status(StatusCodes.BadSubscriptionIdInvalid)
        service = subscription.monitored_item_srv
        only = args[1].Value if len(args) > 1 else None
        items = [
            (node, item)
            for node, items in service._monitored_events.items()
            for item in items
            if only in (None, item)
        ]
        if only is not None and not items:
            return status(StatusCodes.BadMonitoredItemIdInvalid)
        for node, item in items:
            await self._mark(subscription, item, RefreshStartEvent)
            for alarm in self._alarms.values():
                if alarm.retain and node in self._notifiers:
                    await service._trigger_event(alarm.event, item)
            await self._mark(subscription, item, RefreshEndEvent)
        return []

    async def _mark(self, subscription: Any, item: int, make: Callable[[], Any]) -> None:
        """Sends one of the events around a refresh, which no filter keeps back."""
        event = make()
        event.EventId, event.Time = uuid.uuid4().bytes, now()
        event.SourceNode, event.SourceName = standard(ObjectIds.Server), "Server"
        wanted = subscription.monitored_item_srv._monitored_items[item]
        fields = ua.EventFieldList()
        fields.ClientHandle = wanted.client_handle
        fields.EventFields = event.to_event_fields(wanted.filter.SelectClauses)
        await subscription.enqueue_event(item, fields, wanted.queue_size)


def _has_range(point: OpcuaPoint, variables: Mapping[str, Variable]) -> bool:
    return (
        point.name in variables
        and point.type in ("number", "integer")
        and point.readable
        and point.index_range is None
        and point.min is not None
        and point.max is not None
    )
