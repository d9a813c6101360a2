"""The message codec against proton's, both ways, and against hostile bytes."""

import uuid
from typing import Any, cast

import proton
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.amqp.codec import CodecError, Message, decode, encode, encode_header
from protocols.amqp.types import (
    MAX_DEPTH,
    Byte,
    Char,
    Described,
    Float32,
    Int,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode_value,
    encode_value,
)

TO_PROTON: dict[type, Any] = {
    Timestamp: proton.timestamp,
    UByte: proton.ubyte,
    UShort: proton.ushort,
    UInt: proton.uint,
    ULong: proton.ulong,
    Byte: proton.byte,
    Short: proton.short,
    Int: proton.int32,
    Float32: proton.float32,
    Char: proton.char,
    Symbol: proton.symbol,
}


def integers(kind: type, bits: int, *, signed: bool) -> st.SearchStrategy[Any]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high).map(kind)


text = st.text(st.characters(codec="utf-8"), max_size=300)
ascii_text = st.text(st.characters(codec="ascii"), max_size=300)
unicode = st.characters(codec="utf-8", exclude_characters="\0")
name = st.text(unicode, min_size=1, max_size=40)
identity = st.one_of(name, st.uuids(), st.binary(max_size=300), integers(ULong, 64, signed=False))
simple = st.one_of(
    st.none(),
    st.booleans(),
    text,
    st.binary(max_size=300),
    st.floats(allow_nan=False),
    st.uuids(),
    ascii_text.map(Symbol),
    st.characters(codec="utf-8").map(Char),
    st.floats(allow_nan=False, width=32).map(Float32),
    integers(int, 64, signed=True),
    integers(Timestamp, 64, signed=True),
    integers(UByte, 8, signed=False),
    integers(UShort, 16, signed=False),
    integers(UInt, 32, signed=False),
    integers(ULong, 64, signed=False),
    integers(Byte, 8, signed=True),
    integers(Short, 16, signed=True),
    integers(Int, 32, signed=True),
)
compound = st.recursive(
    simple,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ascii_text.map(Symbol), inner, max_size=4),
)
seconds = st.integers(1, 4_000_000)
"""proton's Python binding speaks seconds in floats: whole ones survive it."""

messages = st.builds(
    Message,
    body=st.binary(max_size=600),
    body_kind=st.just("data"),
    durable=st.booleans(),
    priority=st.integers(0, 255).filter(lambda value: value != 4),  # the default: proton leaves it out
    ttl_ms=seconds.map(lambda value: value * 1000),
    delivery_count=st.integers(0, 2**32 - 1),
    message_id=identity,
    user_id=st.binary(min_size=1, max_size=300),
    to=name,
    subject=name,
    reply_to=name,
    correlation_id=st.none() | identity,
    content_type=ascii_text.map(lambda value: value.replace("\0", "") or "a/b"),
    absolute_expiry_ms=seconds.map(lambda value: value * 1000),
    creation_ms=seconds.map(lambda value: value * 1000),
    properties=st.dictionaries(text, simple, min_size=1, max_size=20),
    annotations=st.dictionaries(ascii_text.map(Symbol), compound, min_size=1, max_size=4),
)


def to_proton(value: Any) -> Any:
    """The value as proton's binding wants it."""
    if isinstance(value, list):
        return [to_proton(item) for item in value]
    if isinstance(value, dict):
        return {to_proton(key): to_proton(item) for key, item in value.items()}
    return TO_PROTON.get(type(value), lambda same: same)(value)


def from_proton(value: Any) -> Any:
    """The value as our codec gives it."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [from_proton(item) for item in value]
    if isinstance(value, dict):
        return {from_proton(key): from_proton(item) for key, item in value.items()}
    for ours, theirs in TO_PROTON.items():
        if type(value) is theirs:
            return ours(value)
    return value


def exact(value: Any) -> Any:
    """The value with its types, so that 1, True and ULong(1) differ."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        return [(exact(key), exact(item)) for key, item in value.items()]
    return type(value).__name__, value


