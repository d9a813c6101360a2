"""Dead letters as data: what `hilgate store` prints as JSON and shows in tables. Pure but for `write`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.cli.exits import Exit, Failure
from agent.store.inspect import DeadLetter
from protocols.amqp.cloudevents import from_message
from protocols.amqp.codec import CodecError, Message, decode
from protocols.timestamps import rfc3339

_NOT_PROPERTIES = ("body", "body_kind", "properties", "annotations")


def summary(letter: DeadLetter) -> dict[str, Any]:
    """What `list` says of one."""
    return {
        "id": letter.id,
        "buried": rfc3339(letter.buried_ns),
        "reason": letter.reason,
        "address": letter.address,
        "lane": letter.lane.name.lower(),
        "type": event_type(decoded(letter.data)),
        "source": letter.source,
        "sequence": letter.sequence,
        "event_id": letter.event_id,
        "time": rfc3339(letter.time_ns),
        "bytes": len(letter.data),
    }


def whole(letter: DeadLetter) -> dict[str, Any]:
    """What `show` says of one: the message as sections; a body that is no JSON is left to `export`."""
    message = decoded(letter.data)
    return summary(letter) | {
        "properties": properties(message),
        "application_properties": {name: _bare(value) for name, value in message.properties.items()},
        "body": _json(message.body),
    }


def exported(letter: DeadLetter) -> dict[str, Any]:
    """What `export` writes of one: everything, and the encoded message itself."""
    return whole(letter) | {"message_base64": letter.data}


def event_type(message: Message) -> str:
    """The CloudEvents type of a message; empty where it is no event."""
    try:
        return from_message(message).type
    except CodecError:
        return ""


def decoded(data: bytes) -> Message:
    """The message in a dead letter; an empty one where the bytes are no message."""
    try:
        return decode(data)
    except CodecError:
        return Message()


def properties(message: Message) -> Mapping[str, Any]:
    """Header and properties that are there, by their names."""
    fields = msgspec.structs.asdict(message)
    return {
        name: _bare(value)
        for name, value in fields.items()
        if value is not None and name not in _NOT_PROPERTIES
    }


def _bare(value: Any) -> Any:
    """An AMQP value for JSON: its number types are ints that the encoder does not know."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def write(path: Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON lines to a new file that only its owner reads; how many.

    Raises:
        Failure: there is a file of that name.
        OSError: it cannot be written.
    """
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failure(f"{path} exists already; it is left as it is", Exit.USAGE) from None
    count = 0
    with os.fdopen(number, "wb") as file:
        for line in lines:
            file.write(msgspec.json.encode(line, enc_hook=str) + b"\n")
            count += 1
    return count
