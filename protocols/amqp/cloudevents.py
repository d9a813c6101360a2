"""CloudEvents 1.0 in AMQP messages (CloudEvents AMQP protocol binding), in binary and structured mode. Pure.

Attributes are written as `cloudEvents:NAME` and read as `cloudEvents_NAME` too, with the AMQP types of the
binding's section 2.2: `time` is a timestamp, integers are ints, the rest are strings.
"""

import datetime
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from protocols.amqp.codec import CodecError, Message
from protocols.amqp.types import Int, PropertyValue, Timestamp
from protocols.timestamps import rfc3339

_STRUCTURED = "application/cloudevents+json"
_PREFIXES = ("cloudEvents:", "cloudEvents_")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
DUPLICATE_ID = "_AMQ_DUPL_ID"
"""The application property by which Artemis knows a message that was sent twice."""


class Event(msgspec.Struct, frozen=True):
    """One event as wire.md section 2 has it.

    `time_ns` is UTC in nanoseconds since 1970: AMQP timestamps carry milliseconds of it, structured mode all.
    """

    id: str
    source: str
    type: str
    time_ns: int
    sequence: int
    epoch: int
    mode: Literal["hil", "sil"]
    data: bytes
    datacontenttype: str = "application/json"


def to_message(event: Event, *, structured: bool = False) -> Message:
    """The event as a message, with the identity that brokers drop duplicates by."""
    if structured:
        message = Message(body=_structured(event), content_type=_STRUCTURED)
        message.properties = {DUPLICATE_ID: event.id}
    else:
        message = Message(body=event.data, content_type=event.datacontenttype)
        message.properties = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": event.id,
            "cloudEvents:source": event.source,
            "cloudEvents:type": event.type,
            "cloudEvents:time": Timestamp(event.time_ns // 1_000_000),
            "cloudEvents:sequence": str(event.sequence),
            "cloudEvents:epoch": Int(event.epoch),
            "cloudEvents:mode": event.mode,
            DUPLICATE_ID: event.id,
        }
    message.message_id = event.id
    return message


def _structured(event: Event) -> bytes:
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": rfc3339(event.time_ns),
        "sequence": str(event.sequence),
        "epoch": event.epoch,
        "mode": event.mode,
        "datacontenttype": event.datacontenttype,
    }
    if event.datacontenttype == "application/json":
        attributes["data"] = msgspec.Raw(event.data)
    else:
        attributes["data_base64"] = event.data
    return msgspec.json.encode(attributes)


def from_message(message: Message) -> Event:
    """The event in a message, of either mode.

    Raises:
        CodecError: it is no event, or lacks what this product's events have.
    """
    if (message.content_type or "").lower().startswith("application/cloudevents"):
        attributes, data = _read_structured(message.body)
    else:
        attributes, data = _read_binary(message.properties), message.body
        attributes.setdefault("datacontenttype", message.content_type)
    if attributes.get("specversion") != "1.0":
        raise CodecError("the message is no CloudEvent of version 1.0")
    mode = _text(attributes, "mode")
    if mode not in ("hil", "sil"):
        raise CodecError(f"the event's mode is neither hil nor sil: {mode:.20}")
    return Event(
        id=_text(attributes, "id"),
        source=_text(attributes, "source"),
        type=_text(attributes, "type"),
        time_ns=_time(attributes.get("time")),
        sequence=_integer(attributes, "sequence"),
        epoch=_integer(attributes, "epoch"),
        mode="hil" if mode == "hil" else "sil",
        data=data,
        datacontenttype=_text(attributes, "datacontenttype"),
    )


def _read_binary(properties: Mapping[str, PropertyValue]) -> dict[str, Any]:
    return {key[12:]: value for key, value in properties.items() if key.startswith(_PREFIXES)}


def _read_structured(body: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        data = bytes(raw.pop("data", msgspec.Raw(b"")))
        encoded = raw.pop("data_base64", None)
        attributes = {key: msgspec.json.decode(value) for key, value in raw.items()}
        if encoded is not None:
            data = msgspec.json.decode(encoded, type=bytes)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CodecError(f"the structured event cannot be read: {error}") from error
    attributes.setdefault("datacontenttype", "application/json")
    return attributes, data


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name)
    if not isinstance(value, str) or not value:
        raise CodecError(f"the event has no {name}")
    return str(value)


def _integer(attributes: Mapping[str, Any], name: str) -> int:
    value = attributes.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise CodecError(f"the event's {name} is no number")


def _time(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) * 1_000_000  # the oracle's binding writes a long where ours writes a timestamp
    if not isinstance(value, str):
        raise CodecError("the event has no time")
    return parse_time(value)


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time with a zone and up to nine decimals.

    Raises:
        CodecError: it is none.
    """
    head, point, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    fraction, zone = (tail[:digits], tail[digits:]) if point else ("", "")
    if len(fraction) > 9 or bool(point) != bool(fraction) or not text.isascii():
        raise CodecError(f"{text:.40} is no time")
    try:
        moment = datetime.datetime.fromisoformat(head + zone)
        delta = moment - _EPOCH
    except (ValueError, TypeError, OverflowError) as error:  # TypeError: it has no zone
        raise CodecError(f"{text:.40} is no time") from error
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
