"""AMQP 1.0's type system (part 1): Python values to bytes and back.

Python's own types stand for the AMQP types that are most like them; the subclasses here for those that would
be lost otherwise. What is decoded encodes again to the same value of the same type, but for arrays: they come
back as lists.
"""

import struct
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

MAX_DEPTH = 16
"""How deep lists, maps, arrays and described values may nest."""


class CodecError(ValueError):
    """The bytes are no AMQP message, or the value has no place in one."""


class Timestamp(int):
    """Milliseconds since 1970, UTC."""


class UByte(int):
    """0 to 255."""


class UShort(int):
    """0 to 65,535."""


class UInt(int):
    """0 to 2**32 - 1."""


class ULong(int):
    """0 to 2**64 - 1."""


class Byte(int):
    """-128 to 127."""


class Short(int):
    """-32,768 to 32,767."""


class Int(int):
    """32 bits, signed. A plain Python int is AMQP's `long`: 64 bits."""


class Float32(float):
    """Single precision."""


class Char(str):
    """One Unicode character."""


class Symbol(str):
    """ASCII text of a constrained domain."""


class Opaque(msgspec.Struct, frozen=True):
    """A value that is carried and not looked into: the decimal types. `data` as on the wire."""

    code: int
    data: bytes


class Described(msgspec.Struct, frozen=True):
    """A value with a descriptor, which says what it is."""

    descriptor: Any
    value: Any


PropertyValue: TypeAlias = bool | int | float | str | bytes | uuid.UUID | Opaque | None
"""A simple type: what an application property may hold (part 3, section 3.2.5)."""

# Encoding


def encode_string(text: str) -> bytes:
    """A string, in its shortest form."""
    raw = text.encode()
    size = len(raw)
    return b"\xa1%c%b" % (size, raw) if size < 256 else b"\xb1%b%b" % (size.to_bytes(4, "big"), raw)


def encode_binary(data: bytes) -> bytes:
    """A binary, in its shortest form."""
    size = len(data)
    return b"\xa0%c%b" % (size, data) if size < 256 else b"\xb0%b%b" % (size.to_bytes(4, "big"), data)


def encode_symbol(text: str) -> bytes:
    """A symbol, in its shortest form."""
    raw = text.encode("ascii")
    size = len(raw)
    return b"\xa3%c%b" % (size, raw) if size < 256 else b"\xb3%b%b" % (size.to_bytes(4, "big"), raw)


def encode_long(value: int) -> bytes:
    """A signed 64-bit integer."""
    if -128 <= value <= 127:
        return b"\x55%c" % (value & 0xFF)
    return b"\x81" + value.to_bytes(8, "big", signed=True)


def encode_ulong(value: int) -> bytes:
    """An unsigned 64-bit integer."""
    if 0 < value < 256:
        return b"\x53%c" % value
    return b"\x80" + value.to_bytes(8, "big") if value else b"\x44"


def encode_uint(value: int) -> bytes:
    """An unsigned 32-bit integer."""
    if 0 < value < 256:
        return b"\x52%c" % value
    return b"\x70" + value.to_bytes(4, "big") if value else b"\x43"


def encode_timestamp(milliseconds: int) -> bytes:
    """A point in time."""
    return b"\x83" + milliseconds.to_bytes(8, "big", signed=True)


def _encode_int(value: int) -> bytes:
    return (
        b"\x54%c" % (value & 0xFF)
        if -128 <= value <= 127
        else b"\x71" + value.to_bytes(4, "big", signed=True)
    )


def _compound(code: int, count: int, body: bytes) -> bytes:
    """A list (code 0xC0) or map (0xC1): size and count in one byte each where they fit, else in four."""
    if len(body) < 255 and count < 256:
        return b"%c%c%c%b" % (code, len(body) + 1, count, body)
    return b"%c%b%b%b" % (code + 0x10, (len(body) + 4).to_bytes(4, "big"), count.to_bytes(4, "big"), body)


