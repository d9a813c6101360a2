import math
import uuid
from typing import Any

import proton
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.broker.message import MalformedMessage, Message, parse

BARE = proton.Message(body=b"x", id="1")

scalars = st.one_of(
    st.text(),
    st.binary(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.uuids(),
    st.none(),
)
bodies = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)
symbols = st.text("abc-:", min_size=1).map(proton.symbol)
messages = st.builds(
    proton.Message,
    body=bodies.filter(lambda body: body is not None),
    durable=st.booleans(),
    priority=st.integers(0, 9),
    ttl=st.sampled_from([0.0, 0.5, 60.0]),
    delivery_count=st.integers(0, 5),
    first_acquirer=st.booleans(),
    id=st.one_of(st.text(min_size=1), st.uuids(), st.integers(0, 2**64 - 1).map(proton.ulong)),
    address=st.text(st.characters(min_codepoint=1, codec="utf-8"), min_size=1) | st.none(),
    user_id=st.binary(min_size=1),
    properties=st.dictionaries(st.text(), scalars) | st.none(),
    annotations=st.none() | st.dictionaries(symbols, st.text()),
    instructions=st.none() | st.dictionaries(symbols, st.text()),
)


def encode(**fields: Any) -> bytes:
    return bytes(proton.Message(**{"body": b"x", **fields}).encode())


def decode(data: bytes) -> proton.Message:
    message = proton.Message()
    message.decode(data)
    return message


@given(messages)
def test_reads_what_proton_wrote(sent: proton.Message) -> None:
    message = parse(bytes(sent.encode()), now=100.0, wall_ms=0.0)
    assert bool(message.durable) == sent.durable
    assert message.rank == sent.priority
    assert message.delivery_count == sent.delivery_count
    assert bool(message.first_acquirer) == sent.first_acquirer
    assert message.to == sent.address
    assert message.user_id == sent.user_id
    assert message.expires == (100.0 + sent.ttl if sent.ttl else math.inf)


@given(messages, st.integers(0, 3))
def test_only_the_header_changes_on_the_way(sent: proton.Message, failures: int) -> None:
    data = bytes(sent.encode())
    got = decode(parse(data, 0.0, 0.0).outgoing(now=0.25, failures=failures))
    assert got.delivery_count == sent.delivery_count + failures
    assert got.durable == sent.durable
    assert got.priority == sent.priority
    assert got.ttl == pytest.approx(sent.ttl - 0.25 if sent.ttl else 0.0)
    assert got.first_acquirer is (sent.first_acquirer and not failures)
    assert not got.instructions
    got.ttl, got.delivery_count, got.first_acquirer = sent.ttl, sent.delivery_count, sent.first_acquirer
    got.instructions = sent.instructions
    assert got.encode() == data


def test_the_bytes_are_passed_on_as_they_are_where_nothing_changes() -> None:
    data = encode(durable=True, priority=7)
    assert parse(data, 0.0, 0.0).outgoing(now=50.0, failures=0) is data


def test_a_message_without_a_header_gets_one_when_it_failed() -> None:
    data = b"\x00\x53\x75\xa0\x01x"
    assert decode(parse(data, 0.0, 0.0).outgoing(0.0, failures=2)).delivery_count == 2


def test_the_earlier_of_ttl_and_absolute_expiry_counts() -> None:
    data = encode(ttl=10.0, expiry_time=1_000_004.0)
    assert parse(data, now=50.0, wall_ms=1_000_000_000.0).expires == pytest.approx(54.0)
    assert parse(data, now=50.0, wall_ms=999_990_000.0).expires == pytest.approx(60.0)


def test_the_ttl_that_leaves_is_never_nought_which_would_be_for_ever() -> None:
    assert decode(parse(encode(ttl=1.0), 0.0, 0.0).outgoing(now=1.0, failures=0)).ttl == pytest.approx(0.001)


def test_finds_the_properties_that_mean_something_to_a_broker() -> None:
    properties = {
        "a": [1, {"b": 2}],
        "_AMQ_DUPL_ID": "d-1",
        "cloudEvents:source": "/benches/rig",
        "z": uuid.uuid4(),
    }
    message = parse(encode(properties=properties), 0.0, 0.0)
    assert (message.duplicate_id, message.key) == ("d-1", "/benches/rig")
    message = parse(encode(properties={**properties, "_AMQ_LVQ_NAME": "rig"}), 0.0, 0.0)
    assert message.key == "rig"


def test_other_properties_are_left_alone() -> None:
    message = parse(encode(properties={"x": "_AMQ_DUPL_ID"}), 0.0, 0.0)
    assert (message.duplicate_id, message.key) == (None, None)


def test_a_delivery_count_cannot_overflow() -> None:
    data = Message(bytes(BARE.encode()), delivery_count=0xFFFFFFFF, rest=0).outgoing(0.0, 1)
    assert b"\x70\xff\xff\xff\xff" in data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello",
        b"\x00\x53\x70",
        b"\x00\x53\x70\x45",  # a header and no body
        b"\x00\x53\x73\x45\x00\x53\x70\x45\x00\x53\x75\xa0\x00",  # sections out of order
        b"\x00\x53\x70\xc0\x03\x01\xa1\x01x\x00\x53\x75\xa0\x00",  # durable is a string
        b"\x00\x53\x70\xc0\x0b\x03\x40\x40\x80\xff\xff\xff\xff\xff\xff\xff\xff\x00\x53\x75\xa0\x00",  # ttl
        b"\x00\x53\x70\xc0\x04\x02\x40\x52\x09\x00\x53\x75\xa0\x00",  # priority of the wrong type
        b"\x00\x53\x70\xc0\x02\x05\x41\x00\x53\x75\xa0\x00",  # five fields in room for one
        b"\x00\x53\x70\xa0\x00\x00\x53\x75\xa0\x00",  # the header is no list
        b"\x00\x53\x70\xd0\xff\xff\xff\xff\xff\xff\xff\xff\x00\x53\x75\xa0\x00",
        b"\x00\x53\x99\xa0\x00",  # no section of a message
        b"\x00\x53\x75\x10",  # no type
        b"\x00" * 100_000,
        b"\x00\x53" * 100_000,
        b"\x00\x53\x73\xc0\x08\x03\x40\x40\xa1\x01\xff\x40\x00\x53\x75\xa0\x00",  # to is not UTF-8
    ],
)
def test_refuses_what_is_no_message(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse(data, 0.0, 0.0)


def test_refuses_more_properties_than_anybody_needs() -> None:
    with pytest.raises(MalformedMessage, match="more than 1000"):
        parse(encode(properties={f"_AMQ_{number}": 1 for number in range(1001)}), 0.0, 0.0)


@given(st.binary(max_size=200))
def test_no_bytes_give_anything_but_a_message_or_its_refusal(data: bytes) -> None:
    try:
        message = parse(data, 0.0, 0.0)
    except MalformedMessage:
        return
    message.outgoing(0.0, 1)


@given(messages, st.data())
def test_no_damage_gives_anything_but_a_message_or_its_refusal(
    sent: proton.Message, data: st.DataObject
) -> None:
    damaged = bytearray(sent.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = parse(bytes(damaged), 0.0, 0.0)
    except MalformedMessage:
        return
    message.outgoing(0.0, 1)
