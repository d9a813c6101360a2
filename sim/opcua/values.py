"""What simulated nodes hold: the types of points, and values of points as the server's and back. Pure."""

import base64
import datetime
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final, cast

from asyncua import ua
from asyncua.ua.uaerrors import UaError

from protocols.base import Value
from protocols.opcua.point import BuiltIn, OpcuaPoint

_INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "SByte": (-(2**7), 2**7 - 1),
    "Byte": (0, 2**8 - 1),
    "Int16": (-(2**15), 2**15 - 1),
    "UInt16": (0, 2**16 - 1),
    "Int32": (-(2**31), 2**31 - 1),
    "UInt32": (0, 2**32 - 1),
    "Int64": (-(2**63), 2**63 - 1),
    "UInt64": (0, 2**64 - 1),
}
"""Least and greatest."""
_NODE_ID: Final = re.compile(r"(?:(ns)=(\d+);|(nsu)=([^;]+);)?([isgb])=(.*)", re.DOTALL)


def built_in(point: OpcuaPoint) -> BuiltIn:
    """The type of a point's value, or of an array's elements: the profile's, or one that suits."""
    if point.data_type is not None:
        return point.data_type
    match point.type:
        case "number" | "array":
            return "Double"
        case "integer":
            return "Int64"
        case "boolean":
            return _type_of(point.true_as) if point.true_as is not None else "Boolean"
        case "enumeration":
            return "Int32" if all(isinstance(raw, int) for raw in point.labels or ()) else "String"
        case "object":
            return "ExtensionObject"
    return "String"


def _type_of(value: Any) -> BuiltIn:
    """The type of a value as JSON has it."""
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, int):
        return "Int64"
    return "Double" if isinstance(value, float) else "String"


def fields_of(point: OpcuaPoint, value: Any) -> Mapping[str, BuiltIn]:
    """The fields of the structure that an object is: the profile's, or those of its first value."""
    if point.fields is not None:
        return point.fields
    return {name: _type_of(part) for name, part in value.items()} if isinstance(value, dict) else {}


def now() -> ua.DateTime:
    """The time, as the server takes it."""
    return cast(ua.DateTime, datetime.datetime.now(datetime.UTC))


def zero(kind: str) -> Any:
    """What a node of a built-in type holds before anything else is said."""
    match kind:
        case "Boolean":
            return False
        case "DateTime":
            return now()
        case "Guid":
            return uuid.UUID(int=0)
        case "ByteString":
            return b""
        case "String" | "XmlElement":
            return ""
        case "ExtensionObject" | "Variant" | "DataValue" | "DiagnosticInfo":
            return None
        case "NodeId":
            return ua.NodeId()
        case "ExpandedNodeId":
            return ua.ExpandedNodeId()
        case "StatusCode":
            return ua.StatusCode()
        case "QualifiedName":
            return ua.QualifiedName("")
        case "LocalizedText":
            return ua.LocalizedText("")
    return 0 if kind in _INTEGERS else 0.0


def to_server(value: Any, kind: str) -> Any:
    """A value as JSON has it, as one of a built-in type; lists by their elements.

    What cannot be one is the type's zero: a simulation has nobody to tell, and goes on.
    """
    if isinstance(value, list):
        return [to_server(part, kind) for part in value]
    try:
        return _converted(value, kind)
    except (TypeError, ValueError, OverflowError, UaError):
        return zero(kind)


def _converted(value: Any, kind: str) -> Any:
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        return max(low, min(high, round(value)))
    match kind:
        case "Boolean":
            return bool(value)
        case "Float" | "Double":
            return float(value)
        case "DateTime":
            return datetime.datetime.fromisoformat(str(value))
        case "Guid":
            return uuid.UUID(str(value))
        case "ByteString":
            return bytes.fromhex(str(value))
        case "NodeId":
            return node_id(str(value), {})
        case "StatusCode":
            return ua.StatusCode(ua.UInt32(value))
        case "QualifiedName":
            return qualified_name(str(value), {})
        case "LocalizedText":
            if isinstance(value, dict):
                return ua.LocalizedText(value.get("text"), value.get("locale"))
            return ua.LocalizedText(str(value))
        case "Variant":
            return ua.Variant(value)
        case "String" | "XmlElement":
            return str(value)
    raise ValueError(f"no {kind} is simulated")


def raw_of(point: OpcuaPoint, value: Value) -> Any:
    """A point's engineering value as its node holds it; an enumeration's label is its number."""
    raw = point.raw(value)
    if point.type == "enumeration" and built_in(point) != "String":
        return int(raw)
    return raw


def node_id(text: str, namespaces: Mapping[str, int]) -> ua.NodeId:
    """The node id of a text (OPC 10000-6); `namespaces`: indexes by URI.

    Raises:
        ValueError: it is none, or of an unknown namespace.
    """
    found = _NODE_ID.fullmatch(text)
    if found is None:
        raise ValueError(f"{text} is no node id")
    _, number, _, uri, letter, identifier = found.groups()
    if uri is not None and uri not in namespaces:
        raise ValueError(f"{text}: no such namespace")
    index = ua.Int16(namespaces[uri] if uri is not None else number or 0)
    match letter:
        case "i":
            return ua.NodeId(ua.Int32(identifier), index)
        case "g":
            return ua.NodeId(cast(ua.Guid, uuid.UUID(identifier)), index)
        case "b":
            return ua.NodeId(ua.ByteString(base64.b64decode(identifier)), index)
    return ua.NodeId(ua.String(identifier), index)


def qualified_name(text: str, namespaces: Mapping[str, int]) -> ua.QualifiedName:
    """The browse name of a text such as `2:Speed`, `nsu=urn:plant.example;Speed` or `Server`.

    Raises:
        ValueError: its namespace is unknown.
    """
    if text.startswith("nsu="):
        uri, _, name = text[4:].partition(";")
        if uri not in namespaces:
            raise ValueError(f"{text}: no such namespace")
        return ua.QualifiedName(name, ua.UInt16(namespaces[uri]))
    number, colon, name = text.partition(":")
    if colon and number.isascii() and number.isdecimal():
        return ua.QualifiedName(name, ua.UInt16(number))
    return ua.QualifiedName(text)