def encode_fields(fields: list[bytes]) -> bytes:
    """A list of encoded values; empty ones stand for null, and are left out at the end."""
    while fields and not fields[-1]:
        fields.pop()
    if not fields:
        return b"\x45"
    return _compound(0xC0, len(fields), b"".join([field or b"\x40" for field in fields]))


def encode_pairs(parts: list[bytes]) -> bytes:
    """A map of encoded keys and values, one after the other."""
    return _compound(0xC1, len(parts), b"".join(parts))


def _encode_list(values: list[Any]) -> bytes:
    return (
        _compound(0xC0, len(values), b"".join([encode_value(value) for value in values]))
        if values
        else b"\x45"
    )


def _encode_map(values: dict[Any, Any]) -> bytes:
    return encode_pairs([encode_value(item) for pair in values.items() for item in pair])


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: encode_string,
    int: encode_long,
    bool: lambda value: b"\x41" if value else b"\x42",
    float: lambda value: b"\x82" + struct.pack(">d", value),
    bytes: encode_binary,
    type(None): lambda _: b"\x40",
    Timestamp: encode_timestamp,
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    UByte: lambda value: b"\x50" + value.to_bytes(1, "big"),
    UShort: lambda value: b"\x60" + value.to_bytes(2, "big"),
    UInt: encode_uint,
    ULong: encode_ulong,
    Byte: lambda value: b"\x51" + value.to_bytes(1, "big", signed=True),
    Short: lambda value: b"\x61" + value.to_bytes(2, "big", signed=True),
    Int: _encode_int,
    Float32: lambda value: b"\x72" + struct.pack(">f", value),
    Char: lambda value: b"\x73" + ord(value).to_bytes(4, "big"),
    Symbol: encode_symbol,
    Opaque: lambda value: bytes([value.code]) + value.data,
    Described: lambda value: b"\0" + encode_value(value.descriptor) + encode_value(value.value),
    list: _encode_list,
    dict: _encode_map,
}


def encode_value(value: Any) -> bytes:
    """Any value, by its Python type.

    Raises:
        CodecError: the type has no AMQP counterpart.
        OverflowError, UnicodeEncodeError, struct.error: it is out of its type's range.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise CodecError(f"a {type(value).__name__} is no AMQP value")
    return encoder(value)


# Decoding

_FIXED: dict[int, tuple[int, Callable[[bytes], Any]]] = {
    0x40: (0, lambda raw: None),
    0x41: (0, lambda raw: True),
    0x42: (0, lambda raw: False),
    0x43: (0, lambda raw: UInt(0)),
    0x44: (0, lambda raw: ULong(0)),
    0x45: (0, lambda raw: []),
    0x50: (1, lambda raw: UByte(raw[0])),
    0x51: (1, lambda raw: Byte(_signed(raw))),
    0x52: (1, lambda raw: UInt(raw[0])),
    0x53: (1, lambda raw: ULong(raw[0])),
    0x54: (1, lambda raw: Int(_signed(raw))),
    0x55: (1, lambda raw: _signed(raw)),
    0x56: (1, lambda raw: _boolean(raw)),
    0x60: (2, lambda raw: UShort(int.from_bytes(raw, "big"))),
    0x61: (2, lambda raw: Short(_signed(raw))),
    0x70: (4, lambda raw: UInt(int.from_bytes(raw, "big"))),
    0x71: (4, lambda raw: Int(_signed(raw))),
    0x72: (4, lambda raw: Float32(struct.unpack(">f", raw)[0])),
    0x73: (4, lambda raw: _character(raw)),
    0x74: (4, lambda raw: Opaque(0x74, raw)),
    0x80: (8, lambda raw: ULong(int.from_bytes(raw, "big"))),
    0x81: (8, lambda raw: _signed(raw)),
    0x82: (8, lambda raw: struct.unpack(">d", raw)[0]),
    0x83: (8, lambda raw: Timestamp(_signed(raw))),
    0x84: (8, lambda raw: Opaque(0x84, raw)),
    0x94: (16, lambda raw: Opaque(0x94, raw)),
    0x98: (16, lambda raw: uuid.UUID(bytes=raw)),
}
_VARIABLE: dict[int, tuple[int, Callable[[bytes], Any]]] = {
    0xA0: (1, lambda raw: raw),
    0xA1: (1, lambda raw: raw.decode()),
    0xA3: (1, lambda raw: Symbol(raw.decode("ascii"))),
    0xB0: (4, lambda raw: raw),
    0xB1: (4, lambda raw: raw.decode()),
    0xB3: (4, lambda raw: Symbol(raw.decode("ascii"))),
}
_COMPOUND = {0xC0: 1, 0xC1: 1, 0xD0: 4, 0xD1: 4, 0xE0: 1, 0xF0: 4}


def _signed(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _boolean(raw: bytes) -> bool:
    if raw[0] > 1:
        raise CodecError("a boolean that is neither true nor false")
    return raw[0] == 1


def _character(raw: bytes) -> Char:
    number = int.from_bytes(raw, "big")
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise CodecError("a character that Unicode does not have")
    return Char(chr(number))


def decode_value(data: bytes, at: int = 0, depth: int = MAX_DEPTH) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends.

    Raises:
        CodecError: it is nested too deeply, or no AMQP value.
        IndexError: it is cut short.
        UnicodeDecodeError: text in it is not UTF-8, or ASCII in a symbol.
    """
    return _decode_content(data[at], data, at + 1, depth)


