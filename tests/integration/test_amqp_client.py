"""The reconnecting client against a peer that is told to be difficult."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from amqp_peer import PATIENCE_S, Peer

from protocols.amqp.client import (
    Address,
    Client,
    ConnectionLost,
    Delivery,
    LinkRefused,
    LinkState,
    NotReady,
    Options,
    Outcome,
    OutcomeKind,
    TlsOptions,
    TooLarge,
)
from protocols.amqp.codec import Message, encode

EVENTS = Address("hil.rig.events.pump", "topic")
COMMANDS = Address("hil.rig.commands", "queue")
HELLO = encode(Message(body=b"hello"))


class Line:
    """A running client and what it said of its connection."""

    def __init__(self, url: str, **options: Any) -> None:
        quick: dict[str, Any] = {"backoff_min": 0.01, "backoff_max": 0.05, "close_timeout": 0.5} | options
        self.states: list[tuple[LinkState, str]] = []
        self.client = Client(Options(url, "line", **quick), self._on_state)
        self._news = asyncio.Event()

    def _on_state(self, state: LinkState, reason: str) -> None:
        self.states.append((state, reason))
        self._news.set()

    async def until(self, state: LinkState, count: int = 1) -> str:
        """Waits for the `count`-th time of a state with a reason, and returns the reason."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reasons = [reason for said, reason in self.states if said is state and reason]
                if len(reasons) >= count:
                    return reasons[count - 1]
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Line]:
    line = Line(url, **options)
    task = asyncio.create_task(line.client.run(), name="client")
    try:
        yield line
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer().listening() as one:
        yield one


async def posted(line: Line, address: Address = EVENTS, message: bytes = HELLO) -> Outcome:
    sender = line.client.sender(address)
    async with asyncio.timeout(PATIENCE_S):
        await sender.ready()
        return await sender.post(message)


# Reasons that people read


async def test_a_broker_that_is_not_there(unused_port: int) -> None:
    async with running(f"amqp://127.0.0.1:{unused_port}") as line:
        assert "refused the connection" in await line.until(LinkState.CONNECTING)
        assert not line.client.connected


async def test_a_name_that_nobody_has() -> None:
    async with running("amqp://no-such-host.invalid") as line:
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


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def test_tls_with_names_checked_both_ways(authority: trustme.CA, tmp_path: Path) -> None:
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(ca)
    ours = authority.issue_cert("agent.example")
    ours.private_key_pem.write_to_path(key)
    ours.cert_chain_pems[0].write_to_path(cert)
    peer = Peer()
    async with peer.listening(tls=server_context(authority, "localhost")):
        url = f"amqps://localhost:{peer.port}"
        tls = TlsOptions(ca=ca, cert=cert, key=key)
        async with running(url, tls=tls, sasl=("ANONYMOUS",)) as line:
            assert (await posted(line)).kind == "accepted"
            theirs = peer.connections[-1]._socket
            assert theirs is not None
            assert theirs.get_extra_info("peercert")["subject"]


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [("localhost", False, "certificate"), ("other.example", True, "certificate"), ("localhost", True, "")],
)
async def test_a_certificate_that_proves_nothing_is_refused(
    authority: trustme.CA, tmp_path: Path, name: str, trusted: bool, words: str
) -> None:
    ca = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(ca)
    peer = Peer()
    async with peer.listening(tls=server_context(authority, name)):
        async with running(f"amqps://localhost:{peer.port}", tls=TlsOptions(ca=ca)) as line:
            if words:
                assert words in await line.until(LinkState.CONNECTING)
                assert not peer.connections or not peer.connections[0].peer_container
            else:
                await line.until(LinkState.CONNECTED)


async def test_a_lab_without_authorities_may_switch_checks_off(authority: trustme.CA) -> None:
    peer = Peer()
    async with peer.listening(tls=server_context(authority, "other.example")):
        async with running(f"amqps://localhost:{peer.port}", tls=TlsOptions(verify=False)) as line:
            await line.until(LinkState.CONNECTED)


