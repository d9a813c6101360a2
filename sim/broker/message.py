"""A message as the broker keeps it: the bytes that came, and the few fields that a broker looks at.

An intermediary leaves the bare message as it is (AMQP 1.0 part 3, section 3.2), so nothing is decoded here
but those fields; everything else is stepped over by its length.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec

_HEADER, _DELIVERY_ANNOTATIONS, _MESSAGE_ANNOTATIONS, _PROPERTIES, _APPLICATION_PROPERTIES = range(0x70, 0x75)
_BODY: Final = (0x75, 0x76, 0x77)
_VARIABLE_8, _VARIABLE_32, _UNKNOWN = -1, -4, 0
_LENGTH_BY_CLASS: Final = (
    {0x4: 1, 0x5: 2, 0x6: 3, 0x7: 5, 0x8: 9, 0x9: 17}
    | dict.fromkeys((0xA, 0xC, 0xE), _VARIABLE_8)
    | dict.fromkeys((0xB, 0xD, 0xF), _VARIABLE_32)
)
_LENGTHS: Final = tuple(_LENGTH_BY_CLASS.get(code >> 4, _UNKNOWN) for code in range(256))
"""By constructor: the whole value's length where it is fixed, else how wide the field is that tells it."""

# Fields by position, each with the constructors of its type; null may stand for any. None: not looked at.
_BOOLEAN, _UINT = b"\x41\x42\x56", b"\x43\x52\x70"
_BINARY, _STRING = b"\xa0\xb0", b"\xa1\xb1"
_HEADER_FIELDS: Final = (_BOOLEAN, b"\x50", _UINT, _BOOLEAN, _UINT)
_PROPERTIES_FIELDS: Final = (None, _BINARY, _STRING, *[None] * 5, b"\x83")
_MAX_PROPERTIES: Final = 1000
_DUPLICATE_ID: Final = "_AMQ_DUPL_ID"
_KEYS: Final = ("_AMQ_LVQ_NAME", "cloudEvents:source", "cloudEvents_source")


class MalformedMessage(Exception):
    """What came is no AMQP message; the text says why."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """An encoded message and what routing needs of it."""

    data: bytes
    rest: int = 0
    """Where the sections begin that go out as they came: those behind header and delivery annotations."""
    annotated: bool = False
    """There are delivery annotations; they were for this hop only."""
    durable: bool | None = None
    priority: int | None = None
    has_ttl: bool = False
    first_acquirer: bool | None = None
    delivery_count: int = 0
    expires: float = math.inf
    """When its time is over, on the broker's clock."""
    to: str | None = None
    user_id: bytes | None = None
    duplicate_id: str | None = None
    """Application property `_AMQ_DUPL_ID`, by which Artemis knows a message that was sent before."""
    key: str | None = None
    """What it is the last value of: application property `_AMQ_LVQ_NAME`, else the CloudEvents source."""

    @property
    def rank(self) -> int:
        """Its priority; 4 where none is given (part 3, section 3.2.1)."""
        return 4 if self.priority is None else self.priority

    def outgoing(self, now: float, failures: int) -> bytes:
        """The bytes for a consumer: the header's ttl is what is left, its delivery-count what failed."""
        if not (self.has_ttl or failures or self.annotated):
            return self.data
        fields = (
            _encode_boolean(self.durable),
            b"\x40" if self.priority is None else bytes((0x50, self.priority)),
            _encode_uint(max(1, int((self.expires - now) * 1000))) if self.has_ttl else b"\x40",
            _encode_boolean(False if failures else self.first_acquirer),
            _encode_uint(min(self.delivery_count + failures, 0xFFFFFFFF)),
        )
        body = b"".join(fields)
        header = bytes((0x00, 0x53, _HEADER, 0xC0, 1 + len(body), len(fields))) + body
        return header + self.data[self.rest :]


def parse(data: bytes, now: float, wall_ms: float) -> Message:
    """Reads what the broker needs of an encoded message, up to its body.

    `now` is the broker's clock in seconds, `wall_ms` UTC in milliseconds since 1970.

    Raises:
        MalformedMessage: it is not encoded as AMQP 1.0 part 3, section 3.2 says.
    """
    try:
        return _parse(data, now, wall_ms)
    except (IndexError, struct.error) as error:
        raise MalformedMessage("the message ends in the middle of a value") from error
    except UnicodeDecodeError as error:
        raise MalformedMessage("the message has a string that is not UTF-8") from error


def _parse(data: bytes, now: float, wall_ms: float) -> Message:
    durable = priority = ttl = first_acquirer = delivery_count = None
    user_id = to = expiry = None
    known: dict[str, str] = {}
    rest, annotated = 0, False
    at, section, last = 0, -1, -1
    while section not in _BODY:
        section, start = _descriptor(data, at)
        if section <= last:
            raise MalformedMessage("the sections of the message are out of order")
        at, last = _end(data, start), section
        if section == _HEADER:
            rest = at
            durable, priority, ttl, first_acquirer, delivery_count = _list(data, start, at, _HEADER_FIELDS)
        elif section == _DELIVERY_ANNOTATIONS:
            annotated, rest = True, at
        elif section == _PROPERTIES:
            _, user_id, to, *_, expiry = _list(data, start, at, _PROPERTIES_FIELDS)
        elif section == _APPLICATION_PROPERTIES:
            known = _known_properties(data, start, at)
    expires = math.inf if ttl is None else now + ttl / 1000
    if expiry is not None:
        expires = min(expires, now + (expiry - wall_ms) / 1000)
    return Message(
        data=data,
        rest=rest,
        annotated=annotated,
        durable=durable,
        priority=priority,
        has_ttl=ttl is not None,
        first_acquirer=first_acquirer,
        delivery_count=delivery_count or 0,
        expires=expires,
        to=to,
        user_id=user_id,
        duplicate_id=known.get(_DUPLICATE_ID),
        key=next((known[key] for key in _KEYS if key in known), None),
    )