def proton_message(message: Message) -> proton.Message:
    result = proton.Message(body=message.body, inferred=True)
    made: Any = result  # proton types its setters more narrowly than they are
    made.durable, made.priority = message.durable, message.priority
    made.ttl, made.delivery_count = (message.ttl_ms or 0) // 1000, message.delivery_count
    made.id, made.user_id = message.message_id, message.user_id
    made.address, made.subject, made.reply_to = message.to, message.subject, message.reply_to
    made.correlation_id, made.content_type = message.correlation_id, message.content_type
    made.expiry_time = (message.absolute_expiry_ms or 0) // 1000
    made.creation_time = (message.creation_ms or 0) // 1000
    made.properties, made.annotations = to_proton(message.properties), to_proton(message.annotations)
    return result


@given(messages)
def test_what_proton_encodes_decodes_to_the_same(message: Message) -> None:
    decoded = decode(bytes(proton_message(message).encode()))
    assert decoded == message
    assert exact(decoded.properties) == exact(message.properties)
    assert exact(decoded.annotations) == exact(message.annotations)
    assert type(decoded.message_id) is type(message.message_id)


@given(messages)
def test_proton_decodes_what_we_encode_to_the_same(message: Message) -> None:
    theirs = proton.Message()
    theirs.decode(encode(message))
    assert (theirs.durable, theirs.priority, theirs.delivery_count) == (
        message.durable,
        message.priority,
        message.delivery_count,
    )
    assert round(theirs.ttl * 1000) == message.ttl_ms
    assert (theirs.address, theirs.subject, theirs.reply_to) == (
        message.to,
        message.subject,
        message.reply_to,
    )
    assert (theirs.content_type, theirs.user_id) == (message.content_type, message.user_id)
    assert from_proton(theirs.id) == message.message_id
    assert from_proton(theirs.correlation_id) == message.correlation_id
    assert round(theirs.expiry_time * 1000) == message.absolute_expiry_ms
    assert round(theirs.creation_time * 1000) == message.creation_ms
    assert theirs.body == message.body
    assert exact(from_proton(theirs.properties)) == exact(message.properties)
    assert exact(from_proton(theirs.annotations)) == exact(message.annotations)


@given(messages)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    decoded = decode(encode(message))
    assert decoded == message
    assert exact(decoded.properties) == exact(message.properties)


@given(st.binary(max_size=400))
@example(b"\0\x53\x74\xc1\x03\x02\x40\x40")
@example(b"\0\x53\x75\xf0\0\0\0\x05\xff\xff\xff\xff\x40")
@example(b"\0\x53\x77\xe0\x02\xff\x41")
@example(b"\0\x53\x72" + b"\0" * 4000)
@example(b"\0\x53\x72" + b"\xc0\xff\xff" * 4000)
def test_any_bytes_are_a_message_or_a_codec_error(data: bytes) -> None:
    try:
        decode(data)
    except CodecError:
        return


@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_a_codec_error(message: Message, data: st.DataObject) -> None:
    whole = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        decode(bytes(whole[:cut]))
    except CodecError:
        return


@pytest.mark.parametrize(
    ("body", "kind", "content"),
    [
        (b"\0\x53\x77\xa1\x02ab", "string", b"ab"),
        (b"\0\x53\x77\xa0\x02ab", "binary", b"ab"),
        (b"\0\x53\x75\xa0\x02ab\0\x53\x75\xa0\x01c", "data", b"abc"),
        (b"\0\x80\0\0\0\0\0\0\0\x75\xb0\0\0\0\x01a", "data", b"a"),
        (b"\0\x53\x77\xc1\x01\x00", "other", b""),
        (b"\0\x53\x76\x45", "other", b""),
        (b"", "none", b""),
    ],
)
def test_every_kind_of_body_is_told(body: bytes, kind: str, content: bytes) -> None:
    message = decode(b"\0\x53\x70\x45" + body)
    assert (message.body_kind, message.body) == (kind, content)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\x53\x73\x45\0\x53\x70\x45",  # out of order
        b"\0\x53\x70\x45\0\x53\x70\x45",  # two headers
        b"\0\x53\x75\xa0\0\0\x53\x77\x40",  # two kinds of body
        b"\0\x53\x75\xa1\0",  # a data section that holds a string
        b"\0\x53\x79\x45",  # no section
        b"\x45",  # no section either
        b"\0\xa3\x01a\x45",  # a symbolic descriptor
        b"\0\x53\x74\xc1\x04\x02\xa1\x01a",  # a key and no value
        b"\0\x53\x74\xc1\x06\x02\xa1\x01a\xc0\x01\x00",  # a list as a property
        b"\0\x53\x74\xc1\x04\x02\x54\x01\x40",  # a property's name that is no string
        b"\0\x53\x70\xc0\x03\x01\xa1\0",  # durable: a string
        b"\0\x53\x73\xc0\x03\x01\x54\x01",  # message-id: an int
        b"\0\x53\x77\x73\0\0\xd8\0",  # a surrogate
        b"\0\x53\x77\x56\x02",  # neither true nor false
        b"\0\x53\x77\xa1\x01\xff",  # not UTF-8
        b"\0\x53\x77\x3f",  # no constructor
    ],
)
def test_what_no_message_may_hold_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


