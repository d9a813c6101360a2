"""asyncua's server as a simulated device needs it: quick to start, and with what its services leave out.

Added are index ranges of one dimension in reads, writes and monitored items, percent deadbands and deadbands
that count from the last value that was reported, the Overflow bit of full queues, subtypes in the filter
operator OfType, and that what is not readable cannot be read.
"""

import asyncio
import copy
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.address_space import (
    AddressSpace,
    AttributeService,
    NodeData,
    NodeManagementService,
)
from asyncua.server.internal_server import InternalServer
from asyncua.server.monitored_item_service import (
    MonitoredItemData,
    MonitoredItemService,
    WhereClauseEvaluator,
)
from asyncua.server.standard_address_space import standard_address_space
from asyncua.server.subscription_service import SubscriptionService
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaprotocol_auto import DataChangeFilter  # what is decoded is not the class of asyncua.ua

from sim.opcua.values import now

OVERFLOW: Final = 0x480
"""Bits of a status code: it is of a data value, whose queue has overflowed (OPC 10000-4, 7.39)."""


_ADMIN: Final = User(role=UserRole.Admin)


def status(code: int) -> ua.StatusCode:
    """A status code by its number."""
    return ua.StatusCode(ua.UInt32(code))


def standard(identifier: int) -> ua.NodeId:
    """A node of the standard's namespace."""
    return ua.NodeId(ua.Int32(identifier))


@functools.cache
def _standard() -> dict[ua.NodeId, NodeData]:
    """The standard address space, which takes seconds to make: once in a process; nobody changes it."""
    space = AddressSpace()
    collecting = gc.isenabled()
    gc.disable()  # a hundred thousand objects that all stay: looking through them again takes a third longer
    try:
        standard_address_space.fill_address_space(NodeManagementService(space))  # type: ignore[no-untyped-call]  # as it is
    finally:
        if collecting:
            gc.enable()
    return space._nodes


class _Nodes(MutableMapping[ua.NodeId, NodeData]):
    """A server's own nodes on top of the standard ones, of which it copies those that it touches."""

    def __init__(self) -> None:
        self._own: dict[ua.NodeId, NodeData] = {}
        self._standard = _standard()

    def __getitem__(self, key: ua.NodeId) -> NodeData:
        node = self._own.get(key)
        if node is None:
            node = self._own[key] = copy.deepcopy(self._standard[key])
        return node

    def __setitem__(self, key: ua.NodeId, value: NodeData) -> None:
        self._own[key] = value

    def __delitem__(self, key: ua.NodeId) -> None:
        del self._own[key]

    def __contains__(self, key: object) -> bool:
        return key in self._own or key in self._standard

    def __iter__(self) -> Iterator[ua.NodeId]:
        yield from self._own
        yield from (key for key in self._standard if key not in self._own)

    def __len__(self) -> int:
        return len(self._own.keys() | self._standard.keys())


class SimulatedServer(InternalServer):
    """The server behind the sockets."""

    def __init__(self, users: Any) -> None:
        """`users`: has `get_user`, as asyncua's user managers."""
        super().__init__(users)
        self.attribute_service = _Attributes(self.aspace)
        self.subscription_service = _Subscriptions(self.aspace, iserver=self)
        self.isession.subscription_service = self.subscription_service
        self.disabled_clock = True  # its clock needs a second to end; the simulation has its own

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        """Takes the standard nodes that are in memory."""
        nodes: Any = await asyncio.to_thread(_Nodes)  # as good as the dict that it stands in for
        self.aspace._nodes = nodes


# Attributes.


def bounds(index_range: str | None) -> tuple[int, int] | None:
    """First and last index of an index range of one dimension (OPC 10000-4); None: there is none.

    Raises:
        ServiceError: BadIndexRangeInvalid.
    """
    if not index_range:
        return None
    low, colon, high = index_range.partition(":")
    if not (low.isascii() and low.isdecimal() and (not colon or (high.isascii() and high.isdecimal()))):
        raise ServiceError(StatusCodes.BadIndexRangeInvalid)
    first, last = int(low), int(high) if colon else int(low)
    if colon and last <= first:
        raise ServiceError(StatusCodes.BadIndexRangeInvalid)
    return first, last


