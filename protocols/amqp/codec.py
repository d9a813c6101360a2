"""AMQP 1.0 messages (part 3, section 3.2), as bytes and as values. Pure.

Bare sections only, and no object per section: an event is encoded thousands of times a second.
"""

import functools
import struct
import uuid
from typing import Any, Literal, TypeAlias

import msgspec

from protocols.amqp.types import (
    CodecError,
    Described,
    Int,
    PropertyValue,
    Symbol,
    Timestamp,
    ULong,
    decode_value,
    encode_binary,
    encode_fields,
    encode_pairs,
    encode_string,
    encode_symbol,
    encode_timestamp,
    encode_uint,
    encode_ulong,
    encode_value,
)

__all__ = [
    "CodecError",
    "Int",
    "Message",
    "MessageId",
    "PropertyValue",
    "Symbol",
    "Timestamp",
    "ULong",
    "decode",
    "encode",
    "encode_header",
]

MessageId: TypeAlias = str | ULong | uuid.UUID | bytes
"""A message's identity in its own AMQP type, so that it can be echoed exactly (part 3, section 3.2.11-14)."""

BodyKind: TypeAlias = Literal["data", "string", "binary", "other", "none"]

_HEADER, _DELIVERY, _ANNOTATIONS, _PROPERTIES, _APPLICATION = 0x70, 0x71, 0x72, 0x73, 0x74
_DATA, _SEQUENCE, _VALUE, _FOOTER = 0x75, 0x76, 0x77, 0x78


_NOT_SIMPLE = (list, dict, Described)


class Message(msgspec.Struct):
    """A message that was decoded, or is to be encoded. None: the field is absent."""

    body: bytes = b""
    """The data sections, or the bytes of a value section that is a string or binary."""
    body_kind: BodyKind = "data"
    """What it was; `body` is empty where this is `other` (a sequence, another value) or `none` (no body)."""
    durable: bool = False
    priority: int | None = None
    """0 to 9; absent means 4."""
    ttl_ms: int | None = None
    delivery_count: int = 0
    """Unsuccessful attempts to deliver it before."""
    message_id: MessageId | None = None
    user_id: bytes | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    correlation_id: MessageId | None = None
    content_type: str | None = None
    absolute_expiry_ms: int | None = None
    creation_ms: int | None = None
    properties: dict[str, PropertyValue] = {}
    """Application properties."""
    annotations: dict[Any, Any] = {}
    """Message annotations; keys are symbols (written as str) or ulongs."""


def encode(message: Message, value: dict[Any, Any] | None = None) -> bytes:
    """The message as sections, ready for a transfer. `durable` is always said, and there is always a body.

    `value` is a value section to be the body instead of the message's own.

    Raises:
        CodecError: a field's value has no place in a message.
    """
    try:
        return b"".join(
            [
                encode_header(message.durable, message.priority, message.ttl_ms, message.delivery_count),
                _encode_annotations(message.annotations) if message.annotations else b"",
                _encode_properties(message),
                _encode_application(message.properties) if message.properties else b"",
                _encode_body(message) if value is None else b"\0\x53\x77" + encode_value(value),
            ]
        )
    except (OverflowError, UnicodeError, struct.error, AttributeError, TypeError) as error:
        raise CodecError(f"a field cannot be encoded: {error}") from error


def encode_header(durable: bool, priority: int | None, ttl_ms: int | None, delivery_count: int) -> bytes:
    """A header section. An intermediary may replace a message's header and nothing else of it."""
    fields = [
        b"\x41" if durable else b"\x42",
        b"" if priority is None else b"\x50%c" % priority,
        b"" if ttl_ms is None else encode_uint(ttl_ms),
        b"",
        encode_uint(delivery_count) if delivery_count else b"",
    ]
    return b"\0\x53\x70" + encode_fields(fields)


def _encode_id(identity: MessageId | None) -> bytes:
    if identity is None:
        return b""
    if type(identity) is str:
        return encode_string(identity)
    return encode_ulong(identity) if isinstance(identity, int) else encode_value(identity)


def _encode_properties(message: Message) -> bytes:
    fields = [
        _encode_id(message.message_id),
        b"" if message.user_id is None else encode_binary(message.user_id),
        b"" if message.to is None else encode_string(message.to),
        b"" if message.subject is None else encode_string(message.subject),
        b"" if message.reply_to is None else encode_string(message.reply_to),
        _encode_id(message.correlation_id),
        b"" if message.content_type is None else encode_symbol(message.content_type),
        b"",
        b"" if message.absolute_expiry_ms is None else encode_timestamp(message.absolute_expiry_ms),
        b"" if message.creation_ms is None else encode_timestamp(message.creation_ms),
    ]
    return b"\0\x53\x73" + encode_fields(fields) if any(fields) else b""


_encode_key = functools.lru_cache(maxsize=256)(encode_string)  # property names are few and come again


def _encode_application(properties: dict[str, PropertyValue]) -> bytes:
    parts = []
    for key, value in properties.items():
        parts.append(_encode_key(key))
        parts.append(encode_string(value) if type(value) is str else encode_value(value))
    return b"\0\x53\x74" + encode_pairs(parts)


def _encode_annotations(annotations: dict[Any, Any]) -> bytes:
    parts = []
    for key, value in annotations.items():
        parts.append(encode_symbol(key) if isinstance(key, str) else encode_ulong(key))
        parts.append(encode_value(value))
    return b"\0\x53\x72" + encode_pairs(parts)


