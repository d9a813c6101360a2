"""OPC UA values of what JSON has for them, in the type that the server wants: the way back of `to_json`."""

import math
import re
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import pack_uatype

from protocols.opcua.nodes import resolved
from protocols.opcua.point import NODE_ID
from protocols.opcua.structures import MOST_DEPTH, DataType, Dictionary, Field, Structure, Unfit

_BITS: Final = {
    ua.VariantType.SByte: 8,
    ua.VariantType.Byte: 8,
    ua.VariantType.Int16: 16,
    ua.VariantType.UInt16: 16,
    ua.VariantType.Int32: 32,
    ua.VariantType.UInt32: 32,
    ua.VariantType.Int64: 64,
    ua.VariantType.UInt64: 64,
}
_SIGNED: Final = frozenset(
    {ua.VariantType.SByte, ua.VariantType.Int16, ua.VariantType.Int32, ua.VariantType.Int64}
)
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FIRST, _LAST = datetime(1601, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_NULLS: Final[Mapping[ua.VariantType, Any]] = {
    ua.VariantType.String: None,
    ua.VariantType.ByteString: None,
    ua.VariantType.ExtensionObject: None,
    ua.VariantType.LocalizedText: ua.LocalizedText(),
    ua.VariantType.DateTime: _FIRST,
}


def element(value: Any, kind: DataType, dictionary: Dictionary, depth: int = MOST_DEPTH) -> Any:
    """A single value of a type, as asyncua wants it.

    Raises:
        Unfit: the type has no such value.
    """
    if depth <= 0:
        raise Unfit(f"more than {MOST_DEPTH} values lie within each other")
    if kind.structure is not None and not kind.structure.encoding.is_null():
        body = _body(value, kind.structure, dictionary, depth)
        return ua.ExtensionObject(TypeId=kind.structure.encoding, Body=ua.ByteString(body))
    if value is None and kind.built_in in _NULLS:
        return _NULLS[kind.built_in]
    if kind.built_in in _BITS:
        return _integer(value, kind.built_in)
    match kind.built_in:
        case ua.VariantType.ExtensionObject:
            return _extension(value, dictionary, depth)
        case ua.VariantType.Variant:
            return variant(value, dictionary, depth - 1)
        case ua.VariantType.DataValue:
            return ua.DataValue(variant(value, dictionary, depth - 1))
        case ua.VariantType.NodeId | ua.VariantType.ExpandedNodeId:
            return node_id(_text(value, "a node id"), dictionary.namespaces)
        case ua.VariantType.QualifiedName:
            return _qualified_name(_text(value, "a qualified name"), dictionary.namespaces)
    parse = _PARSERS.get(kind.built_in)
    if parse is None:
        raise Unfit(f"a {kind.built_in.name} cannot be written")
    return parse(value)


def array(value: Any, rank: int, kind: DataType, dictionary: Dictionary, depth: int = MOST_DEPTH) -> Any:
    """Elements in an array of `rank` dimensions, 0 of a single value.

    Raises:
        Unfit: it has not as many dimensions, its rows differ in length, or an element does not fit.
    """
    if rank == 0:
        return element(value, kind, dictionary, depth)
    shape_of(value, rank)
    return [array(one, rank - 1, kind, dictionary, depth - 1) for one in value]


def shape_of(value: Any, rank: int) -> list[int]:
    """How long an array is in each of its dimensions.

    Raises:
        Unfit: it has not as many dimensions, or its rows differ in length.
    """
    if not isinstance(value, list):
        raise Unfit(
            f"{value!r:.60} is no array" if rank == 1 else f"{value!r:.60} is no array of {rank} dimensions"
        )
    if rank <= 1:
        return [len(value)]
    shapes = [shape_of(one, rank - 1) for one in value]
    if any(one != shapes[0] for one in shapes):
        raise Unfit("the rows of the array differ in length")
    return [len(value), *(shapes[0] if shapes else [0] * (rank - 1))]


def variant(value: Any, dictionary: Dictionary, depth: int = MOST_DEPTH) -> ua.Variant:
    """A variant whose type the server leaves open: {"type": "Int16", "value": ...}, else by what JSON has.

    A whole number becomes an Int64, another one a Double.

    Raises:
        Unfit: no type has such a value.
    """
    if isinstance(value, dict) and set(value) == {"type", "value"}:
        built_in = getattr(ua.VariantType, value["type"], None) if isinstance(value["type"], str) else None
        if not isinstance(built_in, ua.VariantType):
            raise Unfit(f"{value['type']!r:.60} is no built-in type")
        value = value["value"]
    else:
        built_in = _guess(value)
    if built_in is ua.VariantType.Null:
        return ua.Variant()
    rank, inner = 0, value
    while isinstance(inner, list):
        rank, inner = rank + 1, inner[0] if inner else None
        if rank > depth:
            raise Unfit(f"more than {MOST_DEPTH} values lie within each other")
    return packed(value, rank, DataType(built_in), dictionary, depth)


def packed(
    value: Any, rank: int, kind: DataType, dictionary: Dictionary, depth: int = MOST_DEPTH
) -> ua.Variant:
    """A variant with an array of `rank` dimensions, or with one value.

    Raises:
        Unfit: as `array`.
    """
    inside = array(value, rank, kind, dictionary, depth)
    dimensions = [ua.Int32(one) for one in shape_of(value, rank)] if rank > 1 else None
    return ua.Variant(inside, kind.built_in, dimensions, is_array=rank > 0)


def _guess(value: Any) -> ua.VariantType:
    while isinstance(value, list):
        mixed = any(isinstance(one, float) for one in value)
        value = 0.5 if mixed else value[0] if value else None
    match value:
        case None:
            return ua.VariantType.Null
        case bool():
            return ua.VariantType.Boolean
        case int():
            return ua.VariantType.Int64
        case float():
            return ua.VariantType.Double
        case str():
            return ua.VariantType.String
    return ua.VariantType.ExtensionObject


def node_id(written: str, namespaces: Sequence[str]) -> ua.NodeId:
    """The node id that a text names, with `nsu=` as the server numbers its namespaces.

    Raises:
        Unfit: it is no node id, or the server has no such namespace.
    """
    found = resolved(written, namespaces) if NODE_ID.fullmatch(written) else None
    if not isinstance(found, ua.NodeId):
        raise Unfit(f"{written!r:.80} is no node id, or has a namespace that the server has not")
    return found


def _qualified_name(written: str, namespaces: Sequence[str]) -> ua.QualifiedName:
    path = resolved([written], namespaces)
    if not isinstance(path, ua.BrowsePath):
        raise Unfit(f"{written!r:.80} has a namespace that the server has not")
    name: ua.QualifiedName = path.RelativePath.Elements[0].TargetName
    return name


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Unfit(f"{value!r:.60} is no {what.removeprefix('a ')}")
    return value


def _integer(value: Any, kind: ua.VariantType) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise Unfit(f"{value!r:.60} is no whole number, as {kind.name} wants")
    bits, signed = _BITS[kind], kind in _SIGNED
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not least <= value <= most:
        raise Unfit(f"{value!r:.60} does not fit {kind.name}: it holds {least} to {most}")
    return int(value)


def _double(value: Any) -> float:
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"{value!r:.60} is no number")
    try:
        return float(value)
    except OverflowError:
        raise Unfit(f"{value!r:.60} is beyond any Double") from None


