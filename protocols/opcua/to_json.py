"""What JSON has for OPC UA values: all built-in types, arrays, matrices and structures.

Integers are exact. NaN and the infinities are the strings of OPC 10000-6 (JSON data encoding), byte strings
are hex, times RFC 3339, enumerations their number, a localized text its text, status codes their name. Node
ids and qualified names have the URI of their namespace in them, not its index, which may change when the
server starts again.
"""

import base64
import contextlib
import dataclasses
import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua

from protocols.opcua.status import name_of
from protocols.opcua.structures import MOST_DEPTH, Dictionary, Unfit, Unknown, decode

_KINDS: Final = {int: "i", str: "s", bytes: "b", uuid.UUID: "g"}


def to_json(value: Any, dictionary: Dictionary, depth: int = MOST_DEPTH) -> Any:
    """What JSON has for a value as asyncua has it.

    Raises:
        Unfit: it lies deeper than anything does, or it is nothing that OPC UA has.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _SPECIAL[repr(value)]
    if isinstance(value, str):
        return text(value)
    if depth <= 0:
        raise Unfit(f"more than {MOST_DEPTH} values lie within each other")
    if isinstance(value, list | tuple):
        return [to_json(one, dictionary, depth - 1) for one in value]
    if isinstance(value, Mapping):
        return {text(key): to_json(one, dictionary, depth - 1) for key, one in value.items()}
    simple = _simple(value, dictionary)
    return _composite(value, dictionary, depth) if simple is None else simple


_SPECIAL: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def text(value: str) -> str:
    """A text as JSON can hold it: bytes that were no UTF-8 come from asyncua as lone surrogates."""
    if value.isascii():
        return str(value)
    return value.encode(errors="surrogateescape").decode(errors="replace")


def node_text(node: ua.NodeId, namespaces: Sequence[str]) -> str:
    """A node id as profiles have it (OPC 10000-6), by namespace URI where there is one."""
    identifier = node.Identifier
    if isinstance(identifier, bytes):
        written = base64.b64encode(identifier).decode()
    else:
        written = text(str(identifier)) if identifier is not None else ""
    kind = _KINDS.get(str if identifier is None else type(identifier))
    kind = kind or next((one for cls, one in _KINDS.items() if isinstance(identifier, cls)), "s")
    uri, server = None, 0
    if isinstance(node, ua.ExpandedNodeId):
        uri, server = node.NamespaceUri, node.ServerIndex or 0
    return (
        (f"svr={server};" if server else "")
        + _space(node.NamespaceIndex, uri, namespaces)
        + f"{kind}={written}"
    )


def _space(index: int, uri: str | None, namespaces: Sequence[str]) -> str:
    if not uri and 0 < index < len(namespaces):
        uri = namespaces[index]
    if uri:
        return f"nsu={text(uri)};"
    return f"ns={index};" if index else ""


def name_text(name: ua.QualifiedName, namespaces: Sequence[str]) -> str:
    """A qualified name as profiles have it in browse paths."""
    index = name.NamespaceIndex
    written = text(name.Name or "")
    if 0 < index < len(namespaces):
        return f"nsu={text(namespaces[index])};{written}"
    return f"{index}:{written}" if index else written


def time_text(time: datetime) -> str:
    """A time as RFC 3339."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _simple(value: Any, dictionary: Dictionary) -> Any:
    """Of the built-in types that are one text or number; None of all else."""
    match value:
        case bytes():
            return value.hex()
        case datetime():
            return time_text(value)
        case uuid.UUID():
            return str(value)
        case ua.NodeId():
            return node_text(value, dictionary.namespaces)
        case ua.StatusCode():
            return name_of(value.value)
        case ua.QualifiedName():
            return name_text(value, dictionary.namespaces)
        case ua.LocalizedText():
            return text(value.Text or "")
        case ua.XmlElement():
            return text(value.Value or "")
    return None


def _composite(value: Any, dictionary: Dictionary, depth: int) -> Any:
    match value:
        case ua.Variant():
            return to_json(value.Value, dictionary, depth - 1)
        case ua.DataValue():
            return data_value(value, dictionary, depth - 1)
        case ua.ExtensionObject():
            return _extension(value, dictionary, depth)
        case ua.UaUnion():
            return _union(value, dictionary, depth)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise Unfit(f"a {type(value).__name__} is no value of OPC UA")
    fields = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
    return {
        text(name): to_json(one, dictionary, depth - 1)
        for name, one in fields
        if name != "Encoding" and one is not None
    }


def data_value(data: ua.DataValue, dictionary: Dictionary, depth: int = MOST_DEPTH) -> dict[str, Any]:
    """A value with its status, where that is not plain good, and its times."""
    said: dict[str, Any] = {"value": to_json(data.Value, dictionary, depth)}
    if data.StatusCode is not None and data.StatusCode.value:
        said["status"] = name_of(data.StatusCode.value)
    if data.SourceTimestamp is not None:
        said["source_time"] = time_text(data.SourceTimestamp)
    if data.ServerTimestamp is not None:
        said["server_time"] = time_text(data.ServerTimestamp)
    return said


def _extension(value: ua.ExtensionObject, dictionary: Dictionary, depth: int) -> Any:
    if value.TypeId.is_null() and not value.Body:
        return None
    structure = dictionary.structures.get(value.TypeId)
    if structure is not None and value.Body is not None:
        with contextlib.suppress(Unknown):  # then it is given as it came
            return to_json(decode(value.Body, structure), dictionary, depth - 1)
    return {"type_id": node_text(value.TypeId, dictionary.namespaces), "body": (value.Body or b"").hex()}


def _union(value: Any, dictionary: Dictionary, depth: int) -> Any:
    chosen = value.Encoding
    names = [name for name, one in vars(type(value)).items() if isinstance(one, property)]
    if not 0 < chosen <= len(names):
        return {}
    return {text(names[chosen - 1]): to_json(value.Value, dictionary, depth - 1)}