def test_nesting_ends_at_its_bound() -> None:
    deep: Any = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert decode_value(encode_value(deep))[0] == deep
    with pytest.raises(CodecError, match="nested"):
        decode_value(encode_value([[deep]]))


def test_an_array_that_claims_billions_of_empty_items_is_refused_at_once() -> None:
    with pytest.raises(CodecError, match="more items"):
        decode_value(b"\xf0\0\0\0\x05\xff\xff\xff\xff\x41")


@pytest.mark.parametrize(
    "value",
    [Opaque(0x74, bytes(4)), Opaque(0x94, bytes(16)), Described(Symbol("a:b"), [1, "two"]), {ULong(1): None}],
)
def test_rare_values_come_back_as_they_were(value: Any) -> None:
    assert exact(decode_value(encode_value(value))[0]) == exact(value)


def test_arrays_of_proton_decode_to_lists() -> None:
    data = proton.Data()
    undescribed = cast(Any, proton.UNDESCRIBED)
    data.put_object(proton.Array(undescribed, proton.Data.SYMBOL, proton.symbol("a"), proton.symbol("b")))
    assert exact(decode_value(bytes(data.encode()))[0]) == exact([Symbol("a"), Symbol("b")])
    data.clear()
    data.put_object(proton.Array(proton.symbol("d"), proton.Data.INT, 1, 2))
    described = [Described(Symbol("d"), Int(1)), Described(Symbol("d"), Int(2))]
    assert decode_value(bytes(data.encode()))[0] == described


@pytest.mark.parametrize(
    "message",
    [
        Message(priority=256),
        Message(ttl_ms=-1),
        Message(ttl_ms=2**32),
        Message(to="\ud800"),
        Message(content_type="ü"),
        Message(message_id=ULong(-1)),
        Message(properties={"a": 2**63}),
        Message(properties={"a": object()}),  # type: ignore[dict-item]
        Message(properties={1: "a"}),  # type: ignore[dict-item]
        Message(absolute_expiry_ms=2**63),
        Message(body=b"\xff", body_kind="string"),
    ],
)
def test_what_has_no_place_in_a_message_is_not_encoded(message: Message) -> None:
    with pytest.raises(CodecError):
        encode(message)


def test_durable_and_a_body_are_always_said() -> None:
    assert encode(Message()) == b"\0\x53\x70\xc0\x02\x01\x42\0\x53\x75\xa0\0"


def test_an_intermediary_replaces_the_header_alone() -> None:
    rest = encode(Message(durable=True, body=b"x", message_id=uuid.UUID(int=7)))[
        len(encode_header(True, None, None, 0)) :
    ]
    again = decode(encode_header(True, 9, 1000, 2) + rest)
    assert (again.priority, again.ttl_ms, again.delivery_count, again.body) == (9, 1000, 2, b"x")
    assert again.message_id == uuid.UUID(int=7)


def test_a_value_can_be_the_body_of_a_request() -> None:
    theirs = proton.Message()
    theirs.decode(encode(Message(message_id=ULong(1)), value={"durable": True, "arguments": {}}))
    assert theirs.body == {"durable": True, "arguments": {}}
