"""CloudEvents in AMQP messages, against the `cloudevents` package's own AMQP binding."""

import datetime
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from protocols.amqp.cloudevents import (
    DUPLICATE_ID,
    Event,
    from_message,
    parse_time,
    to_message,
)
from protocols.amqp.codec import CodecError, Message, decode, encode
from protocols.amqp.types import Int, Timestamp
from protocols.timestamps import rfc3339

EVENT = Event(
    id="a1-7",
    source="/benches/rig-07/devices/pump-plc",
    type="io.hilgate.samples.v1",
    time_ns=1_795_314_646_123_456_789,
    sequence=7,
    epoch=12,
    mode="hil",
    data=b'{"samples":[]}',
)
PCAP = msgspec.structs.replace(
    EVENT, data=b"\x4d\x3c\xb2\xa1", datacontenttype="application/vnd.tcpdump.pcap"
)

events = st.builds(
    Event,
    id=st.text(min_size=1, max_size=40),
    source=st.text(min_size=1, max_size=80),
    type=st.text(min_size=1, max_size=40),
    time_ns=st.integers(0, 4_000_000_000_000).map(lambda milliseconds: milliseconds * 1_000_000),
    sequence=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 2**31 - 1),
    mode=st.sampled_from(["hil", "sil"]),
    data=st.dictionaries(st.text(max_size=5), st.integers(-1000, 1000)).map(msgspec.json.encode),
    datacontenttype=st.just("application/json"),
)


def oracle(message: Message) -> AMQPMessage:
    """The message as the package's binding takes it, after it was on the wire."""
    sent = decode(encode(message))
    properties = {"content-type": sent.content_type}
    return AMQPMessage(properties, {**sent.properties}, sent.body)


@given(events, st.booleans())
def test_an_event_comes_back_as_it_was(event: Event, structured: bool) -> None:
    assert from_message(decode(encode(to_message(event, structured=structured)))) == event


@pytest.mark.parametrize("structured", [False, True])
def test_the_oracle_reads_what_we_write(structured: bool) -> None:
    theirs = from_amqp_event(oracle(to_message(EVENT, structured=structured)))
    assert theirs.get_id() == EVENT.id
    assert theirs.get_source() == EVENT.source
    assert theirs.get_type() == EVENT.type
    assert theirs.get_datacontenttype() == EVENT.datacontenttype
    assert (theirs.get_extension("sequence"), theirs.get_extension("epoch")) == ("7", 12)
    assert theirs.get_extension("mode") == "hil"
    assert theirs.get_data() == {"samples": []}
    time = theirs.get_time()
    assert time is not None
    assert abs(time.timestamp() * 1e9 - EVENT.time_ns) < 1e6


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
def test_we_read_what_the_oracle_writes(write: Any) -> None:
    theirs = CloudEvent(
        attributes={
            "specversion": "1.0",
            "id": EVENT.id,
            "source": EVENT.source,
            "type": EVENT.type,
            "time": datetime.datetime(2026, 11, 22, 2, 30, 46, 123000, datetime.UTC),
            "datacontenttype": "application/json",
            "sequence": "7",
            "epoch": 12,
            "mode": "sil",
        },
        data={"samples": []},
    )
    made = write(theirs)
    message = Message(
        body=made.application_data,
        content_type=made.properties["content-type"],
        properties=made.application_properties,
    )
    ours = from_message(decode(encode(message)))
    assert (ours.id, ours.source, ours.type, ours.mode) == (EVENT.id, EVENT.source, EVENT.type, "sil")
    assert (ours.sequence, ours.epoch, ours.time_ns) == (7, 12, parse_time("2026-11-22T02:30:46.123Z"))
    assert msgspec.json.decode(ours.data) == {"samples": []}


def test_binary_mode_uses_the_types_of_the_binding() -> None:
    message = decode(encode(to_message(EVENT)))
    properties = message.properties
    assert message.message_id == properties["cloudEvents:id"] == properties[DUPLICATE_ID] == EVENT.id
    assert message.content_type == "application/json"
    assert type(properties["cloudEvents:time"]) is Timestamp
    assert type(properties["cloudEvents:epoch"]) is Int
    assert properties["cloudEvents:sequence"] == "7"
    assert properties["cloudEvents:specversion"] == "1.0"


def test_structured_mode_carries_bytes_and_every_nanosecond() -> None:
    message = to_message(PCAP, structured=True)
    assert message.properties == {DUPLICATE_ID: EVENT.id}
    assert from_message(message) == PCAP
    assert msgspec.json.decode(message.body)["data_base64"] == "TTyyoQ=="


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("id", None),
        ("source", ""),
        ("type", 7),
        ("time", None),
        ("time", "yesterday"),
        ("time", True),
        ("sequence", "x"),
        ("sequence", "9" * 21),
        ("epoch", True),
        ("mode", "both"),
    ],
)
def test_what_is_no_event_of_ours_is_refused(name: str, value: Any) -> None:
    message = to_message(EVENT)
    message.properties[f"cloudEvents:{name}"] = value
    with pytest.raises(CodecError):
        from_message(message)


@given(st.binary(max_size=200))
def test_any_structured_bytes_are_an_event_or_a_codec_error(body: bytes) -> None:
    with pytest.raises(CodecError):
        from_message(Message(body=body, content_type="application/cloudevents+json"))


@given(
    st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_any_structured_json_is_an_event_or_a_codec_error(value: Any) -> None:
    with pytest.raises(CodecError):
        from_message(
            Message(
                body=msgspec.json.encode({"id": value, "data": value}),
                content_type="application/cloudevents+json",
            )
        )


@given(st.integers(0, 253_402_300_799_999_999_999))
def test_times_keep_their_nanoseconds(time_ns: int) -> None:
    assert parse_time(rfc3339(time_ns)) == time_ns


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_codec_error(text: str) -> None:
    try:
        parse_time(text)
    except CodecError:
        return


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00.5+01:00", 500_000_000),
    ],
)
def test_times_are_read_with_their_zone(text: str, time_ns: int) -> None:
    assert parse_time(text) == time_ns


@pytest.mark.parametrize(
    "text",
    ["1970-01-01T00:00:00", "1970-01-01", "1970-01-01T00:00:00.1234567890Z", "1970-01-01T00:00:00.Z", ""],
)
def test_times_without_a_zone_or_with_ten_decimals_are_refused(text: str) -> None:
    with pytest.raises(CodecError):
        parse_time(text)