def _part(value: ua.DataValue, index_range: str | None) -> ua.DataValue:
    """The part of an array, a text or octets that an index range names."""
    try:
        part = bounds(index_range)
    except ServiceError as error:
        return ua.DataValue(StatusCode=status(error.code))
    whole = None if value.Value is None else value.Value.Value
    if part is None or whole is None:
        return value
    found = whole[part[0] : part[1] + 1] if isinstance(whole, list | str | bytes) else None
    if not found:
        return ua.DataValue(StatusCode=status(StatusCodes.BadIndexRangeNoData))
    assert value.Value is not None
    return dataclasses.replace(value, Value=ua.Variant(found, value.Value.VariantType))


class _Attributes(AttributeService):
    def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """Reads, with index ranges, what is readable."""
        return [self._read(wanted) for wanted in params.NodesToRead]

    def _read(self, wanted: ua.ReadValueId) -> ua.DataValue:
        value = self._aspace.read_attribute_value(wanted.NodeId, wanted.AttributeId)
        if wanted.AttributeId != AttributeIds.Value:
            return value
        access = self._aspace.read_attribute_value(wanted.NodeId, AttributeIds.AccessLevel).Value
        if access is not None and access.Value is not None and not access.Value & 1:
            return ua.DataValue(StatusCode=status(StatusCodes.BadNotReadable))
        return _part(value, wanted.IndexRange)

    async def write(self, params: ua.WriteParameters, user: User = _ADMIN) -> list[ua.StatusCode]:
        """Writes, with index ranges; a value that comes without a time is of now."""
        codes = []
        for wanted in params.NodesToWrite:
            if wanted.NodeId not in self._aspace:
                codes.append(status(StatusCodes.BadNodeIdUnknown))
                continue
            one = ua.WriteParameters()
            try:
                one.NodesToWrite = [_timed(self._whole(wanted))]
            except ServiceError as error:
                codes.append(status(error.code))
            else:
                codes += await super().write(one, user)
        return codes

    def _whole(self, wanted: ua.WriteValue) -> ua.WriteValue:
        """What is to be written, with the rest of the array that it is a part of."""
        part = bounds(wanted.IndexRange)
        given = None if wanted.Value.Value is None else wanted.Value.Value
        if part is None or given is None:
            return wanted
        old = self._aspace.read_attribute_value(wanted.NodeId, wanted.AttributeId).Value
        if old is None or not isinstance(old.Value, list) or len(old.Value) <= part[1]:
            raise ServiceError(StatusCodes.BadIndexRangeNoData)
        if not isinstance(given.Value, list) or len(given.Value) != part[1] - part[0] + 1:
            raise ServiceError(StatusCodes.BadIndexRangeDataMismatch)
        whole = [*old.Value[: part[0]], *given.Value, *old.Value[part[1] + 1 :]]
        value = dataclasses.replace(wanted.Value, Value=ua.Variant(whole, given.VariantType))
        return dataclasses.replace(wanted, IndexRange=None, Value=value)


def _timed(wanted: ua.WriteValue) -> ua.WriteValue:
    if wanted.AttributeId != AttributeIds.Value or wanted.Value.SourceTimestamp is not None:
        return wanted
    value = dataclasses.replace(wanted.Value, SourceTimestamp=now())
    return dataclasses.replace(wanted, Value=value)


# Subscriptions.


class _Subscriptions(SubscriptionService):
    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        session_id: ua.NodeId,
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        result = await super().create_subscription(params, callback, session_id, request_callback)
        subscription = self.subscriptions[result.SubscriptionId]
        subscription.monitored_item_srv = _Items(subscription, self.aspace)
        return result


