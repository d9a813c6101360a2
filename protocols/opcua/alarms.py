"""Alarms, conditions and other events (OPC 10000-9): which are asked for, what they are as a value, and what
is answered to them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIdNames, ObjectIds

from protocols.base import DriverError, Refused, Value
from protocols.opcua.codec import ns_of
from protocols.opcua.from_json import node_id
from protocols.opcua.point import OpcuaPoint
from protocols.opcua.session import Session
from protocols.opcua.status import words
from protocols.opcua.structures import Dictionary, Unfit
from protocols.opcua.to_json import node_text, text
from protocols.opcua.types import dictionary_of


def _standard(number: int) -> ua.NodeId:
    return ua.NodeId(ua.Int32(number))


_EVENT: Final = _standard(ObjectIds.BaseEventType)
_CONDITION: Final = _standard(ObjectIds.ConditionType)
_ACKNOWLEDGEABLE: Final = _standard(ObjectIds.AcknowledgeableConditionType)
_ALARM: Final = _standard(ObjectIds.AlarmConditionType)
_REFRESHES: Final = frozenset(
    {_standard(ObjectIds.RefreshStartEventType), _standard(ObjectIds.RefreshEndEventType)}
)
_REFRESH_REQUIRED: Final = _standard(ObjectIds.RefreshRequiredEventType)

_Kind = Literal["node", "bytes", "text", "boolean", "integer", "time"]

_FIELDS: Final[Sequence[tuple[str, _Kind, ua.NodeId, str]]] = (
    ("event_id", "bytes", _EVENT, "EventId"),
    ("type", "node", _EVENT, "EventType"),
    ("time", "time", _EVENT, "Time"),
    ("receive_time", "time", _EVENT, "ReceiveTime"),
    ("source", "text", _EVENT, "SourceName"),
    ("source_node", "node", _EVENT, "SourceNode"),
    ("condition", "node", _CONDITION, ""),
    ("name", "text", _CONDITION, "ConditionName"),
    ("message", "text", _EVENT, "Message"),
    ("severity", "integer", _EVENT, "Severity"),
    ("active", "boolean", _ALARM, "ActiveState/Id"),
    ("acked", "boolean", _ACKNOWLEDGEABLE, "AckedState/Id"),
    ("confirmed", "boolean", _ACKNOWLEDGEABLE, "ConfirmedState/Id"),
    ("retain", "boolean", _CONDITION, "Retain"),
    ("enabled", "boolean", _CONDITION, "EnabledState/Id"),
    ("comment", "text", _CONDITION, "Comment"),
)
"""What is selected of each event, in this order; a path that is empty is the condition's own node id."""

_MOST_TEXT: Final = 4096


class Event(NamedTuple):
    """An event as a point's value, and when it was."""

    time_ns: int
    value: Value


def event_filter(point: OpcuaPoint) -> ua.EventFilter:
    """What a monitored item of the point's notifier asks for: fields, and which events."""
    selected = [
        ua.SimpleAttributeOperand(
            TypeDefinitionId=owner,
            BrowsePath=[ua.QualifiedName(name) for name in path.split("/") if name],
            AttributeId=ua.IntegerId(AttributeIds.Value if path else AttributeIds.NodeId),
        )
        for _, _, owner, path in _FIELDS
    ]
    wanted: list[ua.ContentFilterElement] = []
    if point.events == "alarms":
        of_type = ua.LiteralOperand(Value=ua.Variant(_CONDITION, ua.VariantType.NodeId))
        wanted.append(_element(ua.FilterOperator.OfType, of_type))
    if point.severity > 1:
        severity = ua.SimpleAttributeOperand(
            TypeDefinitionId=_EVENT,
            BrowsePath=[ua.QualifiedName("Severity")],
            AttributeId=ua.IntegerId(AttributeIds.Value),
        )
        least = ua.LiteralOperand(Value=ua.Variant(point.severity, ua.VariantType.UInt16))
        wanted.append(_element(ua.FilterOperator.GreaterThanOrEqual, severity, least))
    if len(wanted) > 1:
        both = (ua.ElementOperand(Index=ua.UInt32(1)), ua.ElementOperand(Index=ua.UInt32(2)))
        wanted.insert(0, _element(ua.FilterOperator.And, *both))
    return ua.EventFilter(SelectClauses=selected, WhereClause=ua.ContentFilter(Elements=wanted))


def _element(operator: ua.FilterOperator, *operands: Any) -> ua.ContentFilterElement:
    return ua.ContentFilterElement(FilterOperator=operator, FilterOperands=list(operands))


