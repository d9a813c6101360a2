"""From a hostile message to a command. Pure."""

import uuid
from typing import Any

import msgspec

from protocols.amqp.codec import Message, MessageId
from protocols.amqp.types import ULong
from protocols.base import Refused

MAX_COMMAND_BYTES = 1024 * 1024
MAX_ID = 1024
"""Characters of a message-id, correlation-id, reply-to or lease token; a binary id takes two a byte."""
MAX_BEARER = 16 * 1024
"""Characters of a JWT."""
MAX_SAFE = 4096
"""Bytes of an op safe that is kept whole; of a longer one its reason is, as far as this goes."""
MAX_OP = 64
"""Characters of an op that a result gives back; no op has as many."""


class Command(msgspec.Struct, frozen=True):
    """A command as it was asked for."""

    key: str
    """The message-id with its type, as the journal knows it."""
    op: str
    fields: dict[str, Any]
    reply_to: str | None
    correlation_id: MessageId | None
    user: str
    created_ms: int | None
    expires_ms: int | None
    """The earlier of absolute-expiry-time and creation (or arrival) time plus ttl, UTC."""
    received_ns: int
    size: int
    """Bytes of memory that it may take."""
    token: str | None = None
    """The lease token it came with. A secret: never logged, kept or shown."""
    redelivered: bool = False
    """The broker had given this very message to an agent before."""
    bearer: str | None = None
    """The JWT that it shows; empty where it shows something else. A secret, as `token` is."""
    subject: str = ""
    """Who that JWT says it is, once it was verified."""


class NotACommand(Exception):
    """The message cannot be a command; `code` is the wire's `malformed` or `too-large`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse(message: Message, received_ns: int) -> Command:
    """Takes a message apart.

    Raises:
        NotACommand: no message-id, over 1 MiB, not JSON, or not an object with an `op`.
    """
    if len(message.body) > MAX_COMMAND_BYTES:
        raise NotACommand(
            "too-large", f"the body has {len(message.body)} bytes; at most {MAX_COMMAND_BYTES} are read"
        )
    if message.message_id is None:
        raise NotACommand(
            "malformed", "the message has no message-id, so it could not be told from a repeated one"
        )
    if len(key := journal_key(message.message_id)) > MAX_ID:
        raise NotACommand("malformed", f"the message-id is longer than {MAX_ID} characters")
    if not is_answerable(message):
        raise NotACommand("malformed", f"reply-to or correlation-id is longer than {MAX_ID} characters")
    if str(message.properties.get("cloudEvents:type", "")).startswith("io.hilgate."):
        # A result whose reply_to named a commands queue would else command that bench on our rights.
        raise NotACommand("malformed", "the message is an event of a bench, not a command")
    fields = _json(message.body)
    if not isinstance(fields, dict) or not isinstance(fields.get("op"), str):
        raise NotACommand("malformed", 'the body must be a JSON object such as {"op": "ping"}')
    return Command(
        key=key,
        op=fields["op"][:MAX_OP],
        fields=_kept(fields, message.body),
        reply_to=message.reply_to,
        correlation_id=answer_to(message),
        user=user_name(message.user_id),
        created_ms=message.creation_ms,
        expires_ms=_expiry(message, received_ns),
        received_ns=received_ns,
        size=_size(message.body),
        token=_token(message, fields),
        redelivered=message.delivery_count > 0,
        bearer=_bearer(message.properties.get("authorization")),
    )


def user_name(user_id: bytes | None) -> str:
    """A user-id as text, not longer than a name is."""
    return (user_id or b"").decode(errors="replace")[:256]


def is_answerable(message: Message) -> bool:
    """Whether what an answer needs is no longer than such things are."""
    correlation = message.correlation_id
    return len(message.reply_to or "") <= MAX_ID and (
        correlation is None or len(journal_key(correlation)) <= MAX_ID
    )


def answer_to(message: Message) -> MessageId | None:
    """The correlation-id of a result: the command's own, else its message-id."""
    return message.message_id if message.correlation_id is None else message.correlation_id


def journal_key(message_id: MessageId) -> str:
    """A text for a message-id that keeps its AMQP type: the string "1" is not the ulong 1."""
    match message_id:
        case str():
            return f"s:{message_id}"
        case bytes():
            return f"b:{message_id.hex()}"
        case uuid.UUID():
            return f"g:{message_id}"
        case ULong() | int():
            return f"u:{int(message_id)}"


def message_id_of(key: str) -> MessageId:
    """The message-id that `journal_key` made a text of."""
    kind, _, text = key.partition(":")
    match kind:
        case "b":
            return bytes.fromhex(text)
        case "g":
            return uuid.UUID(text)
        case "u":
            return ULong(text)
        case _:
            return text


def _token(message: Message, fields: dict[str, Any]) -> str | None:
    """Of the property `lease`; ops that are about a lease name it in the body."""
    tokens = (fields.get("lease"), message.properties.get("lease"))
    # Cut off a longer one is no lease's either, and costs less.
    return next((token[:MAX_ID] for token in tokens if isinstance(token, str)), None)


def _bearer(shown: Any) -> str | None:
    """Of the property `authorization`, written as in HTTP (RFC 6750, section 2.1)."""
    if shown is None:
        return None
    scheme, _, token = shown.partition(" ") if isinstance(shown, str) else ("", "", "")
    return token.strip()[: MAX_BEARER + 1] if scheme.lower() == "bearer" else ""


def _size(body: bytes) -> int:
    """Not less than what a body takes once it is decoded: `{},` and `[[1]],` grow by 24 and 31 times."""
    return 4 * len(body) + 64 * (body.count(b",") + body.count(b"[")) + 240 * body.count(b"{")


def _kept(fields: dict[str, Any], body: bytes) -> dict[str, Any]:
    """What is kept of a body: of op safe, of which any number may wait, only what it needs."""
    if fields["op"] != "safe" or len(body) <= MAX_SAFE:
        return fields
    reason = fields.get("reason")
    return {"op": "safe", "reason": reason[:MAX_SAFE]} if isinstance(reason, str) else {"op": "safe"}


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotACommand("malformed", f"the body is not JSON: {error}") from None


def _expiry(message: Message, received_ns: int) -> int | None:
    times = [] if message.absolute_expiry_ms is None else [message.absolute_expiry_ms]
    if message.ttl_ms is not None:
        created = received_ns // 1_000_000 if message.creation_ms is None else message.creation_ms
        times.append(created + message.ttl_ms)
    return min(times, default=None)


def text_field(fields: dict[str, Any], name: str, *, required: bool = True) -> str:
    """A string field of a command.

    Raises:
        Refused: missing or of another type.
    """
    value = fields.get(name, "" if not required else None)
    if not isinstance(value, str):
        raise Refused("malformed", f"op {fields['op']} needs the field {name!r} as a string")
    return value


def object_field(fields: dict[str, Any], name: str, *, required: bool = True) -> dict[str, Any]:
    """An object field of a command.

    Raises:
        Refused: missing or of another type.
    """
    value = fields.get(name, {} if not required else None)
    if not isinstance(value, dict):
        raise Refused("malformed", f"op {fields['op']} needs the field {name!r} as an object")
    return value