def _descriptor(data: bytes, at: int) -> tuple[int, int]:
    """The section's code, and where its value begins."""
    if data[at : at + 2] == b"\x00\x53" and _HEADER <= data[at + 2] <= _BODY[-1]:
        return data[at + 2], at + 3
    if data[at] != 0x00:
        raise MalformedMessage("the message has something that is no section")
    code, value = _read(data, at + 1), _end(data, at + 1)
    if type(code) is not int or not _HEADER <= code <= _BODY[-1]:
        raise MalformedMessage(f"the message has a section of unknown type {code!r:.40}")
    return code, value


def _end(data: bytes, at: int) -> int:
    """Where the value at `at` ends. Every type's length shows in its constructor (part 1, section 1.2)."""
    while data[at] == 0x00:
        if data[at + 1] == 0x00:
            raise MalformedMessage("the message has a described descriptor")
        at = _end(data, at + 1)
    length = _LENGTHS[data[at]]
    if length > 0:
        end = at + length
    elif length == _VARIABLE_8:
        end = at + 2 + data[at + 1]
    elif length == _VARIABLE_32:
        end = at + 5 + int(struct.unpack_from(">I", data, at + 1)[0])
    else:
        raise MalformedMessage(f"the message has a value of unknown type 0x{data[at]:02x}")
    if end > len(data):
        raise MalformedMessage("the message ends in the middle of a value")
    return end


def _read(data: bytes, at: int) -> Any:
    """The value at `at` if it is of a type that the broker looks at, else None."""
    match data[at]:
        case 0x41:
            return True
        case 0x42:
            return False
        case 0x56:
            return data[at + 1] == 1
        case 0x43 | 0x44:
            return 0
        case 0x50 | 0x52 | 0x53:
            return data[at + 1]
        case 0x70:
            return struct.unpack_from(">I", data, at + 1)[0]
        case 0x80:
            return struct.unpack_from(">Q", data, at + 1)[0]
        case 0x83:
            return struct.unpack_from(">q", data, at + 1)[0]
        case 0xA0:
            return data[at + 2 : _end(data, at)]
        case 0xB0:
            return data[at + 5 : _end(data, at)]
        case 0xA1:
            return data[at + 2 : _end(data, at)].decode()
        case 0xB1:
            return data[at + 5 : _end(data, at)].decode()
    return None


def _items(data: bytes, at: int, small: int, large: int) -> tuple[int, int]:
    """How many items a list or map has, and where the first begins."""
    if data[at] == small:
        return data[at + 2], at + 3
    if data[at] == large:
        return struct.unpack_from(">I", data, at + 5)[0], at + 9
    raise MalformedMessage(f"a section holds a value of type 0x{data[at]:02x}, neither list nor map")


def _list(data: bytes, at: int, end: int, fields: Sequence[bytes | None]) -> list[Any]:
    """The fields of a list that ends at `end`, None where one is absent or not looked at.

    Raises:
        MalformedMessage: a field is not of its type, or the list is shorter than it says.
    """
    values: list[Any] = [None] * len(fields)
    count, at = (0, at) if data[at] == 0x45 else _items(data, at, 0xC0, 0xD0)
    for index, constructors in enumerate(fields[:count]):
        if at >= end:
            raise MalformedMessage("the message has a list that is shorter than it says")
        if constructors is not None and data[at] != 0x40:
            if data[at] not in constructors:
                raise MalformedMessage(f"the message has a field of the wrong type 0x{data[at]:02x}")
            values[index] = _read(data, at)
        at = _end(data, at)
    return values


def _known_properties(data: bytes, at: int, end: int) -> dict[str, str]:
    """Those application properties that the broker looks at and that are strings."""
    if data.find(b"_AMQ_", at, end) < 0 and data.find(b"cloudEvents", at, end) < 0:
        return {}
    count, at = _items(data, at, 0xC1, 0xD1)
    if count > 2 * _MAX_PROPERTIES:
        raise MalformedMessage(f"the message has more than {_MAX_PROPERTIES} application properties")
    found = {}
    for _ in range(count // 2):
        if at >= end:
            raise MalformedMessage("the message has a map that is shorter than it says")
        name = _read(data, at)
        at = _end(data, at)
        value = _read(data, at) if name in _KEYS or name == _DUPLICATE_ID else None
        if isinstance(value, str):
            found[name] = value
        at = _end(data, at)
    return found


def _encode_boolean(value: bool | None) -> bytes:
    return b"\x40" if value is None else b"\x41" if value else b"\x42"


def _encode_uint(value: int) -> bytes:
    return b"\x43" if value == 0 else struct.pack(">BI", 0x70, value)
