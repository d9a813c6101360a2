"""MQTT's control packets as a broker needs them: what clients send taken apart, answers put together. Pure.

MQTT 3.1.1 and 5.0 in one: where they differ, `v5` says which.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(8, 15)
_MUST_BE_TWO: Final = (PUBREL, SUBSCRIBE, UNSUBSCRIBE)

EXPIRY: Final = 0x02
RESPONSE_TOPIC: Final = 0x08
SESSION_EXPIRY: Final = 0x11
ASSIGNED_ID: Final = 0x12
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS: Final = 0x23
FORWARDED: Final = (0x01, EXPIRY, 0x03, RESPONSE_TOPIC, 0x09, 0x26)
"""Properties of a message that its receivers get too (MQTT 5.0, 3.3.2.3)."""
_TYPES: Final[Mapping[int, str]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), "byte"),
    **dict.fromkeys((0x13, RECEIVE_MAXIMUM, 0x22, TOPIC_ALIAS), "two"),
    **dict.fromkeys((EXPIRY, SESSION_EXPIRY, 0x18, 0x27), "four"),
    0x0B: "varint",
    **dict.fromkeys((0x03, RESPONSE_TOPIC, ASSIGNED_ID, 0x15, 0x1A, 0x1C, 0x1F), "text"),
    **dict.fromkeys((0x09, 0x16), "binary"),
    0x26: "pair",
}
"""Data types of properties (MQTT 5.0, 2.2.2.2)."""

Property = tuple[int, int | bytes | tuple[bytes, bytes]]


class Malformed(Exception):
    """What a client sent is no MQTT, or breaks its rules: the connection is closed."""


class Message(msgspec.Struct, frozen=True):
    """An application message on its way; `expires` is on the monotonic clock."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: tuple[Property, ...] = ()
    expires: float | None = None


class Connect(msgspec.Struct, frozen=True):
    """A CONNECT packet (MQTT 5.0, 3.1)."""

    v5: bool
    client_id: str
    clean: bool
    keep_alive: int
    will: Message | None
    username: str | None
    password: bytes | None
    session_expiry: int
    receive_maximum: int


class Subscription(msgspec.Struct, frozen=True):
    """One filter of a SUBSCRIBE packet with its options (MQTT 5.0, 3.8.3.1)."""

    filter: str
    qos: int
    no_local: bool
    as_published: bool
    retain_handling: int


class Reader:
    """Reads one packet from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            Malformed: there are not as many; so do all others.
        """
        if size > self.left:
            raise Malformed("a packet ends before its fields do")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """An integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        """A variable byte integer (MQTT 5.0, 1.5.5)."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Malformed("a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        """Bytes with their length in front."""
        return self.take(self.number(2))

    def text(self) -> str:
        """Text in UTF-8."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError as error:
            raise Malformed("a text is not UTF-8") from error
        if "\0" in text:
            raise Malformed("a text holds a NUL")
        return text

    def properties(self) -> tuple[Property, ...]:
        """Properties with their length in front."""
        inner = Reader(self.take(self.varint()))
        found = []
        while inner.left:
            found.append(inner._property())
        return tuple(found)

    def _property(self) -> Property:
        number = self.varint()
        match _TYPES.get(number):
            case "byte":
                return number, self.number(1)
            case "two":
                return number, self.number(2)
            case "four":
                return number, self.number(4)
            case "varint":
                return number, self.varint()
            case "text":
                return number, self.text().encode()
            case "binary":
                return number, self.binary()
            case "pair":
                return number, (self.text().encode(), self.text().encode())
        raise Malformed(f"there is no property {number:#x}")


def split(buffer: bytearray, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Takes whole packets off the front of a buffer: type, flags and what follows the length.

    Raises:
        Malformed: a packet is longer than `limit`, or its flags are wrong.
    """
    while len(buffer) >= 2:
        length, at = 0, 1
        while True:
            if at >= len(buffer):
                return
            byte = buffer[at]
            length |= (byte & 0x7F) << 7 * (at - 1)
            at += 1
            if byte < 0x80:
                break
            if at > 4:
                raise Malformed("a length has more than four bytes")
        if length > limit:
            raise Malformed(f"a packet of {length} bytes is longer than {limit}")
        if len(buffer) < at + length:
            return
        kind, flags = buffer[0] >> 4, buffer[0] & 0x0F
        body = bytes(buffer[at : at + length])
        del buffer[: at + length]
        if kind != PUBLISH and flags != (2 if kind in _MUST_BE_TWO else 0):
            raise Malformed(f"a packet of type {kind} has flags {flags:#x}")
        yield kind, flags, body


