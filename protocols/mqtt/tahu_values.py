"""Values of Sparkplug B's data types in its protobuf fields, and as JSON has them. Pure.

Of templates the members count, of data sets columns, types and rows; bytes are hex, times RFC 3339.
"""

import math
import re
import struct
from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any, Final

from protocols.timestamps import rfc3339

DataType = IntEnum(
    "DataType",
    "Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float Double Boolean String DateTime Text UUID "
    "DataSet Bytes File Template PropertySet PropertySetList Int8Array Int16Array Int32Array Int64Array "
    "UInt8Array UInt16Array UInt32Array UInt64Array FloatArray DoubleArray BooleanArray StringArray "
    "DateTimeArray",
)
"""Numbers of the data types (Sparkplug 3.0.0, chapter 6, Data Types)."""

LATEST_MS: Final = 253402300799999
"""The last millisecond of the year 9999: later times cannot be written in RFC 3339."""
_DEPTH = 8  # of templates in templates
_SIGNED = {DataType.Int8: 8, DataType.Int16: 16, DataType.Int32: 32, DataType.Int64: 64}
_UNSIGNED = {DataType.UInt8: 8, DataType.UInt16: 16, DataType.UInt32: 32, DataType.UInt64: 64}
_TEXTS = (DataType.String, DataType.Text, DataType.UUID)
_PACKED: Final = {
    DataType.Int8Array: "b",
    DataType.Int16Array: "h",
    DataType.Int32Array: "i",
    DataType.Int64Array: "q",
    DataType.UInt8Array: "B",
    DataType.UInt16Array: "H",
    DataType.UInt32Array: "I",
    DataType.UInt64Array: "Q",
    DataType.FloatArray: "f",
    DataType.DoubleArray: "d",
    DataType.DateTimeArray: "q",
}


class Malformed(ValueError):
    """Bytes that are no Sparkplug B payload, or a value that is not of its type."""


def integers(datatype: int) -> tuple[int, int] | None:
    """The least and the largest value of an integer type; None: it is another."""
    if (bits := _SIGNED.get(datatype)) is not None:  # type: ignore[call-overload]  # an IntEnum's key is an int
        return -(1 << bits - 1), (1 << bits - 1) - 1
    if (bits := _UNSIGNED.get(datatype)) is not None:  # type: ignore[call-overload]  # as above
        return 0, (1 << bits) - 1
    return None


def value_of(held: Any, datatype: int, depth: int = 0) -> Any:
    """The value that a message holds in its oneof, read as a type.

    Raises:
        Malformed: it is not of that type, or of a type that has no value here.
    """
    field = held.WhichOneof("value")
    raw: Any = getattr(held, field) if field is not None else None
    match datatype:
        case (
            DataType.Int8
            | DataType.Int16
            | DataType.Int32
            | DataType.Int64
            | DataType.UInt8
            | DataType.UInt16
            | DataType.UInt32
            | DataType.UInt64
        ) if field in ("int_value", "long_value"):
            return _integer(raw, datatype, 32 if field == "int_value" else 64)
        case DataType.Float | DataType.Double if field in ("float_value", "double_value"):
            return raw
        case DataType.Boolean if field == "boolean_value":
            return raw
        case DataType.String | DataType.Text | DataType.UUID if field == "string_value":
            return raw
        case DataType.DateTime if field == "long_value":
            return _time(raw)
        case DataType.Bytes | DataType.File if field == "bytes_value":
            return raw.hex()
        case DataType.DataSet if field == "dataset_value":
            return _data_set(raw)
        case DataType.Template if field == "template_value" and depth < _DEPTH:
            return _template(raw, depth + 1)
        case _ if datatype in set(DataType) and datatype >= DataType.Int8Array and field == "bytes_value":
            return _array(raw, datatype)
    raise Malformed(f"{field} is no value of data type {datatype}")