def _float(value: Any) -> float:
    number = _double(value)
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        raise Unfit(f"{value!r:.60} does not fit Float") from None
    return float(rounded)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"{value!r:.60} is neither true nor false")
    return value


def _string(value: Any) -> str:
    return _text(value, "a text")


def time(value: Any) -> datetime:
    """The time that RFC 3339 writes so.

    Raises:
        Unfit: it is none, has no zone, or is none that OPC UA can hold.
    """
    try:
        parsed = datetime.fromisoformat(_text(value, "a time"))
        if parsed.tzinfo is not None and _FIRST <= parsed <= _LAST:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Unfit(f"{value!r:.60} is no time such as 2026-11-22T18:00:00Z, from 1601 to 9999")


def _guid(value: Any) -> uuid.UUID:
    try:
        return uuid.UUID(_text(value, "a GUID"))
    except ValueError:
        raise Unfit(f"{value!r:.60} is no GUID") from None


def _byte_string(value: Any) -> bytes:
    try:
        return bytes.fromhex(_text(value, "a byte string in hexadecimal"))
    except ValueError:
        raise Unfit(f"{value!r:.60} is no byte string in hexadecimal") from None


def _localized_text(value: Any) -> ua.LocalizedText:
    if isinstance(value, dict) and set(value) <= {"text", "locale"}:
        return ua.LocalizedText(
            _text(value.get("text", ""), "a text"), _text(value.get("locale", ""), "a locale")
        )
    return ua.LocalizedText(_text(value, "a text"))