def needs_refresh(fields: Sequence[ua.Variant]) -> bool:
    """Whether the event says that the server lost track of what it had reported: it is to be refreshed."""
    return bool(_type_of(fields) == _REFRESH_REQUIRED)


def taken(
    point: OpcuaPoint,
    fields: Sequence[ua.Variant],
    mode: Literal["source", "server", "gateway"],
    now_ns: int,
    dictionary: Dictionary,
) -> Event | None:
    """The event of a notification; None of one that is none of the point's. Never raises.

    A field that the event does not have, or that is of another type than it should be, is left out. The
    events around a refresh, which every notifier gets whatever it asked for, are no alarms.
    """
    if point.events == "alarms" and (_type_of(fields) in _REFRESHES or needs_refresh(fields)):
        return None
    value: dict[str, Any] = {}
    times: dict[str, int] = {}
    for (name, kind, _, _), field in zip(_FIELDS, fields, strict=False):
        held = field.Value if isinstance(field, ua.Variant) else None
        if kind == "time":
            ns = ns_of(held) if isinstance(held, datetime) else None
            if ns is not None:
                times[name] = ns
        elif (said := _said(kind, held, dictionary)) is not None:
            value[name] = said
    received = times.get("receive_time", now_ns)
    time_ns = {"source": times.get("time", received), "server": received, "gateway": now_ns}[mode]
    return Event(time_ns, value)


def _type_of(fields: Sequence[ua.Variant]) -> Any:
    held = fields[1].Value if len(fields) > 1 and isinstance(fields[1], ua.Variant) else None
    return held if isinstance(held, ua.NodeId) else None


def _said(kind: _Kind, held: Any, dictionary: Dictionary) -> Any:
    match kind:
        case "node" if isinstance(held, ua.NodeId) and not held.is_null():
            if (
                held.NamespaceIndex == 0
                and isinstance(held.Identifier, int)
                and held.Identifier in ObjectIdNames
            ):
                return ObjectIdNames[held.Identifier]
            return node_text(held, dictionary.namespaces)
        case "bytes" if isinstance(held, bytes):
            return held.hex()
        case "text" if isinstance(held, str):
            return text(held[:_MOST_TEXT])
        case "text" if isinstance(held, ua.LocalizedText) and held.Text is not None:
            return text(held.Text[:_MOST_TEXT])
        case "boolean" if isinstance(held, bool):
            return held
        case "integer" if isinstance(held, int) and not isinstance(held, bool):
            return int(held)
    return None


async def answer(
    session: Session, what: Literal["acknowledge", "confirm"], event_id: str, condition: str, comment: str
) -> None:
    """Acknowledges or confirms the state of a condition, as an event reported it (OPC 10000-9).

    Raises:
        Refused: `malformed`: no event id, or no condition's node id.
        DriverError: the server did not take it, or did not answer.
    """
    dictionary = dictionary_of(session)
    try:
        identity = bytes.fromhex(event_id)
        object_id = node_id(condition, dictionary.namespaces)
    except ValueError:
        raise Refused("malformed", f"{what}: event_id is the hexadecimal one of an event") from None
    except Unfit as error:
        raise Refused("malformed", f"{what}: {error}") from None
    number = ObjectIds.AcknowledgeableConditionType_Acknowledge
    if what == "confirm":
        number = ObjectIds.AcknowledgeableConditionType_Confirm
    arguments = [
        ua.Variant(identity, ua.VariantType.ByteString),
        ua.Variant(ua.LocalizedText(comment), ua.VariantType.LocalizedText),
    ]
    await _call(session, f"{what} {condition}", object_id, _standard(number), arguments)


async def refresh(session: Session, subscriptions: Sequence[int]) -> None:
    """Has the server report all conditions that are to be retained again (OPC 10000-9, ConditionRefresh).

    Raises:
        DriverError: the server does not, or did not answer.
    """
    method = _standard(ObjectIds.ConditionType_ConditionRefresh)
    for one in subscriptions:
        await _call(
            session, "refresh its alarms", _CONDITION, method, [ua.Variant(one, ua.VariantType.UInt32)]
        )


async def _call(
    session: Session, what: str, object_id: ua.NodeId, method: ua.NodeId, arguments: list[ua.Variant]
) -> None:
    request = ua.CallMethodRequest(ObjectId=object_id, MethodId=method, InputArguments=arguments)
    with session.errors(what):
        results = await session.services.call([request])
    code = results[0].StatusCode.value if len(results) == 1 else None
    if code is None or not ua.StatusCode(code).is_good():
        said = "it gave no result" if code is None else words(code)
        raise DriverError("device-error", f"the server did not {what}: {said}")
