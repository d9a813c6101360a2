"""The reconnecting client against a peer that is told to be difficult."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from amqp_line import COMMANDS, EVENTS, HELLO, posted, running
from amqp_peer import PATIENCE_S, Peer
from waiting import until

from protocols.amqp.client import (
    Address,
    ConnectionLost,
    Delivery,
    LinkRefused,
    LinkState,
    NotReady,
    Outcome,
    OutcomeKind,
    Receiver,
    Sender,
    TooLarge,
)
from protocols.amqp.codec import CodecError, Message, encode
from protocols.amqp.performatives import Terminus


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer().listening() as one:
        yield one


# Reasons that people read


async def test_a_broker_that_is_not_there(unused_port: int) -> None:
    async with running(f"amqp://127.0.0.1:{unused_port}") as line:
        assert "refused the connection" in await line.until(LinkState.CONNECTING)
        assert not line.client.connected


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".example"])
async def test_a_name_that_nobody_has(host: str) -> None:
    async with running(f"amqp://{host}") as line:
        assert "cannot be reached" in await line.until(LinkState.CONNECTING)


async def test_a_broker_that_accepts_and_says_nothing(peer: Peer) -> None:
    peer.mute = True
    async with running(peer.url, connect_timeout=0.1) as line:
        assert "did not open the connection" in await line.until(LinkState.CONNECTING)


async def test_a_server_of_another_protocol() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        async with running(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}") as line:
            assert "does not speak AMQP 1.0" in await line.until(LinkState.CONNECTING)


async def test_a_wrong_password_is_said_and_a_right_one_comes_in(peer: Peer) -> None:
    peer.verify = lambda user, password: (user, password) == ("agent", "right")
    async with running(peer.url, username="agent", password="wrong", allow_plain=True) as line:
        reason = await line.until(LinkState.CONNECTING)
        assert "does not accept the credentials of user agent" in reason
    async with running(peer.url, username="agent", password="right", allow_plain=True) as line:
        await line.until(LinkState.CONNECTED)
        assert peer.connections[-1].user == "agent"


async def test_a_broker_that_wants_a_password(peer: Peer) -> None:
    peer.verify = lambda user, password: True
    async with running(peer.url) as line:
        assert "offers none of these ways to authenticate: ANONYMOUS" in await line.until(
            LinkState.CONNECTING
        )


# Sending


async def test_outcomes(peer: Peer) -> None:
    peer.settle = lambda delivery: delivery.reject("test:no", "not today")
    async with running(peer.url) as line:
        outcome = await posted(line)
        assert outcome == Outcome(OutcomeKind.REJECTED, "test:no", "not today")


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (EVENTS, OutcomeKind.UNROUTED),
        (Address("/queues/reply", "direct"), OutcomeKind.UNROUTED),
        (EVENTS, OutcomeKind.RELEASED),
    ],
)
async def test_released_means_unrouted_where_rabbitmq_says_it(
    peer: Peer, address: Address, kind: OutcomeKind
) -> None:
    peer.settle = Delivery.release
    if kind is OutcomeKind.UNROUTED:
        peer.product = {"product": "RabbitMQ", "version": "4.0.5"}
    async with running(peer.url) as line:
        assert (await posted(line, address)).kind is kind


async def test_without_credit_nothing_is_sent(peer: Peer) -> None:
    peer.credit = 1
    peer.settle = None
    async with running(peer.url) as line:
        sender = line.client.sender(EVENTS)
        with pytest.raises(NotReady):
            sender.post(HELLO)
        await sender.ready()
        future = sender.post(HELLO)
        with pytest.raises(NotReady):
            sender.post(HELLO)
        await peer.until(lambda: peer.deliveries)
        peer.deliveries[0].accept()
        assert (await future).kind == "accepted"


async def test_a_message_the_broker_would_not_take_is_not_sent(peer: Peer) -> None:
    peer.max_message_size = 1000
    async with running(peer.url) as line:
        with pytest.raises(TooLarge, match="1001 bytes; the broker takes 1000"):
            await posted(line, message=bytes(1001))
        assert (await posted(line, message=bytes(1000))).kind == "accepted"


async def test_a_refused_address_is_told_and_can_be_tried_again(peer: Peer) -> None:
    peer.refuse = {EVENTS.name}
    async with running(peer.url) as line:
        sender = line.client.sender(EVENTS)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(LinkRefused, match=r"no hil\.rig\.events\.pump here"):
                await sender.ready()
            peer.refuse = set()
            await sender.ready()
        assert (await sender.post(HELLO)).kind == "accepted"


async def test_a_closed_sender_leaves_what_it_had_sent_undecided(peer: Peer) -> None:
    peer.settle = None
    async with running(peer.url) as line:
        sender = line.client.sender(EVENTS)
        await sender.ready()
        future = sender.post(HELLO)
        await peer.until(lambda: peer.deliveries)
        sender.close()
        assert (await future).kind is OutcomeKind.MODIFIED  # settled without an outcome
        with pytest.raises(NotReady):
            sender.post(HELLO)


# Reconnecting


async def test_everything_is_attached_again(peer: Peer) -> None:
    peer.settle = None
    got: list[Delivery] = []
    async with running(peer.url) as line:
        line.client.receiver(COMMANDS, got.append, credit=10)
        sender = line.client.sender(EVENTS)
        await sender.ready()
        in_flight = sender.post(HELLO)
        await peer.until(lambda: peer.deliveries)
        peer.sender_to(COMMANDS.name).send(HELLO, lambda outcome: None)
        async with asyncio.timeout(PATIENCE_S):
            while not got:
                await asyncio.sleep(0.005)
        peer.connections[0].abort()
        with pytest.raises(ConnectionLost):
            await in_flight
        assert not got[0].accept()
        assert "ended the connection" in await line.until(LinkState.CONNECTING)
        await line.until(LinkState.CONNECTED, count=2)
        peer.settle = Delivery.accept
        async with asyncio.timeout(PATIENCE_S):
            await sender.ready()
            assert (await sender.post(HELLO)).kind == "accepted"
        await peer.until(lambda: peer.sender_to(COMMANDS.name).credit == 10)
        peer.sender_to(COMMANDS.name).send(HELLO, lambda outcome: None)
        async with asyncio.timeout(PATIENCE_S):
            while len(got) < 2:
                await asyncio.sleep(0.005)
        assert got[1].accept()


async def test_it_waits_for_a_broker_that_comes_later(unused_port: int) -> None:
    async with running(f"amqp://127.0.0.1:{unused_port}") as line:
        sender = line.client.sender(EVENTS)
        await line.until(LinkState.CONNECTING)
        async with Peer().listening(unused_port):
            async with asyncio.timeout(PATIENCE_S):
                await sender.ready()
                assert (await sender.post(HELLO)).kind == "accepted"


async def test_a_hung_broker_is_left(peer: Peer) -> None:
    """It gives credit, answers heartbeats, and settles nothing."""
    peer.settle = None
    async with running(peer.url, outcome_timeout=0.3) as line:
        sender = line.client.sender(EVENTS)
        await sender.ready()
        future = sender.post(HELLO)
        with pytest.raises(ConnectionLost):
            await future
        assert "settled nothing" in await line.until(LinkState.CONNECTING)
        await line.until(LinkState.CONNECTED, count=2)


@pytest.mark.parametrize("address", [EVENTS, COMMANDS], ids=["sender", "receiver"])
async def test_a_broker_that_answers_no_attach_is_left(peer: Peer, address: Address) -> None:
    peer.ignore = {address.name}
    async with running(peer.url, outcome_timeout=0.3) as line:
        if address is EVENTS:
            end: Sender | Receiver = line.client.sender(address)
        else:
            end = line.client.receiver(address, lambda _: None, credit=1)
        assert "it hangs" in await line.until(LinkState.CONNECTING)
        peer.ignore.clear()
        async with asyncio.timeout(PATIENCE_S):
            await (end.ready() if isinstance(end, Sender) else end.attached())


async def test_a_broker_without_credit_is_blocked_and_not_left(peer: Peer) -> None:
    peer.credit = 0
    async with running(peer.url, blocked_after=0.1, outcome_timeout=0.2) as line:
        sender = line.client.sender(EVENTS)
        assert EVENTS.name in await line.until(LinkState.BLOCKED)
        peer.give_credit(10)
        await line.until(LinkState.CONNECTED, count=2)
        await sender.ready()
        assert len(peer.connections) == 1


async def test_a_refused_receiver_is_tried_again(peer: Peer) -> None:
    peer.refuse = {COMMANDS.name}
    async with running(peer.url) as line:
        receiver = line.client.receiver(COMMANDS, Delivery.accept, credit=10)  # type: ignore[arg-type]
        with pytest.raises(LinkRefused, match="not-found"):
            await receiver.attached()
        peer.refuse = set()
        await peer.until(lambda: [link for link in peer.links if link.attached])


async def test_stopping_closes_in_order_and_what_was_sent_has_arrived(peer: Peer) -> None:
    async with running(peer.url) as line:
        sender = line.client.sender(EVENTS)
        await sender.ready()
        futures = [sender.post(bytes(50_000)) for _ in range(20)]
    assert len(peer.deliveries) == 20
    assert {future.result().kind for future in futures} == {"accepted"}
    assert peer.lost == [None]


async def test_stopping_does_not_wait_for_a_hung_broker(peer: Peer) -> None:
    async with running(peer.url, close_timeout=0.1) as line:
        await line.until(LinkState.CONNECTED)
        peer_socket = peer.connections[0]._socket
        assert peer_socket is not None
        peer_socket.pause_reading()
    assert line.states[-1][0] is LinkState.CONNECTED


async def test_stopping_while_connecting_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        async with running(f"amqp://127.0.0.1:{server.getsockname()[1]}") as line:
            await asyncio.sleep(0)
        assert line.states == [(LinkState.CONNECTING, "")]


async def test_a_message_too_large_to_keep_is_refused_alone(peer: Peer) -> None:
    failures: list[str] = []
    outcomes: list[Outcome | None] = []

    def take(delivery: Delivery) -> None:
        try:
            delivery.message()
            delivery.accept()
        except CodecError as error:
            failures.append(str(error))
            delivery.reject("amqp:decode-error", str(error))

    async with running(peer.url, max_message_size=1000) as line:
        line.client.receiver(COMMANDS, take, credit=10)
        await until(lambda: peer.links and peer.sender_to(COMMANDS.name).credit)
        for size in (900, 1001, 5_000_000, 10):
            peer.sender_to(COMMANDS.name).send(encode(Message(body=bytes(size))), outcomes.append)
        await until(lambda: len(outcomes) == 4)
        kinds = sorted(outcome.kind for outcome in outcomes if outcome is not None)
        assert kinds == ["accepted", "accepted", "rejected", "rejected"]
        assert failures == ["the message has more than 1000 bytes"] * 2


async def test_whoever_waits_for_a_sender_that_is_closed_is_told(peer: Peer) -> None:
    peer.credit = 0
    async with running(peer.url) as line:
        sender = line.client.sender(EVENTS)
        waiting = asyncio.create_task(sender.ready())
        await line.until(LinkState.CONNECTED)
        sender.close()
        with pytest.raises(LinkRefused, match="closed"):
            await waiting


async def test_a_receiver_that_fails_over_a_message_has_it_rejected_and_the_next(peer: Peer) -> None:
    taken: list[bytes] = []

    def take(delivery: Delivery) -> None:
        if not taken:
            taken.append(b"")
            raise ValueError("a bug")
        taken.append(delivery.message().body)

    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        receiver = line.client.receiver(COMMANDS, take, credit=10)
        await receiver.attached()
        outcomes: list[Outcome | None] = []
        sender = peer.sender_to(COMMANDS.name)
        await peer.until(lambda: sender.credit)
        for _ in range(2):
            sender.send(HELLO, outcomes.append)
        await until(lambda: len(taken) == 2 and outcomes)
        assert taken[1] == b"hello"
        assert outcomes[0] is not None
        assert outcomes[0].kind is OutcomeKind.REJECTED


async def test_a_sender_that_is_closed_leaves_nobody_waiting(peer: Peer) -> None:
    peer.credit = 0
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        sender = line.client.sender(EVENTS)
        waiting = asyncio.create_task(sender.ready())
        await peer.until(lambda: peer.links)
        sender.close()
        with pytest.raises(LinkRefused, match="closed"):
            await waiting


async def test_a_broker_that_attaches_links_to_us_is_refused(peer: Peer) -> None:
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        peer.connections[0].attach_sender(peer, Terminus("ours"))
        await peer.until(lambda: peer.detached)
        assert str(peer.detached[0][1]) == "this client accepts no links (amqp:not-allowed)"
        assert line.client.connected