def _status(value: Any) -> ua.StatusCode:
    if isinstance(value, str):
        unnamed = re.fullmatch(r"0x[0-9A-F]{8}", value)
        code = int(value, 16) if unnamed else getattr(StatusCodes, value, None)
        if not isinstance(code, int):
            raise Unfit(f"{value!r:.60} is not the name of a status code")
        return ua.StatusCode(ua.UInt32(code))
    return ua.StatusCode(ua.UInt32(_integer(value, ua.VariantType.UInt32)))


def _extension(value: Any, dictionary: Dictionary, depth: int) -> ua.ExtensionObject:
    """A structure whose type is left open, or not known: {"type_id": its encoding, "body": hex or fields}."""
    if not isinstance(value, dict) or set(value) != {"type_id", "body"}:
        raise Unfit("the server does not say what the structure has in it: give type_id and body")
    encoding = node_id(_text(value["type_id"], "a node id"), dictionary.namespaces)
    structure = dictionary.structures.get(encoding)
    if structure is not None and isinstance(value["body"], dict):
        body = _body(value["body"], structure, dictionary, depth)
        return ua.ExtensionObject(TypeId=encoding, Body=ua.ByteString(body))
    return ua.ExtensionObject(TypeId=encoding, Body=ua.ByteString(_byte_string(value["body"])))


def _body(value: Any, structure: Structure, dictionary: Dictionary, depth: int) -> bytes:
    if not isinstance(value, Mapping):
        raise Unfit(f"{value!r:.60} is no object, as {structure.name} wants")
    if structure.fields is None:
        raise Unfit(f"the server does not say what {structure.name} has in it")
    known = [one.name for one in structure.fields]
    for name in value:
        if name not in known:
            raise Unfit(f"{structure.name} has no field {name!r:.60}; it has {', '.join(known)}"[:300])
    if structure.union:
        return _union_body(value, structure.fields, dictionary, depth)
    parts: list[bytes] = []
    mask = 0
    bit = 1
    for one in structure.fields:
        there = value.get(one.name) is not None if one.optional else one.name in value
        if one.optional:
            mask, bit = mask | (bit if there else 0), bit << 1
        elif not there:
            raise Unfit(f"{structure.name} needs its field {one.name}")
        if there:
            parts.append(_field_body(value[one.name], one, dictionary, depth))
    if structure.masked:
        parts.insert(0, pack_uatype(ua.VariantType.UInt32, mask))
    return b"".join(parts)


def _union_body(
    value: Mapping[str, Any], fields: Sequence[Field], dictionary: Dictionary, depth: int
) -> bytes:
    if len(value) > 1:
        raise Unfit(f"of {', '.join(value)} a union holds only one"[:300])
    for place, one in enumerate(fields, 1):
        if one.name in value:
            inside = _field_body(value[one.name], one, dictionary, depth)
            return pack_uatype(ua.VariantType.UInt32, place) + inside
    return pack_uatype(ua.VariantType.UInt32, 0)


def _field_body(value: Any, one: Field, dictionary: Dictionary, depth: int) -> bytes:
    kind = one.on_wire

    def pack(single: Any) -> bytes:
        if kind.structure is not None:
            return _body(single, kind.structure, dictionary, depth - 1)
        return pack_uatype(kind.built_in, element(single, kind, dictionary, depth - 1))

    if depth <= 0:
        raise Unfit(f"more than {MOST_DEPTH} values lie within each other")
    try:
        if one.rank == 0:
            return pack(value)
        shape = shape_of(value, one.rank)
        flat = value
        for _ in range(one.rank - 1):
            flat = [single for row in flat for single in row]
        lengths = shape if one.rank == 1 else [one.rank, *shape]
        return b"".join(pack_uatype(ua.VariantType.Int32, length) for length in lengths) + b"".join(
            map(pack, flat)
        )
    except Unfit as error:
        raise Unfit(f"{one.name}: {error}"[:300]) from None


_PARSERS: Final[Mapping[ua.VariantType, Callable[[Any], Any]]] = {
    ua.VariantType.Boolean: _boolean,
    ua.VariantType.Float: _float,
    ua.VariantType.Double: _double,
    ua.VariantType.String: _string,
    ua.VariantType.DateTime: time,
    ua.VariantType.Guid: _guid,
    ua.VariantType.ByteString: _byte_string,
    ua.VariantType.XmlElement: lambda value: ua.XmlElement(ua.String(_text(value, "an XML element"))),
    ua.VariantType.LocalizedText: _localized_text,
    ua.VariantType.StatusCode: _status,
}