def read_connect(body: bytes) -> Connect:
    """A CONNECT packet.

    Raises:
        Malformed: it is none, or of an unknown version.
    """
    reader = Reader(body)
    name, level = reader.text(), reader.number(1)
    if name != "MQTT" or level not in (4, 5):
        raise Malformed(f"MQTT 3.1.1 and 5 are spoken here, not {name!r:.20} {level}")
    v5, flags, keep_alive = level == 5, reader.number(1), reader.number(2)
    options = dict(reader.properties()) if v5 else {}
    client_id = reader.text()
    will = None
    if flags & 0x04:
        properties = reader.properties() if v5 else ()
        topic, payload = reader.text(), reader.binary()
        kept = tuple(one for one in properties if one[0] in FORWARDED)
        will = Message(topic, payload, min(flags >> 3 & 3, 2), bool(flags & 0x20), kept)
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    clean = bool(flags & 0x02)
    expiry = options.get(SESSION_EXPIRY, 0) if v5 else (0 if clean else 0xFFFFFFFF)
    maximum = options.get(RECEIVE_MAXIMUM, 65535)
    assert isinstance(expiry, int)  # the table of types says so, as of the next
    assert isinstance(maximum, int)
    if not maximum:
        raise Malformed("a receive maximum of 0")
    return Connect(v5, client_id, clean, keep_alive, will, username, password, expiry, maximum)


def read_publish(flags: int, body: bytes, v5: bool, now: float) -> tuple[Message, int]:
    """A PUBLISH packet, and its packet identifier (0 at QoS 0).

    Raises:
        Malformed: it is none.
    """
    reader = Reader(body)
    qos, topic = flags >> 1 & 3, reader.text()
    if qos == 3 or not topic or set(topic) & set("+#"):
        raise Malformed("a PUBLISH has QoS 3, or no topic, or one with wildcards")
    number = reader.number(2) if qos else 0
    if qos and not number:
        raise Malformed("packet identifier 0")
    properties = reader.properties() if v5 else ()
    if any(key == TOPIC_ALIAS for key, _ in properties):
        raise Malformed("topic aliases were not offered")
    expiry = dict(properties).get(EXPIRY)
    expires = now + expiry if isinstance(expiry, int) else None
    kept = tuple(one for one in properties if one[0] in FORWARDED and one[0] != EXPIRY)
    return Message(topic, reader.take(reader.left), qos, bool(flags & 1), kept, expires), number


def read_subscribe(body: bytes, v5: bool) -> tuple[int, list[Subscription]]:
    """A SUBSCRIBE packet: its identifier and what is subscribed to.

    Raises:
        Malformed: it is none.
    """
    reader = Reader(body)
    number = reader.number(2)
    if v5:
        reader.properties()
    found = []
    while reader.left:
        name, options = reader.text(), reader.number(1)
        if options & 3 == 3 or not name:
            raise Malformed("a subscription with QoS 3, or without a filter")
        found.append(Subscription(name, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3))
    if not found or not number:
        raise Malformed("a SUBSCRIBE without filter or identifier")
    return number, found


def read_unsubscribe(body: bytes, v5: bool) -> tuple[int, list[str]]:
    """An UNSUBSCRIBE packet: its identifier and the filters.

    Raises:
        Malformed: it is none.
    """
    reader = Reader(body)
    number = reader.number(2)
    if v5:
        reader.properties()
    filters = []
    while reader.left:
        filters.append(reader.text())
    return number, filters


def packet(kind: int, body: bytes = b"", flags: int | None = None) -> bytes:
    """A packet with its fixed header (MQTT 5.0, 2.1)."""
    first = kind << 4 | ((2 if kind in _MUST_BE_TWO else 0) if flags is None else flags)
    return bytes((first,)) + varint(len(body)) + body


def varint(value: int) -> bytes:
    """A variable byte integer (MQTT 5.0, 1.5.5)."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _binary(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def write_properties(properties: Iterable[Property]) -> bytes:
    """Properties with their length in front."""
    made = bytearray()
    for number, value in properties:
        made.append(number)
        if isinstance(value, tuple):
            made += _binary(value[0]) + _binary(value[1])
        elif isinstance(value, bytes):
            made += _binary(value)
        else:
            made += value.to_bytes({"byte": 1, "two": 2}.get(_TYPES[number], 4), "big")
    return varint(len(made)) + bytes(made)


def write_publish(message: Message, number: int, v5: bool, now: float, again: bool = False) -> bytes:
    """A PUBLISH packet."""
    body = _binary(message.topic.encode())
    if message.qos:
        body += struct.pack(">H", number)
    if v5:
        left = () if message.expires is None else ((EXPIRY, max(0, round(message.expires - now))),)
        body += write_properties((*message.properties, *left))
    return packet(PUBLISH, body + message.payload, again << 3 | message.qos << 1 | message.retain)