class _Items(MonitoredItemService):
    """The monitored items of one subscription."""

    def _create_events_monitored_item(
        self, params: ua.MonitoredItemCreateRequest
    ) -> ua.MonitoredItemCreateResult:
        result = super()._create_events_monitored_item(params)
        item = self._monitored_items.get(result.MonitoredItemId)
        if item is not None:
            item.where_clause_evaluator = _Where(self.logger, self.aspace, item.filter.WhereClause)
        return result

    async def datachange_callback(
        self, handle: int, value: ua.DataValue, error: ua.StatusCode | None = None
    ) -> None:
        """Takes a new value of a node; it is reported if the item's filter says that it has changed."""
        item = self._monitored_items[self._monitored_datachange[handle]]
        if error is not None or item.mode == ua.MonitoringMode.Disabled:
            await super().datachange_callback(handle, value, error)
            return
        wanted = item.read_value_id
        assert wanted is not None
        assert item.monitored_item_id is not None
        if wanted.AttributeId == AttributeIds.Value:
            value = _part(value, wanted.IndexRange)
        last = item.mvalue.current_dvalue
        if last is None or self._changed(item, last, value):
            item.mvalue.current_dvalue = value  # the next is held against what was reported last
            await self._report(item.monitored_item_id, item, value)

    def _changed(self, item: MonitoredItemData, last: ua.DataValue, value: ua.DataValue) -> bool:
        wanted = _filter(item)
        trigger = wanted.Trigger if wanted is not None else ua.DataChangeTrigger.StatusValue
        if last.StatusCode != value.StatusCode:
            return True
        if trigger == ua.DataChangeTrigger.Status:
            return False
        if (
            trigger == ua.DataChangeTrigger.StatusValueTimestamp
            and last.SourceTimestamp != value.SourceTimestamp
        ):
            return True
        if last.Value == value.Value:
            return False
        least = self._deadband(item)
        if least is None or last.Value is None or value.Value is None:
            return True
        before, now = last.Value.Value, value.Value.Value
        if isinstance(before, list) and isinstance(now, list):
            return len(before) != len(now) or any(
                abs(b - a) > least for a, b in zip(before, now, strict=True)
            )
        return bool(abs(now - before) > least)

    def _deadband(self, item: MonitoredItemData) -> float | None:
        """The least change, in the node's unit (OPC 10000-4, DataChangeFilter; OPC 10000-8)."""
        wanted = _filter(item)
        if wanted is None or wanted.DeadbandType == ua.DeadbandType.None_:
            return None
        if wanted.DeadbandType == ua.DeadbandType.Absolute:
            return float(wanted.DeadbandValue)
        assert item.read_value_id is not None
        for reference in self.aspace[item.read_value_id.NodeId].references:
            if reference.IsForward and reference.BrowseName == ua.QualifiedName("EURange"):
                span = self.aspace.read_attribute_value(reference.NodeId, AttributeIds.Value).Value
                if span is not None and span.Value is not None:
                    return float(wanted.DeadbandValue / 100 * (span.Value.High - span.Value.Low))
        return None

    async def _report(self, item_id: int, item: MonitoredItemData, value: ua.DataValue) -> None:
        queued = self.isub._triggered_datachanges.get(item_id, [])
        if item.queue_size > 1 and len(queued) >= item.queue_size:
            oldest = queued[1]  # the first goes now
            code = status((oldest.Value.StatusCode or ua.StatusCode()).value | OVERFLOW)
            oldest.Value = dataclasses.replace(oldest.Value, StatusCode=code)
        change = ua.MonitoredItemNotification()
        change.ClientHandle, change.Value = item.client_handle, value
        await self.isub.enqueue_datachange_event(item_id, change, item.queue_size)


def _filter(item: MonitoredItemData) -> DataChangeFilter | None:
    """The item's filter; where a client gives none, there is an extension object of no type."""
    return item.filter if isinstance(item.filter, DataChangeFilter) else None


class _Where(WhereClauseEvaluator):
    """A filter of events in which OfType takes subtypes too."""

    def _eval_el(self, index: int, event: Any) -> Any:
        element = self.elements[index]
        if element.FilterOperator != ua.FilterOperator.OfType:
            return super()._eval_el(index, event)
        wanted, found = self._eval_op(element.FilterOperands[0], event), event.EventType
        while found is not None and found != wanted:
            found = self._supertype(found)
        return found is not None

    def _supertype(self, node_id: ua.NodeId) -> ua.NodeId | None:
        for reference in self._aspace[node_id].references:
            if not reference.IsForward and reference.ReferenceTypeId == standard(ObjectIds.HasSubtype):
                super_type: ua.NodeId = reference.NodeId
                return super_type
        return None
