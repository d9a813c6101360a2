"""The simulated broker's codec: what breaks MQTT's rules is malformed, and nothing else is raised."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.mqtt.broker import packets
from sim.mqtt.broker.packets import Malformed, Message, Reader

TEXTS = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(st.integers(0, 268_435_455))
def test_lengths_survive_the_way(value: int) -> None:
    assert Reader(packets.varint(value)).varint() == value


@given(st.binary(max_size=80), st.booleans(), st.integers(0, 15))
def test_no_bytes_raise_anything_but_malformed(data: bytes, v5: bool, flags: int) -> None:
    for read in (
        lambda: packets.read_connect(data),
        lambda: packets.read_publish(flags, data, v5, 0.0),
        lambda: packets.read_subscribe(data, v5),
        lambda: packets.read_unsubscribe(data, v5),
        lambda: list(packets.split(bytearray(data), 1000)),
        lambda: Reader(data).properties(),
    ):
        try:
            read()
        except Malformed:
            pass


@given(
    TEXTS,
    st.binary(max_size=300),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.lists(TEXTS, max_size=3),
)
def test_a_publish_survives_the_way_in_pieces(
    topic: str, payload: bytes, qos: int, retain: bool, v5: bool, users: list[str]
) -> None:
    properties = tuple((0x26, (name.encode(), b"x")) for name in users) if v5 else ()
    message = Message(topic, payload, qos, retain, properties, 30.0 if v5 else None)
    data = packets.write_publish(message, 7, v5, 10.0)
    buffer, found = bytearray(), []
    for byte in data:  # one byte at a time: nothing is taken before it is whole
        buffer.append(byte)
        found += list(packets.split(buffer, 1000))
    ((kind, flags, body),) = found
    assert kind == packets.PUBLISH
    again, number = packets.read_publish(flags, body, v5, 10.0)
    assert (again, number) == (message, 7 if qos else 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x30\xff\xff\xff\xff\x01", "more than four bytes"),
        (b"\x30\xff\x7f", "longer than"),
        (b"\x80\x00", "flags"),
        (b"\x63\x00", "flags"),
    ],
)
def test_a_packet_that_breaks_the_rules_is_malformed(data: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        list(packets.split(bytearray(data), 1000))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\0\4MQTT\3\2\0\0\0\1a", "3.1.1 and 5"),
        (b"\0\6MQIsdp\3\2\0\0\0\1a", "3.1.1 and 5"),
        (b"\0\4MQTT\5\2\0\0\3\x21\0\0\0\1a", "receive maximum"),
        (b"\0\4MQTT\5\2\0\0\1\x77\0\1a", "no property"),
        (b"\0\4MQTT\4\2\0\0\0\1\0", "NUL"),
        (b"\0\4MQTT\4\2\0\0\0\1\xff", "UTF-8"),
    ],
)
def test_a_connect_that_breaks_the_rules_is_malformed(body: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        packets.read_connect(body)


@pytest.mark.parametrize(
    ("flags", "body"),
    [
        (6, b"\0\1a\0\1"),  # QoS 3
        (0, b"\0\0x"),  # no topic
        (0, b"\0\1#"),  # a filter
        (2, b"\0\1a\0\0"),  # packet identifier 0
    ],
)
def test_a_publish_that_breaks_the_rules_is_malformed(flags: int, body: bytes) -> None:
    with pytest.raises(Malformed):
        packets.read_publish(flags, body, False, 0.0)


def test_the_time_that_a_message_waited_is_taken_off_its_expiry() -> None:
    data = packets.write_publish(Message("a", b"", 0, False, (), 30.0), 0, True, 25.0)
    ((_, flags, body),) = packets.split(bytearray(data), 100)
    message, _ = packets.read_publish(flags, body, True, 100.0)
    assert message.expires == 105.0
    assert struct.pack(">I", 5) in body
