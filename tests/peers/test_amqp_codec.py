"""Our message codec and rhea's read each other."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rhea
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.amqp.cloudevents import Event, from_message, to_message
from protocols.amqp.codec import Message, MessageId, decode, encode
from protocols.amqp.types import Int, Timestamp, UInt, ULong

pytestmark = pytest.mark.peer("rhea")
MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def codec(need: Callable[[str, str | None, str], None]) -> Iterator[rhea.Codec]:
    need("rhea", rhea.why_missing(), rhea.GET)
    with rhea.codec() as one:
        yield one


def typed(value: Any) -> dict[str, Any]:
    """A value as codec.js shows it."""
    names = {str: "string", bool: "boolean", int: "long", Int: "int", UInt: "uint", ULong: "ulong"}
    match value:
        case bytes():
            return {"t": "binary", "v": value.hex()}
        case uuid.UUID():
            return {"t": "uuid", "v": value.hex}
        case Timestamp():
            return {"t": "timestamp", "v": str(int(value))}
        case bool() | str():
            return {"t": names[type(value)], "v": value}
    return {"t": names[type(value)], "v": str(int(value))}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
IDS: st.SearchStrategy[MessageId] = st.one_of(
    TEXT, st.integers(0, 2**64 - 1).map(ULong), st.uuids(), st.binary(max_size=40)
)
# The range of a JavaScript Date.
TIMES = st.integers(-(10**14), 10**14)
VALUES = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1).map(ULong),
    st.integers(-(2**31), 2**31 - 1).map(Int),
    st.integers(0, 2**32 - 1).map(UInt),
    TIMES.map(Timestamp),
    st.uuids(),
    st.binary(max_size=40),
)
MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=2000),
    durable=st.booleans(),
    priority=st.none() | st.integers(0, 9),
    ttl_ms=st.none() | st.integers(0, 2**32 - 1),
    message_id=st.none() | IDS,
    user_id=st.none() | st.binary(min_size=1, max_size=40),
    to=st.none() | TEXT,
    subject=st.none() | TEXT,
    reply_to=st.none() | TEXT,
    correlation_id=st.none() | IDS,
    content_type=st.none() | st.sampled_from(["application/json", "text/plain"]),
    absolute_expiry_ms=st.none() | TIMES,
    creation_ms=st.none() | TIMES,
    # JavaScript reorders keys that look like numbers, and __proto__ is no key there.
    properties=st.dictionaries(
        TEXT.filter(lambda key: not key.isdigit() and key != "__proto__"), VALUES, max_size=8
    ),
)


@MANY
@given(message=MESSAGES)
def test_rhea_reads_what_we_write(codec: rhea.Codec, message: Message) -> None:
    read = codec.decode(encode(message))
    assert read["body"] == {"section": "data", "data": message.body.hex()}
    assert read["application_properties"] == {key: typed(value) for key, value in message.properties.items()}
    ids = [None if one is None else typed(one) for one in (message.message_id, message.correlation_id)]
    assert read.get("ids", [None, None]) == ids
    assert read["user_id"] == (message.user_id.hex() if message.user_id else None)
    for name in ("durable", "ttl", "to", "subject", "reply_to", "content_type"):
        assert read[name] == getattr(message, "ttl_ms" if name == "ttl" else name), name
    assert (read["creation_time"], read["absolute_expiry_time"]) == (
        message.creation_ms,
        message.absolute_expiry_ms,
    )
    assert read["priority"] == message.priority


@MANY
@given(message=MESSAGES)
def test_we_read_what_rhea_writes(codec: rhea.Codec, message: Message) -> None:
    fields = {
        "durable": message.durable,
        "priority": message.priority,
        "ttl": message.ttl_ms,
        "message_id": None if message.message_id is None else typed(message.message_id),
        "correlation_id": None if message.correlation_id is None else typed(message.correlation_id),
        "user_id": message.user_id.hex() if message.user_id else None,
        "to": message.to,
        "subject": message.subject,
        "reply_to": message.reply_to,
        "content_type": message.content_type,
        "creation_time": message.creation_ms,
        "absolute_expiry_time": message.absolute_expiry_ms,
    }
    written = codec.encode(
        {name: value for name, value in fields.items() if value is not None}
        | {
            "application_properties": {key: typed(value) for key, value in message.properties.items()},
            "body": {"section": "data", "data": message.body.hex()},
        }
    )
    read = decode(written)
    # rhea writes the default priority where none is said.
    assert read.priority in (message.priority, 4)
    read.priority = message.priority
    assert read == message
    assert {key: type(value) for key, value in read.properties.items()} == {
        key: type(value) for key, value in message.properties.items()
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"t": "string", "v": '{"op":"ping"}'}, "string"), ({"t": "binary", "v": "7b7d"}, "binary")],
)
def test_a_command_may_come_as_a_value(codec: rhea.Codec, value: dict[str, Any], kind: str) -> None:
    read = decode(codec.encode({"body": {"section": "value", "value": value}}))
    assert (read.body_kind, read.body) == (kind, b'{"op":"ping"}' if kind == "string" else b"{}")


EVENT = Event(
    id="abc-1",
    source="/benches/rig-07/devices/pump-plc",
    type="io.hilgate.samples.v1",
    time_ns=1_790_000_000_123_456_789,
    sequence=17,
    epoch=3,
    mode="sil",
    data=b'{"samples":[]}',
)


def test_event_attributes_have_the_types_of_the_binding(codec: rhea.Codec) -> None:
    """CloudEvents AMQP binding 1.0.2, section 3.1: binary mode; wire.md section 2."""
    read = codec.decode(encode(to_message(EVENT)))
    properties = {
        name.removeprefix("cloudEvents:"): value
        for name, value in read["application_properties"].items()
        if name.startswith("cloudEvents:")
    }
    assert properties == {
        "specversion": {"t": "string", "v": "1.0"},
        "id": {"t": "string", "v": "abc-1"},
        "source": {"t": "string", "v": "/benches/rig-07/devices/pump-plc"},
        "type": {"t": "string", "v": "io.hilgate.samples.v1"},
        "time": {"t": "timestamp", "v": "1790000000123"},
        "sequence": {"t": "string", "v": "17"},
        "epoch": {"t": "int", "v": "3"},
        "mode": {"t": "string", "v": "sil"},
    }
    assert read["application_properties"]["_AMQ_DUPL_ID"] == {"t": "string", "v": "abc-1"}
    assert read["content_type"] == "application/json"
    assert read["ids"][0] == {"t": "string", "v": "abc-1"}


def test_we_read_an_event_that_rhea_wrote(codec: rhea.Codec) -> None:
    read = codec.decode(encode(to_message(EVENT)))
    written = codec.encode(
        {
            "content_type": "application/json",
            "message_id": {"t": "string", "v": "abc-1"},
            "application_properties": read["application_properties"],
            "body": read["body"],
        }
    )
    event = from_message(decode(written))
    assert event is not None
    assert (event.id, event.sequence, event.epoch, event.mode, event.data) == (
        "abc-1",
        17,
        3,
        "sil",
        EVENT.data,
    )