def _decode_content(code: int, data: bytes, at: int, depth: int) -> tuple[Any, int]:
    fixed = _FIXED.get(code)
    if fixed is not None:
        end = at + fixed[0]
        if end > len(data):
            raise IndexError
        return fixed[1](data[at:end]), end
    variable = _VARIABLE.get(code)
    if variable is not None:
        width = variable[0]
        start = at + width
        end = start + (data[at] if width == 1 else int.from_bytes(data[at:start], "big"))
        if end > len(data):
            raise IndexError
        return variable[1](data[start:end]), end
    if depth <= 0:
        raise CodecError(f"values are nested deeper than {MAX_DEPTH}")
    if code == 0x00:
        descriptor, at = decode_value(data, at, depth - 1)
        value, at = decode_value(data, at, depth - 1)
        return Described(descriptor, value), at
    if code in _COMPOUND:
        return _decode_compound(code, data, at, depth - 1)
    raise CodecError(f"0x{code:02x} begins no AMQP value")


def _decode_compound(code: int, data: bytes, at: int, depth: int) -> tuple[Any, int]:
    width = _COMPOUND[code]
    start = at + 2 * width
    end = at + width + int.from_bytes(data[at : at + width], "big")
    if not start <= end <= len(data):
        raise IndexError
    count = int.from_bytes(data[at + width : start], "big")
    if count > end - start:  # also for arrays of zero-width items, which could claim four billion
        raise CodecError("a list, map or array claims more items than it has bytes")
    items: list[Any] = []
    at = start
    if code in (0xE0, 0xF0):
        items, at = _decode_array(data, start, count, depth)
    else:
        for _ in range(count):
            constructor = data[at]
            if constructor == 0xA1:  # short strings are most of what a message holds: no call for them
                string_end = at + 2 + data[at + 1]
                items.append(data[at + 2 : string_end].decode())
                at = string_end
            else:
                item, at = _decode_content(constructor, data, at + 1, depth)
                items.append(item)
    if at != end:
        raise CodecError("a list, map or array is not as long as its items")
    return (_pairs(items), end) if code in (0xC1, 0xD1) else (items, end)


def _decode_array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    code = data[at]
    at += 1
    descriptor = None
    described = code == 0x00
    if described:
        descriptor, at = decode_value(data, at, depth)
        code = data[at]
        at += 1
    items = []
    for _ in range(count):
        item, at = _decode_content(code, data, at, depth)
        items.append(Described(descriptor, item) if described else item)
    return items, at


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise CodecError("a map with a key and no value")
    try:
        return dict(zip(items[::2], items[1::2], strict=True))
    except TypeError as error:
        raise CodecError("a map with a key that is no simple value") from error
