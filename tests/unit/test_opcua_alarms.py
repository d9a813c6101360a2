"""Which events are asked for, and what any list of fields that comes makes of a point."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import msgspec
import pytest
from asyncua import ua
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import pack_uatype
from hypothesis import given, settings
from hypothesis import strategies as st
from opcua_values import VARIANTS

from protocols.opcua.alarms import event_filter, needs_refresh, taken
from protocols.opcua.point import OpcuaPoint
from protocols.opcua.structures import Dictionary

_DICTIONARY = Dictionary(["", "urn:plant.example"])
_ALARMS, _ALL, _SEVERE = (
    OpcuaPoint(node="i=2253", type="object", **fields)
    for fields in ({"events": "alarms"}, {"events": "all"}, {"events": "alarms", "severity": 500})
)
_TIME, _RECEIVED = (ua.DateTime(2026, 11, 22, 18, 0, second, tzinfo=UTC) for second in (1, 2))
_ORDER = [
    "EventId",
    "EventType",
    "Time",
    "ReceiveTime",
    "SourceName",
    "SourceNode",
    "",
    "ConditionName",
    "Message",
    "Severity",
    "ActiveState/Id",
    "AckedState/Id",
    "ConfirmedState/Id",
    "Retain",
    "EnabledState/Id",
    "Comment",
]


def _fields(**held: Any) -> list[ua.Variant]:
    """Fields in the order of the filter, null where none is given."""
    return [ua.Variant(held.get(name.replace("/", "_") or "Condition")) for name in _ORDER]


@settings(max_examples=100)
@given(st.lists(VARIANTS, max_size=20), st.sampled_from([_ALARMS, _ALL]))
def test_any_fields_are_an_event_or_none(fields: Sequence[ua.Variant], point: OpcuaPoint) -> None:
    for mode in ("source", "server", "gateway"):
        event = taken(point, fields, mode, 7, _DICTIONARY)
        if event is not None:
            assert event.time_ns >= 0
            msgspec.json.encode(event.value)
    needs_refresh(fields)


def test_what_is_there_is_said_and_the_rest_is_left_out() -> None:
    event = taken(
        _ALARMS,
        _fields(
            EventId=b"\x01\xff",
            EventType=ua.NodeId(ua.Int32(ObjectIds.ExclusiveLevelAlarmType)),
            Time=_TIME,
            ReceiveTime=_RECEIVED,
            SourceName="level",
            SourceNode=ua.NodeId(ua.String("Level"), ua.Int16(1)),
            Condition=ua.NodeId(ua.Int32(7), ua.Int16(1)),
            Message=ua.LocalizedText("zu hoch", "de"),
            Severity=700,
            ActiveState_Id=True,
            AckedState_Id=False,
            ConfirmedState_Id="yes",
        ),
        "source",
        7,
        _DICTIONARY,
    )
    assert event is not None
    assert event.time_ns == int(_TIME.timestamp()) * 10**9
    assert event.value == {
        "event_id": "01ff",
        "type": "ExclusiveLevelAlarmType",
        "source": "level",
        "source_node": "nsu=urn:plant.example;s=Level",
        "condition": "nsu=urn:plant.example;i=7",
        "message": "zu hoch",
        "severity": 700,
        "active": True,
        "acked": False,
    }


@pytest.mark.parametrize(
    ("mode", "times", "second"),
    [
        ("source", {"Time": _TIME, "ReceiveTime": _RECEIVED}, 1),
        ("source", {"ReceiveTime": _RECEIVED}, 2),
        ("source", {}, None),
        ("server", {"Time": _TIME, "ReceiveTime": _RECEIVED}, 2),
        ("server", {"Time": _TIME}, None),
        ("gateway", {"Time": _TIME, "ReceiveTime": _RECEIVED}, None),
    ],
)
def test_an_event_has_the_time_of_the_clock_that_was_chosen(
    mode: Any, times: Any, second: int | None
) -> None:
    event = taken(_ALL, _fields(**times), mode, 7, _DICTIONARY)
    assert event is not None
    expected = {None: 7, 1: int(_TIME.timestamp()) * 10**9, 2: int(_RECEIVED.timestamp()) * 10**9}[second]
    assert event.time_ns == expected


@pytest.mark.parametrize(
    ("number", "again"),
    [
        (ObjectIds.RefreshStartEventType, False),
        (ObjectIds.RefreshEndEventType, False),
        (ObjectIds.RefreshRequiredEventType, True),
    ],
)
def test_what_surrounds_a_refresh_is_no_alarm(number: int, again: bool) -> None:
    fields = _fields(EventType=ua.NodeId(ua.Int32(number)))
    assert taken(_ALARMS, fields, "source", 7, _DICTIONARY) is None
    assert taken(_ALL, fields, "source", 7, _DICTIONARY) is not None
    assert needs_refresh(fields) is again


def test_the_filter_asks_for_the_fields_in_order() -> None:
    for point in (_ALARMS, _ALL, _SEVERE):
        asked = event_filter(point)
        assert [
            "/".join(str(one.Name) for one in clause.BrowsePath) for clause in asked.SelectClauses
        ] == _ORDER
        assert pack_uatype(ua.VariantType.ExtensionObject, asked)


@pytest.mark.parametrize(
    ("point", "operators"),
    [
        (_ALL, []),
        (_ALARMS, [ua.FilterOperator.OfType]),
        (_SEVERE, [ua.FilterOperator.And, ua.FilterOperator.OfType, ua.FilterOperator.GreaterThanOrEqual]),
    ],
)
def test_the_filter_asks_for_alarms_and_for_their_severity(point: OpcuaPoint, operators: Any) -> None:
    elements = event_filter(point).WhereClause.Elements
    assert [one.FilterOperator for one in elements] == operators