async def test_tls_to_a_port_without_it(peer: Peer) -> None:
    async with running(f"amqps://localhost:{peer.port}", connect_timeout=1.0) as line:
        reason = await line.until(LinkState.CONNECTING)
        assert "TLS with broker" in reason or "did not answer" in reason


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


# Replies


async def test_the_relay_carries_replies_where_it_is_offered(peer: Peer) -> None:
    peer.offered = ("ANONYMOUS-RELAY",)
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        for number in range(3):
            to = f"reply-{number}"
            assert (await line.client.reply(to, encode(Message(to=to)))).kind == "accepted"
        assert [delivery.message().to for delivery in peer.deliveries] == ["reply-0", "reply-1", "reply-2"]
        assert len(peer.links) == 1


async def test_a_relay_that_ends_over_a_bad_address_is_not_used_again(peer: Peer) -> None:
    from protocols.amqp.performatives import Condition

    peer.offered = ("ANONYMOUS-RELAY",)
    peer.refuse = {"gone"}
    peer.settle = lambda delivery: delivery.link.close(Condition("amqp:not-found", "no gone here"))
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        with pytest.raises(ConnectionLost):
            await line.client.reply("gone", encode(Message(to="gone")))
        with pytest.raises(ConnectionLost):
            await line.client.reply("gone", encode(Message(to="gone")))
        outcome = await line.client.reply("gone", encode(Message(to="gone")))
        assert (outcome.kind, outcome.condition) == (OutcomeKind.REJECTED, "amqp:not-found")
        assert line.client.connected


async def test_replies_without_a_relay_have_a_sender_each_for_a_while(peer: Peer) -> None:
    peer.refuse = {"gone"}
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        for number in range(40):
            assert (await line.client.reply(f"reply-{number % 36}", HELLO)).kind == "accepted"
        assert (await line.client.reply("gone", HELLO)).kind is OutcomeKind.REJECTED
        assert (await line.client.reply("reply-0", HELLO)).kind == "accepted"
        assert len([link for link in peer.links if link.attached]) <= 33
        assert len(peer.connections) == 1


async def test_a_reply_node_without_credit_is_for_later(peer: Peer) -> None:
    peer.credit = 0
    async with running(peer.url, outcome_timeout=0.1) as line:
        await line.until(LinkState.CONNECTED)
        assert (await line.client.reply("full", HELLO)).kind is OutcomeKind.RELEASED


async def test_without_a_connection_there_is_no_reply(unused_port: int) -> None:
    async with running(f"amqp://127.0.0.1:{unused_port}") as line:
        with pytest.raises(ConnectionLost):
            await line.client.reply("anyone", HELLO)


async def test_replies_are_received_at_a_dynamic_node(peer: Peer) -> None:
    got: list[Delivery] = []
    async with running(peer.url) as line:
        address = await line.client.open_replies(got.append)
        assert address == "dynamic-1"


async def test_a_bad_message_is_its_receivers_affair(peer: Peer) -> None:
    from protocols.amqp.codec import CodecError

    failures: list[str] = []

    def take(delivery: Delivery) -> None:
        try:
            delivery.message()
        except CodecError as error:
            failures.append(str(error))
            delivery.reject("amqp:decode-error", str(error))

    async with running(peer.url) as line:
        line.client.receiver(COMMANDS, take, credit=10)
        await peer.until(lambda: peer.links and peer.sender_to(COMMANDS.name).credit)
        outcomes: list[Outcome | None] = []
        note: Callable[[Outcome | None], None] = lambda outcome: (outcomes.append(outcome), peer._news.set())  # type: ignore[func-returns-value,assignment]  # noqa: E731
        peer.sender_to(COMMANDS.name).send(b"\xff" * 100, note)
        await peer.until(lambda: outcomes)
        assert outcomes[0] is not None
        assert outcomes[0].kind is OutcomeKind.REJECTED
        assert len(failures) == 1
