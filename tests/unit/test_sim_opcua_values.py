"""Simulated OPC UA servers: the types of points, values as nodes hold them, ids and index ranges."""

import datetime
import uuid
from typing import Any, get_args

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from hypothesis import given
from hypothesis import strategies as st

from protocols.opcua.config import OpcuaDevice
from protocols.opcua.point import BuiltIn, OpcuaPoint
from sim.opcua.services import bounds
from sim.opcua.space import STANDARD_URI, namespaces
from sim.opcua.values import built_in, node_id, qualified_name, to_server, zero
from sim.opcua.variable import Variable


def point(**fields: Any) -> OpcuaPoint:
    return OpcuaPoint.model_validate({"node": "ns=2;s=Speed", **fields})


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "Double"),
        ({"type": "integer"}, "Int64"),
        ({"type": "integer", "data_type": "UInt16"}, "UInt16"),
        ({"type": "boolean"}, "Boolean"),
        ({"type": "boolean", "true_as": "ON", "false_as": "OFF"}, "String"),
        ({"type": "boolean", "true_as": 1, "false_as": 0}, "Int64"),
        ({"type": "string"}, "String"),
        ({"type": "array"}, "Double"),
        ({"type": "object"}, "ExtensionObject"),
        ({"type": "enumeration", "labels": {0: "off", 1: "on"}}, "Int32"),
        ({"type": "enumeration", "labels": {"OFF": "off", "ON": "on"}}, "String"),
    ],
)
def test_a_node_has_the_type_that_suits_its_point(fields: dict[str, Any], kind: str) -> None:
    assert built_in(point(**fields)) == kind


@pytest.mark.parametrize(
    ("value", "kind", "held"),
    [
        (3.7, "Int16", 4),
        (70000, "Int16", 32767),
        (-1, "UInt32", 0),
        (1, "Double", 1.0),
        ("2026-03-01T12:00:00+00:00", "DateTime", datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)),
        ("00000000-0000-0000-0000-000000000007", "Guid", uuid.UUID(int=7)),
        ("00ff", "ByteString", b"\x00\xff"),
        ("ns=2;i=7", "NodeId", ua.NodeId(ua.Int32(7), ua.Int16(2))),
        ("2:Speed", "QualifiedName", ua.QualifiedName("Speed", ua.UInt16(2))),
        ({"text": "Pumpe", "locale": "de"}, "LocalizedText", ua.LocalizedText("Pumpe", "de")),
        ([1, 2], "Double", [1.0, 2.0]),
        ("fast", "Double", 0.0),
        ("no id", "NodeId", ua.NodeId()),
        ("nothing", "ByteString", b""),
    ],
)
def test_values_become_what_the_node_holds(value: Any, kind: str, held: Any) -> None:
    assert to_server(value, kind) == held


@given(
    value=st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists),
    kind=st.sampled_from(get_args(BuiltIn)),
)
def test_whatever_a_simulation_says_a_node_can_hold_it(value: Any, kind: str) -> None:
    made = to_server(value, kind)
    if not isinstance(made, list):
        assert made is None or isinstance(made, type(zero(kind))) or kind in ("Variant", "NodeId")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("i=2258", ua.NodeId(ua.Int32(2258))),
        ("ns=2;s=a;b=c", ua.NodeId(ua.String("a;b=c"), ua.Int16(2))),
        ("nsu=urn:plant.example;s=x", ua.NodeId(ua.String("x"), ua.Int16(3))),
        ("ns=2;b=AP8=", ua.NodeId(ua.ByteString(b"\x00\xff"), ua.Int16(2))),
    ],
)
def test_node_ids_are_read(text: str, found: ua.NodeId) -> None:
    assert node_id(text, {"urn:plant.example": 3}) == found


def test_unknown_namespaces_are_refused() -> None:
    for read in (node_id, qualified_name):
        with pytest.raises(ValueError, match="no such namespace"):
            read("nsu=urn:other.example;s=x", {})


def test_namespaces_make_the_numbers_of_the_profile_come_true() -> None:
    device = OpcuaDevice.model_validate(
        {
            "protocol": "opcua",
            "connection": {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}},
            "points": {
                "a": {"node": "ns=4;s=1:x"},
                "b": {"node": "nsu=urn:plant.example;s=y"},
                "c": {"node": "/Objects/5:Plant/nsu=urn:more.example;Speed"},
                "d": {"node": "i=2258"},
            },
        }
    )
    uris = namespaces(device, "urn:app")
    assert uris[:2] == [STANDARD_URI, "urn:app"]
    assert len(uris) == len(set(uris)) == 8
    assert uris[6:] == ["urn:plant.example", "urn:more.example"]


@pytest.mark.parametrize(("text", "found"), [("3", (3, 3)), ("0:4", (0, 4)), (None, None), ("", None)])
def test_index_ranges_are_read(text: str | None, found: Any) -> None:
    assert bounds(text) == found


@pytest.mark.parametrize("text", ["4:4", "4:2", "-1", "a", "1:", ":2", "0:1,0:1", "²"])
def test_what_is_no_index_range_of_one_dimension_is_refused(text: str) -> None:
    with pytest.raises(ServiceError):
        bounds(text)


def test_points_that_are_parts_of_an_array_share_its_node() -> None:
    first = point(type="number", index_range="0")
    rest = point(type="array", index_range="1:2")
    variable = Variable(node_id("ns=2;s=Speed", {}), "Double", [first, rest], [0.0] * 3)
    variable.put(first, 7)
    variable.put(rest, [8, 9])
    assert variable.variant() == ua.Variant([7.0, 8.0, 9.0], ua.VariantType.Double)
