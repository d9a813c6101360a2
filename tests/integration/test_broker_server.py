"""The broker's server: faults that tests inject, hostile peers, TLS, and how it ends."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import proton
import pytest
import trustme
from waiting import until

from protocols.amqp.engine import ClientSasl, Connection, Open
from protocols.amqp.links import Delivery, Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Outcome, OutcomeKind, Terminus
from sim.broker import Broker, Limits

TIMEOUT = 30.0
OPEN = b"AMQP\x00\x01\x00\x00" + bytes.fromhex("00000011 02000000 005310c00401a10178")


def encoded(body: str, **fields: object) -> bytes:
    return bytes(proton.Message(body=body, **fields).encode())


class Peer:
    """One link of a client, noting what happens to it."""

    def __init__(self) -> None:
        self.link: Link
        self.attached = False
        self.detached: Condition | None = None
        self.over = False
        self.deliveries: list[Delivery] = []
        self.outcomes: list[Outcome | None] = []

    @property
    def messages(self) -> list[proton.Message]:
        messages = []
        for delivery in self.deliveries:
            messages.append(proton.Message())
            messages[-1].decode(delivery.data)
        return messages

    @property
    def bodies(self) -> list[object]:
        return [message.body for message in self.messages]

    def send(self, *bodies: str) -> None:
        assert isinstance(self.link, SenderLink)
        for body in bodies:
            self.link.send(encoded(body), self.outcomes.append)

    @property
    def accepted(self) -> int:
        return sum(1 for outcome in self.outcomes if outcome and outcome.kind is OutcomeKind.ACCEPTED)

    def on_attached(self, link: Link) -> None:
        self.attached = True

    def on_credit(self, link: SenderLink) -> None:
        pass

    def on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        self.over, self.detached = True, condition


class Client:
    """One connection of a client."""

    def __init__(self) -> None:
        self.opened = self.lost = False
        self.reason: Condition | None = None
        sasl = ClientSasl(mechanisms=("ANONYMOUS",))
        self.connection = Connection(self, client=sasl)

    async def sender(self, address: str) -> Peer:
        peer = Peer()
        link = peer.link = self.connection.attach_sender(peer, Terminus(address=address))
        await until(lambda: peer.attached and link.credit > 0)
        return peer

    async def receiver(self, address: str, credit: int = 100) -> Peer:
        peer = Peer()
        link = peer.link = self.connection.attach_receiver(peer, Terminus(address=address))
        await until(lambda: peer.attached)
        assert isinstance(link, ReceiverLink)
        link.flow(credit)
        return peer

    def on_open(self, connection: Connection) -> None:
        self.opened = True

    def on_link(self, link: Link) -> None:
        raise AssertionError("the broker attaches no links")

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        self.lost, self.reason = True, condition


@contextlib.asynccontextmanager
async def connected(
    broker: Broker, tls: ssl.SSLContext | None = None, container_id: str = "client", idle_timeout: float = 0.0
) -> AsyncIterator[Client]:
    client = Client()
    client.connection.open(Open(container_id, idle_timeout=idle_timeout))
    loop = asyncio.get_running_loop()
    host = "localhost" if tls else None
    await loop.create_connection(
        lambda: client.connection, "127.0.0.1", broker.port, ssl=tls, server_hostname=host
    )
    await until(lambda: client.opened)
    try:
        yield client
    finally:
        client.connection.close()
        await client.connection.wait_closed(TIMEOUT)


async def test_frozen_it_settles_and_delivers_nothing_and_then_catches_up(broker: Broker) -> None:
    async with connected(broker) as client:
        receiver = await client.receiver("q")
        sender = await client.sender("q")
        broker.freeze()
        sender.send("1", "2")
        other = await client.sender("marker")  # comes after them on the wire, and attaching still works
        assert other.attached
        assert (sender.outcomes, receiver.deliveries) == ([], [])
        broker.freeze(False)
        await until(lambda: sender.accepted == 2 and len(receiver.deliveries) == 2)
        assert receiver.bodies == ["1", "2"]


async def test_what_a_frozen_broker_never_accepted_is_not_sent_on(broker: Broker) -> None:
    async with connected(broker) as client:
        sender = await client.sender("q")
        broker.freeze()
        sender.send("lost")
        await client.sender("marker")
    broker.freeze(False)
    assert sender.outcomes == [None]
    async with connected(broker) as client:
        (await client.sender("q")).send("sent again")
        receiver = await client.receiver("q")
        await until(lambda: bool(receiver.deliveries))
        assert receiver.bodies == ["sent again"]


async def test_withheld_credit_stops_senders_until_it_is_given_back(broker: Broker) -> None:
    async with connected(broker) as client:
        sender = await client.sender("q")
        link = sender.link
        assert isinstance(link, SenderLink)
        broker.withhold_credit()
        await until(lambda: link.credit == 0)
        broker.withhold_credit(False)
        await until(lambda: link.credit == broker.limits.producer_window)
        sender.send("1")
        await until(lambda: sender.accepted == 1)


async def test_dropped_connections_end_without_a_word_and_what_was_held_is_kept(broker: Broker) -> None:
    async with connected(broker) as client:
        receiver = await client.receiver("q")
        sender = await client.sender("q")
        sender.send("1")
        await until(lambda: bool(receiver.deliveries))
        broker.drop_connections()
        await until(lambda: client.lost)
        assert client.reason is not None
    await until(lambda: broker.statistics().connections == 0)
    queue = broker.statistics().queue("q")
    assert queue is not None
    assert (queue.messages, queue.unsettled, queue.consumers) == (1, 0, 0)


async def test_a_producer_that_never_stops_is_held_to_its_credit(broker: Broker) -> None:
    async with connected(broker) as client:
        sender = await client.sender("q")
        link = sender.link
        assert isinstance(link, SenderLink)
        for _ in range(3):
            sent = 0
            while link.credit > 0:
                sender.send("x")
                sent += 1
            assert 0 < sent <= broker.limits.producer_window
            await until(lambda: link.unsettled == 0 and link.credit > 0)
        assert sender.accepted == len(sender.outcomes)


async def test_the_same_link_attached_twice_takes_over_its_durable_subscription(broker: Broker) -> None:
    source = Terminus(address="hil.rig.events.#", durability=2, never_expires=True)
    async with connected(broker) as hung, connected(broker) as again:
        first, second = Peer(), Peer()
        hung.connection.attach_receiver(first, source, name="log")
        await until(lambda: first.attached)
        link = again.connection.attach_receiver(second, source, name="log")
        await until(lambda: first.over and second.attached)
        assert first.detached is not None
        assert first.detached.name == "amqp:link:stolen"
        link.flow(1)
        (await again.sender("hil.rig.events.pump")).send("1")
        await until(lambda: second.bodies == ["1"])


@pytest.mark.parametrize(
    ("outcome", "again", "dead"),
    [
        (Outcome(OutcomeKind.ACCEPTED), None, 0),
        (Outcome(OutcomeKind.RELEASED), 0, 0),
        (Outcome(OutcomeKind.MODIFIED), 0, 0),
        (Outcome(OutcomeKind.MODIFIED, failed=True), 1, 0),
        (Outcome(OutcomeKind.MODIFIED, undeliverable=True), None, 1),
        (Outcome(OutcomeKind.REJECTED, "amqp:decode-error", "no"), None, 1),
    ],
)
async def test_what_a_consumer_says_of_a_message_decides_its_fate(
    broker: Broker, outcome: Outcome, again: int | None, dead: int
) -> None:
    async with connected(broker) as client:
        receiver = await client.receiver("q")
        sender = await client.sender("q")
        sender.send("first")
        await until(lambda: receiver.bodies == ["first"])
        receiver.deliveries.pop().settle(outcome)
        sender.send("second")  # comes after all that the outcome brings about
        await until(lambda: "second" in receiver.bodies)
        counts = {message.body: message.delivery_count for message in receiver.messages}
        assert counts == {"second": 0} | ({} if again is None else {"first": again})
    letters = broker.statistics().queue("DLQ")
    assert letters is not None
    assert letters.messages == dead


async def test_a_message_too_large_for_its_consumer_is_a_dead_letter(broker: Broker) -> None:
    async with connected(broker) as client:
        peer = Peer()
        link = client.connection.attach_receiver(peer, Terminus(address="q"), max_message_size=100)
        await until(lambda: peer.attached)
        link.flow(10)
        (await client.sender("q")).send("x" * 200, "small")
        await until(lambda: peer.bodies == ["small"])
    assert broker.statistics().counters.dead_lettered == 1


async def test_a_message_that_is_none_is_rejected_with_the_reason(broker: Broker) -> None:
    async with connected(broker) as client:
        sender = await client.sender("q")
        assert isinstance(sender.link, SenderLink)
        sender.link.send(b"\x00\x53\x75\xb0\xff\xff\xff\xff", sender.outcomes.append)
        sender.send("good")
        await until(lambda: len(sender.outcomes) == 2)
        refused = sender.outcomes[0]
        assert refused is not None
        assert (refused.kind, refused.condition) == (OutcomeKind.REJECTED, "amqp:decode-error")
        assert "middle of a value" in refused.description
        assert sender.accepted == 1


async def test_a_full_broker_releases_what_comes_over_the_relay() -> None:
    async with Broker(limits=Limits(max_queue_bytes=100)) as broker, connected(broker) as client:
        peer = Peer()
        link = client.connection.attach_sender(peer, Terminus())
        await until(lambda: peer.attached and link.credit > 0)
        for _ in range(10):
            link.send(encoded("x" * 50, address="q"), peer.outcomes.append)
        await until(lambda: len(peer.outcomes) == 10)
        kinds = [outcome.kind for outcome in peer.outcomes if outcome]
        assert kinds[0] is OutcomeKind.ACCEPTED
        assert kinds[-1] is OutcomeKind.RELEASED


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 64,
        b"AMQP\x00\x00\x09\x01",
        b"AMQP\x00\x01\x00\x00" + b"\xff" * 64,
        OPEN + bytes.fromhex("0000000c 02000000 00531245"),  # attaches without a session
    ],
)
async def test_a_peer_that_speaks_something_else_is_shown_out_and_nobody_else_notices(
    broker: Broker, garbage: bytes
) -> None:
    async with connected(broker) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(garbage)
        async with asyncio.timeout(TIMEOUT):
            await reader.read()  # until the broker closes
        writer.close()
        await writer.wait_closed()
        sender = await client.sender("q")
        sender.send("still here")
        await until(lambda: sender.accepted == 1)


async def test_a_silent_peer_is_dropped_after_its_idle_time() -> None:
    async with Broker(idle_timeout=0.2) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        opening = b"\x00\x53\x10\xc0\x04\x01\xa1\x01x"
        writer.write(
            b"AMQP\x00\x01\x00\x00" + (len(opening) + 8).to_bytes(4, "big") + b"\x02\x00\x00\x00" + opening
        )
        await until(lambda: broker.statistics().connections == 1)
        async with asyncio.timeout(TIMEOUT):
            assert b"idle" in await reader.read()
        writer.close()
        await writer.wait_closed()
        await until(lambda: broker.statistics().connections == 0)


async def test_whoever_connects_and_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.broker.clients.HANDSHAKE_TIMEOUT", 0.1)
    async with Broker() as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()
        await until(lambda: not broker.clients)


async def test_heartbeats_keep_a_quiet_connection() -> None:
    async with Broker(idle_timeout=0.2) as broker, connected(broker, idle_timeout=0.2) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(client.connection.closed), 1.0)


async def test_over_tls() -> None:
    authority = trustme.CA()
    server, client_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client_side)
    async with Broker(tls=server) as broker, connected(broker, client_side) as client:
        assert broker.url == f"amqps://127.0.0.1:{broker.port}"
        sender = await client.sender("q")
        sender.send("sealed")
        await until(lambda: sender.accepted == 1)


async def test_closing_says_goodbye_and_frees_the_port() -> None:
    broker = Broker()
    await broker.start()
    async with connected(broker) as client:
        await client.sender("q")
        silent, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        await broker.close()
        await until(lambda: client.lost)
        assert client.reason is not None
        assert client.reason.description == "the broker is shutting down"
        async with asyncio.timeout(TIMEOUT):
            assert await silent.read() == b""
        writer.close()
        await writer.wait_closed()
    await broker.close()
    async with Broker(port=broker.port) as successor:
        assert successor.port == broker.port


async def test_a_port_that_is_taken_is_an_error_at_start(broker: Broker) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await Broker(port=broker.port).start()