def _encode_body(message: Message) -> bytes:
    if message.body_kind == "string":
        return b"\0\x53\x77" + encode_string(message.body.decode())
    if message.body_kind == "binary":
        return b"\0\x53\x77" + encode_binary(message.body)
    return b"\0\x53\x75" + encode_binary(message.body)


def decode(data: bytes) -> Message:
    """The message that the sections say.

    Raises:
        CodecError: they are cut short, out of order, of wrong types, or nested too deeply.
    """
    message = Message(body_kind="none")
    body: list[bytes] = []
    at = last = 0
    try:
        while at < len(data):
            section, at = _section(data, at)
            if section < last or (section == last and section not in (_DATA, _SEQUENCE)):
                raise CodecError("sections are out of order")
            if last in (_DATA, _SEQUENCE, _VALUE) and section not in (last, _FOOTER):
                raise CodecError("bodies of two kinds")
            last = section
            value, at = decode_value(data, at)
            _READERS[section](message, body, value)
    except IndexError as error:
        raise CodecError("the message is cut short") from error
    except UnicodeDecodeError as error:
        raise CodecError("text that is not what its type promises") from error
    if body:
        message.body = body[0] if len(body) == 1 else b"".join(body)
    return message


def _section(data: bytes, at: int) -> tuple[int, int]:
    if data[at : at + 2] == b"\0\x53":
        section, end = data[at + 2], at + 3
    else:
        if data[at] != 0:
            raise CodecError("this is no section of a message")
        descriptor, end = decode_value(data, at + 1)
        if not isinstance(descriptor, ULong):
            raise CodecError(
                "this is no section of a message"
            )  # symbolic descriptors are deprecated and unused
        section = descriptor
    if not _HEADER <= section <= _FOOTER:
        raise CodecError("this is no section of a message")
    return section, end


def _read_header(message: Message, body: list[bytes], value: Any) -> None:
    durable, priority, ttl, _, count = _fields(value, 5)
    message.durable = _typed(durable, bool, "durable") or False
    message.priority = _typed(priority, int, "priority")
    message.ttl_ms = _typed(ttl, int, "ttl")
    message.delivery_count = _typed(count, int, "delivery-count") or 0


def _read_properties(message: Message, body: list[bytes], value: Any) -> None:
    fields = _fields(value, 13)
    message.message_id = _identity(fields[0], "message-id")
    message.user_id = _typed(fields[1], bytes, "user-id")
    message.to = _typed(fields[2], str, "to")
    message.subject = _typed(fields[3], str, "subject")
    message.reply_to = _typed(fields[4], str, "reply-to")
    message.correlation_id = _identity(fields[5], "correlation-id")
    content_type = _typed(fields[6], str, "content-type")
    message.content_type = None if content_type is None else str(content_type)
    message.absolute_expiry_ms = _time(fields[8], "absolute-expiry-time")
    message.creation_ms = _time(fields[9], "creation-time")


def _read_application(message: Message, body: list[bytes], value: Any) -> None:
    if not isinstance(value, dict):
        raise CodecError("application properties are no map")
    for key, item in value.items():
        if type(key) is not str or type(item) in _NOT_SIMPLE:
            raise CodecError("an application property that is no simple value under a string")
    message.properties = value


def _read_annotations(message: Message, body: list[bytes], value: Any) -> None:
    if not isinstance(value, dict):
        raise CodecError("annotations are no map")
    message.annotations = value


def _read_data(message: Message, body: list[bytes], value: Any) -> None:
    if not isinstance(value, bytes):
        raise CodecError("a data section that is no binary")
    message.body_kind = "data"
    body.append(value)


def _read_value(message: Message, body: list[bytes], value: Any) -> None:
    if isinstance(value, bytes):
        message.body_kind = "binary"
        body.append(value)
    elif type(value) is str:
        message.body_kind = "string"
        body.append(value.encode())
    else:
        message.body_kind = "other"


def _read_sequence(message: Message, body: list[bytes], value: Any) -> None:
    message.body_kind = "other"


def _skip(message: Message, body: list[bytes], value: Any) -> None:
    """Delivery annotations and footer: for the next hop, and for checks that are not made."""


_READERS = {
    _HEADER: _read_header,
    _DELIVERY: _skip,
    _ANNOTATIONS: _read_annotations,
    _PROPERTIES: _read_properties,
    _APPLICATION: _read_application,
    _DATA: _read_data,
    _SEQUENCE: _read_sequence,
    _VALUE: _read_value,
    _FOOTER: _skip,
}


def _fields(value: Any, count: int) -> list[Any]:
    if not isinstance(value, list):
        raise CodecError("a section that is no list")
    return value + [None] * (count - len(value))


def _typed(value: Any, kind: type, name: str) -> Any:
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    raise CodecError(f"{name} is of a wrong type")


def _time(value: Any, name: str) -> int | None:
    if value is None or isinstance(value, Timestamp):
        return None if value is None else int(value)
    raise CodecError(f"{name} is of a wrong type")


def _identity(value: Any, name: str) -> MessageId | None:
    if value is None or isinstance(value, ULong | uuid.UUID | bytes) or type(value) is str:
        return value
    raise CodecError(f"{name} is of a wrong type")