def _integer(raw: int, datatype: int, width: int) -> int:
    """Signed types are two's complement, of their own width or sign-extended to the field's."""
    lowest, highest = integers(datatype) or (0, 0)
    value = raw
    if lowest < 0:
        bits = highest.bit_length() + 1
        for sign in (bits, width):
            if raw >> (sign - 1) == 1:
                value = raw - (1 << sign)
                break
    if not lowest <= value <= highest:
        raise Malformed(f"{raw} is no value of data type {DataType(datatype).name}")
    return value


def _time(milliseconds: int) -> str:
    if not 0 <= milliseconds <= LATEST_MS:
        raise Malformed(f"{milliseconds} ms since 1970 is no time")
    return rfc3339(milliseconds * 1_000_000)


def _json(value: Any) -> Any:
    """A value inside of an array or an object, where JSON has no NaN and no infinity: null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _array(raw: bytes, datatype: int) -> list[Any]:
    if datatype == DataType.BooleanArray:
        if len(raw) < 4 or (count := int.from_bytes(raw[:4], "little")) > 8 * (len(raw) - 4):
            raise Malformed("a BooleanArray is shorter than it says")
        return [bool(raw[4 + place // 8] >> (7 - place % 8) & 1) for place in range(count)]
    if datatype == DataType.StringArray:
        if raw and raw[-1]:
            raise Malformed("a StringArray does not end with a zero byte")
        return [text.decode() for text in raw.split(b"\0")[:-1]]
    code = _PACKED[DataType(datatype)]
    values = [value for (value,) in struct.iter_unpack(f"<{code}", raw)]
    return (
        [_time(one) for one in values] if datatype == DataType.DateTimeArray else [_json(v) for v in values]
    )


def _data_set(raw: Any) -> dict[str, Any]:
    columns, types = list(raw.columns), list(raw.types)
    rows = [[None if not e.WhichOneof("value") else e for e in row.elements] for row in raw.rows]
    if len(columns) != len(types) or any(len(row) != len(types) for row in rows):
        raise Malformed("a DataSet has rows, columns and types of different lengths")
    return {
        "columns": columns,
        "types": [_name(one) for one in types],
        "rows": [
            [None if e is None else _json(value_of(e, t, _DEPTH)) for e, t in zip(row, types, strict=True)]
            for row in rows
        ],
    }


def _name(datatype: int) -> str:
    try:
        return DataType(datatype).name
    except ValueError as error:
        raise Malformed(f"{datatype} is no data type") from error


def _template(raw: Any, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if raw.HasField("template_ref"):
        made["template"] = raw.template_ref
    if raw.HasField("version"):
        made["version"] = raw.version
    for name, parts, kind in (("metrics", raw.metrics, "datatype"), ("parameters", raw.parameters, "type")):
        if len({part.name for part in parts}) < len(parts):
            raise Malformed(f"a Template has two {name} of one name")
        if parts or name == "metrics":
            made[name] = {
                part.name: None
                if part.WhichOneof("value") is None
                else _json(value_of(part, getattr(part, kind), depth))
                for part in parts
            }
    return made


def put(held: Any, datatype: int, value: Any) -> None:
    """Writes a value as its type.

    Raises:
        Malformed: it is not of that type, or out of its range.
    """
    try:
        _written(held, datatype, value)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed(f"{value!r:.60} is no value of data type {_name(datatype)}") from error


def _written(held: Any, datatype: int, value: Any) -> None:
    limits = integers(datatype)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if limits is not None and isinstance(value, int) and number:
        lowest, highest = limits
        if not lowest <= value <= highest:
            raise Malformed(f"{value} does not fit into {_name(datatype)}: {lowest} to {highest}")
        if highest.bit_length() > 32:
            held.long_value = value & 0xFFFFFFFFFFFFFFFF
        else:
            held.int_value = value & 0xFFFFFFFF
    elif datatype == DataType.Float and number:
        struct.pack("<f", value)  # raises what float_value would silently make an infinity of
        held.float_value = value
    elif datatype == DataType.Double and number:
        held.double_value = value
    elif datatype == DataType.Boolean and isinstance(value, bool):
        held.boolean_value = value
    elif datatype in _TEXTS and isinstance(value, str):
        held.string_value = value
    elif datatype == DataType.DateTime:
        held.long_value = _milliseconds(value)
    elif datatype in (DataType.Bytes, DataType.File) and isinstance(value, str):
        held.bytes_value = bytes.fromhex(value)
    elif datatype == DataType.DataSet and isinstance(value, dict):
        _put_data_set(held.dataset_value, value)
    elif datatype in set(DataType) and datatype >= DataType.Int8Array and isinstance(value, list):
        held.bytes_value = _packed(value, datatype)
    elif datatype == DataType.Template:
        raise Malformed("a Template is not written: its members have types that the value does not say")
    else:
        raise Malformed(f"{value!r:.60} is no value of data type {_name(datatype)}")


_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _milliseconds(value: Any) -> int:
    if isinstance(value, str) and _TIME.fullmatch(value):
        seconds, dot, rest = value.partition(".")
        digits = rest.rstrip("Zz").partition("+")[0].partition("-")[0] if dot else "0"
        whole = datetime.fromisoformat((seconds + rest[len(digits) :]) if dot else value).timestamp()
        milliseconds = int(whole) * 1000 + int(digits[:3].ljust(3, "0"))
    elif isinstance(value, int) and not isinstance(value, bool):
        milliseconds = value
    else:
        raise Malformed(f"{value!r:.60} is no time: RFC 3339, or milliseconds since 1970")
    if not 0 <= milliseconds <= LATEST_MS:
        raise Malformed(f"{value!r:.60} is not a time from 1970 to 9999")
    return milliseconds


def _packed(values: list[Any], datatype: int) -> bytes:
    if datatype == DataType.BooleanArray:
        if not all(isinstance(value, bool) for value in values):
            raise Malformed("a BooleanArray holds booleans")
        bits = sum(value << place // 8 * 8 + 7 - place % 8 for place, value in enumerate(values))
        held: bytes = bits.to_bytes((len(values) + 7) // 8, "little")
        return len(values).to_bytes(4, "little") + held
    if datatype == DataType.StringArray:
        if any(not isinstance(value, str) or "\0" in value for value in values):
            raise Malformed("a StringArray holds texts without zero bytes")
        return b"".join(value.encode() + b"\0" for value in values)
    if any(isinstance(value, bool) for value in values):
        raise Malformed(f"a {_name(datatype)} holds no booleans")
    if datatype == DataType.DateTimeArray:
        values = [_milliseconds(value) for value in values]
    packed: bytes = struct.pack(f"<{len(values)}{_PACKED[DataType(datatype)]}", *values)
    return packed


def _put_data_set(held: Any, value: Mapping[str, Any]) -> None:
    columns, types, rows = (value.get(part) for part in ("columns", "types", "rows"))
    if not (isinstance(columns, list) and isinstance(types, list) and isinstance(rows, list)):
        raise Malformed("a DataSet has columns, types and rows, each a list")
    if any(not isinstance(row, list) or len(row) != len(types) for row in rows) or len(columns) != len(types):
        raise Malformed("a DataSet has rows, columns and types of different lengths")
    numbers = [_number(name) for name in types]
    held.num_of_columns = len(columns)
    held.columns.extend(columns)
    held.types.extend(numbers)
    for row in rows:
        elements = held.rows.add().elements
        for datatype, one in zip(numbers, row, strict=True):
            element = elements.add()
            if one is not None:
                put(element, datatype, one)


def _number(name: Any) -> int:
    kinds: Mapping[str, DataType] = DataType.__members__
    if not isinstance(name, str) or name not in kinds or kinds[name] > DataType.Text:
        raise Malformed(f"{name!r:.60} is no data type of a DataSet's column")
    return kinds[name]
