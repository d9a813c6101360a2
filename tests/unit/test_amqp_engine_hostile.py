"""Whatever bytes a peer sends, in whatever pieces: the engine ends the connection at most."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.amqp.codec import Message, encode
from protocols.amqp.engine import ClientSasl, Connection, Open
from protocols.amqp.links import Delivery, Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Terminus
from protocols.amqp.sasl import SaslServer


class Wire(asyncio.Transport):
    """A socket without a network: keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0


class Side:
    """Accepts everything."""

    def __init__(self, server: bool) -> None:
        self.server = server
        self.lost = 0
        self.deliveries: list[Delivery] = []
        self.detached: list[Condition | None] = []
        sasl = SaslServer(None, anonymous=True) if server else None
        self.connection = Connection(self, client=None if server else ClientSasl(), server=sasl)
        self.wire = Wire()

    def on_open(self, connection: Connection) -> None:
        if self.server:
            connection.open(Open("server"))

    def on_link(self, link: Link) -> None:
        link.accept(link.peer_source, link.peer_target, self, 1_000_000)
        if isinstance(link, ReceiverLink):
            link.window = 10
            link.replenish()

    def on_attached(self, link: Link) -> None: ...

    def on_credit(self, link: SenderLink) -> None: ...

    def on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.accept()

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        self.detached.append(condition)

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        self.lost += 1


Turns = list[bytes]


async def conversation() -> tuple[Turns, Turns]:
    """What a client and a server say to each other, turn by turn, about a message each way."""
    client, server = Side(server=False), Side(server=True)
    client.connection.open(Open("client", hostname="h", properties={"product": "x"}, desired=("y",)))
    sender = client.connection.attach_sender(client, Terminus("q", capabilities=("queue",)))
    receiver = client.connection.attach_receiver(client, Terminus("t", capabilities=("topic",)))
    receiver.window = 5
    said: tuple[Turns, Turns] = ([], [])
    client.connection.connection_made(client.wire)
    server.connection.connection_made(server.wire)

    async def exchange() -> None:
        while client.wire.written or server.wire.written:
            out, client.wire.written = client.wire.written, b""
            back, server.wire.written = server.wire.written, b""
            said[0].append(out)
            said[1].append(back)
            server.connection.data_received(out)
            client.connection.data_received(back)
            for _ in range(3):
                await asyncio.sleep(0)

    await exchange()
    sender.send(encode(Message(body=b"x", message_id="1", properties={"a": 1})), lambda outcome: None)
    receiver.replenish()
    for _ in range(3):
        await asyncio.sleep(0)
    await exchange()
    for link in [*server.connection._links.values()]:
        if isinstance(link, SenderLink):
            link.send(encode(Message(body=b"y")), lambda outcome: None)
    for _ in range(3):
        await asyncio.sleep(0)
    await exchange()
    client.connection.close()
    await asyncio.sleep(0)
    await exchange()
    assert server.deliveries
    assert client.deliveries
    client.connection.connection_lost(None)
    server.connection.connection_lost(None)
    return said


@pytest.fixture(scope="module")
def recorded() -> tuple[Turns, Turns]:
    return asyncio.run(conversation())


def hear(server: bool, pieces: list[bytes]) -> Side:
    """Feeds bytes to one side of a connection until it ends, and lets it end."""

    async def run() -> Side:
        side = Side(server)
        side.connection.open(Open("us")) if not server else None
        side.connection.connection_made(side.wire)
        for piece in pieces:
            if not side.wire.closing:
                side.connection.data_received(piece)
                await asyncio.sleep(0)
        side.connection.connection_lost(None)
        assert side.lost == 1
        assert side.connection.closed.done()
        return side

    return asyncio.run(run())


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    cut, at = [], 0
    for size in sizes:
        cut.append(data[at : at + size])
        at += size
    return [*cut, data[at:]]


@given(st.booleans(), st.lists(st.binary(max_size=80), max_size=5), st.booleans())
@settings(max_examples=60)
def test_any_bytes(server: bool, chunks: list[bytes], after_headers: bool) -> None:
    header = [b"AMQP\3\1\0\0" if not server else b"AMQP\0\1\0\0"] if after_headers else []
    hear(server, header + chunks)


@given(st.booleans(), st.data())
@settings(max_examples=150)
def test_a_damaged_conversation(recorded: tuple[Turns, Turns], server: bool, data: st.DataObject) -> None:
    stream = bytearray(b"".join(recorded[0] if server else recorded[1]))
    for _ in range(data.draw(st.integers(1, 5))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    hear(server, pieces(bytes(stream), data.draw(st.lists(st.integers(1, 200), max_size=5))))


@given(st.lists(st.integers(1, 100), max_size=20))
@settings(max_examples=30)
def test_a_conversation_in_any_pieces_is_the_same(recorded: tuple[Turns, Turns], sizes: list[int]) -> None:
    heard = hear(True, [piece for turn in recorded[0] for piece in pieces(turn, sizes)])
    assert [delivery.data for delivery in heard.deliveries] == [
        encode(Message(body=b"x", message_id="1", properties={"a": 1}))
    ]


def _frame(body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4, "big") + b"\2\0\0\0" + body


@pytest.mark.parametrize(
    "performative",
    [
        b"\0S\x10\xc0\x08\1\xa1\5evil\xff",  # a container id that is no UTF-8
        b"\0S\x10\xc0\x0e\x0a\xa1\1x@@@@@@@@@",  # a short open
        b"\0S\x10\xc0\x18\x0a\xa1\1x@@@@@@@@\xc1\x0b\2\xc0\x04\1\xa1\1a\xa1\1b",  # a list as a key
    ],
)
def test_an_open_that_cannot_be_read(performative: bytes) -> None:
    hear(True, [b"AMQP\0\1\0\0", _frame(performative)])


def test_nesting_does_not_reach_pythons_stack() -> None:
    deep = b"\x45"
    for _ in range(3000):
        deep = b"\xd0" + (len(deep) + 4).to_bytes(4, "big") + b"\0\0\0\1" + deep
    properties = b"\xa3\1a" + deep
    fields = (
        b"\xa1\1x" + b"@" * 8 + b"\xd1" + (len(properties) + 4).to_bytes(4, "big") + b"\0\0\0\2" + properties
    )
    body = b"\0S\x10\xd0" + (len(fields) + 4).to_bytes(4, "big") + b"\0\0\0\x0a" + fields
    hear(True, [b"AMQP\0\1\0\0", _frame(body)])
