"""The engine over real sockets: every trap of proton and of brokers that it is built around."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial

import cproton
import pytest
from amqp_peer import Caller, Peer, calling
from waiting import until

from protocols.amqp.codec import Message, encode
from protocols.amqp.engine import ClientSasl, Connection, Open
from protocols.amqp.links import Delivery, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Outcome, OutcomeKind, Terminus, set_condition


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer().listening() as one:
        yield one


async def sender_with_credit(caller: Caller, connection: Connection, address: str = "q") -> SenderLink:
    link = connection.attach_sender(caller, Terminus(address))
    await caller.until(lambda: link.credit > 0)
    return link


def noting(caller: Caller, take: Callable[[Outcome | None], object]) -> Callable[[Outcome | None], None]:
    """What is called with a message's outcome: keeps it, and lets the caller look again."""

    def called(outcome: Outcome | None) -> None:
        take(outcome)
        caller.note()

    return called


async def test_open_frames_tell_who_is_there(peer: Peer) -> None:
    peer.product, peer.offered = {"product": "x", "version": "1.2"}, ("ANONYMOUS-RELAY", "y")
    async with calling(peer) as (_, connection):
        assert connection.peer_container == "peer"
        assert connection.peer_properties == {"product": "x", "version": "1.2"}
        assert connection.peer_offers == ("ANONYMOUS-RELAY", "y")
        assert peer.connections[0].peer_container == "caller"


async def test_each_outcome_reaches_the_message_it_is_of(peer: Peer) -> None:
    """Settled in random order: proton uses a settled delivery's memory again for the next one."""
    peer.settle = None
    got: dict[int, Outcome | None] = {}
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        sent = 0
        while len(got) < 1000:
            while link.credit > 0 and sent < 1000:
                number = sent
                link.send(b"%d" % number, noting(caller, partial(got.__setitem__, number)))
                sent += 1
            await peer.until(lambda: peer.deliveries)
            random.Random(len(got)).shuffle(peer.deliveries)
            settled, peer.deliveries = peer.deliveries, []
            for delivery in settled:
                if int(delivery.data) % 3:
                    delivery.reject("test:odd", delivery.data.decode())
                else:
                    delivery.accept()
            await caller.until(partial(lambda many: len(got) == many, len(got) + len(settled)))
    for number, outcome in got.items():
        wanted = OutcomeKind.REJECTED if number % 3 else OutcomeKind.ACCEPTED
        assert outcome is not None
        assert outcome.kind is wanted
        assert outcome.description == (str(number) if number % 3 else "")


async def test_binary_delivery_tags_are_nobodys_text(peer: Peer) -> None:
    """The 255th tag is no UTF-8, on which proton's own `Delivery.tag` fails."""
    async with calling(peer) as (caller, connection):
        link = connection.attach_receiver(caller, Terminus("q"))
        link.window = 400
        await caller.until(lambda: caller.attached)
        link.replenish()
        await peer.until(lambda: peer.sender_to("q").credit > 0)
        for number in range(300):
            peer.sender_to("q").send(b"%d" % number, lambda outcome: None)
        await caller.until(lambda: len(caller.deliveries) == 300)
        assert all(delivery.accept() for delivery in caller.deliveries)


async def test_every_outcome_has_its_way(peer: Peer) -> None:
    wanted = [
        Outcome(OutcomeKind.ACCEPTED),
        Outcome(OutcomeKind.REJECTED, "a:b", "because"),
        Outcome(OutcomeKind.RELEASED),
        Outcome(OutcomeKind.MODIFIED, failed=True),
        Outcome(OutcomeKind.MODIFIED, undeliverable=True),
    ]
    outcomes = iter(wanted)
    peer.settle = lambda delivery: delivery.settle(next(outcomes))
    got: list[Outcome | None] = []
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        for count in range(len(wanted)):
            link.send(b"x", noting(caller, got.append))
            await caller.until(partial(lambda many: len(got) > many, count))
    assert got == wanted


async def test_a_message_of_many_frames_arrives_whole(peer: Peer) -> None:
    async with calling(peer) as (caller, connection):
        first = await sender_with_credit(caller, connection, "a")
        second = await sender_with_credit(caller, connection, "b")
        large = [bytes([number]) * 5_000_000 for number in range(4)]
        for number, message in enumerate(large):
            (first if number % 2 else second).send(message, lambda outcome: None)
        await peer.until(lambda: len(peer.deliveries) == 4)
    assert sorted(delivery.data for delivery in peer.deliveries) == large


async def test_a_message_over_the_limit_ends_its_link_alone(peer: Peer) -> None:
    peer.max_message_size = 300_000
    lost: list[Outcome | None] = []
    async with calling(peer) as (caller, connection):
        other = await sender_with_credit(caller, connection, "other")
        link = await sender_with_credit(caller, connection)
        assert link.peer_max_message_size == 300_000
        link.send(bytes(400_000), lost.append)
        await caller.until(lambda: caller.detached)
        assert caller.detached[0][0] is link
        assert str(caller.detached[0][1]).endswith("(amqp:link:message-size-exceeded)")
        assert lost == [None]
        assert link.credit == 0
        other.send(b"after", lambda outcome: None)
        await peer.until(lambda: peer.deliveries)
        assert peer.deliveries[0].data == b"after"


async def test_an_aborted_message_is_forgotten(peer: Peer) -> None:
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        delivery = cproton.pn_delivery(link.impl, b"tag")
        cproton.pn_link_send(link.impl, bytes(300_000))
        connection.wake()
        await until(lambda: any(isinstance(link, ReceiverLink) and link._partial for link in peer.links))
        cproton.pn_delivery_abort(delivery)
        link.send(b"whole", lambda outcome: None)
        await peer.until(lambda: peer.deliveries)
        assert [delivery.data for delivery in peer.deliveries] == [b"whole"]


async def test_a_refused_link_is_told_and_never_attached(peer: Peer) -> None:
    peer.refuse = {"gone"}
    async with calling(peer) as (caller, connection):
        connection.attach_sender(caller, Terminus("gone"))
        connection.attach_receiver(caller, Terminus("gone"))
        await caller.until(lambda: len(caller.detached) == 2)
        assert {condition for _, condition in caller.detached} == {
            Condition("amqp:not-found", "no gone here")
        }
        assert not caller.attached


async def test_the_end_of_a_session_ends_its_link_alone(peer: Peer) -> None:
    async with calling(peer) as (caller, connection):
        other = await sender_with_credit(caller, connection, "other")
        link = await sender_with_credit(caller, connection, "bad")
        session = peer.links[-1].session
        set_condition(cproton.pn_session_condition(session), Condition("amqp:not-found", "no such exchange"))
        cproton.pn_session_close(session)
        peer.connections[0].wake()
        await caller.until(lambda: caller.detached)
        assert caller.detached == [(link, Condition("amqp:not-found", "no such exchange"))]
        other.send(b"after", lambda outcome: None)
        await peer.until(lambda: peer.deliveries)


async def test_settling_late_in_any_order_and_after_the_end(peer: Peer) -> None:
    peer.settle = None
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        for _ in range(4):
            link.send(b"x", lambda outcome: None)
        await peer.until(lambda: len(peer.deliveries) == 4)
        assert peer.deliveries[2].accept()
        assert not peer.deliveries[2].release()
        link.close()
        await peer.until(lambda: peer.detached)
        assert not peer.deliveries[0].accept()
    await peer.until(lambda: peer.lost)
    assert not peer.deliveries[1].reject("a:b", "too late")
    assert peer.deliveries[1].link.credit == 0
    assert peer.deliveries[1].link.peer_target is None


async def test_settled_messages_need_no_outcome(peer: Peer) -> None:
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        link.send(b"x", None)
        await peer.until(lambda: peer.deliveries)
        assert peer.deliveries[0].settled
        assert not peer.deliveries[0].accept()
        assert link.unsettled == 0


async def test_the_window_counts_what_is_unsettled(peer: Peer) -> None:
    peer.credit, peer.settle = 4, None
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        for _ in range(4):
            link.send(b"x", lambda outcome: None)
        await peer.until(lambda: len(peer.deliveries) == 4)
        assert link.credit == 0
        peer.deliveries[0].accept()
        await caller.until(lambda: link.credit == 1)


async def test_drained_credit_goes_back(peer: Peer) -> None:
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        incoming = peer.links[0]
        assert isinstance(incoming, ReceiverLink)
        cproton.pn_link_set_drain(incoming.impl, True)
        peer.connections[0].wake()
        await caller.until(lambda: link.draining)
        link.drained()
        await caller.until(lambda: link.credit == 0)


async def test_close_waits_for_the_peers_close_and_loses_no_outcome(peer: Peer) -> None:
    got: list[Outcome | None] = []
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        for _ in range(50):
            link.send(bytes(10_000), got.append)
        connection.close()
        await connection.wait_closed(5.0)
    assert [outcome.kind for outcome in got if outcome is not None] == [OutcomeKind.ACCEPTED] * 50
    assert caller.lost == peer.lost == [None]


async def test_a_peer_that_vanishes_ends_every_link_once(peer: Peer) -> None:
    lost: list[Outcome | None] = []
    peer.settle = None
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        link.send(b"x", lost.append)
        await peer.until(lambda: peer.deliveries)
        peer.connections[0].abort()
        await caller.until(lambda: caller.lost)
        assert [gone for gone, _ in caller.detached] == [link]
        assert lost == [None]
        assert "connection was lost" in str(caller.lost[0])
        assert connection.over
        connection.close()  # too late, and harmless
        link.close()


async def test_a_peer_that_does_not_answer_the_close_is_dropped(peer: Peer) -> None:
    async with calling(peer) as (caller, connection):
        peer.connections[0]._socket.pause_reading()  # type: ignore[union-attr]
        connection.close()
        await connection.wait_closed(0.1)
        assert caller.lost


async def test_a_peer_that_does_not_read_takes_credit_and_gives_it_back(peer: Peer) -> None:
    peer.credit = 1000
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        socket = peer.connections[0]._socket
        assert socket is not None
        socket.pause_reading()
        sent = 0
        while link.credit > 0:
            link.send(bytes(200_000), lambda outcome: None)
            sent += 1
            await asyncio.sleep(0)
        assert connection.congested
        assert sent < 1000
        socket.resume_reading()
        await caller.until(lambda: link.credit > 0)
        await peer.until(lambda: len(peer.deliveries) == sent)


async def test_heartbeats_keep_a_quiet_connection(peer: Peer) -> None:
    async with calling(peer, idle_timeout=0.2) as (caller, connection):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await asyncio.shield(connection.closed)
        assert not caller.lost


async def test_a_silent_peer_is_given_up(peer: Peer) -> None:
    async with calling(peer, idle_timeout=0.2) as (caller, _):
        timer = peer.connections[0]._timer
        assert timer is not None
        timer.cancel()  # no more heartbeats
        await caller.until(lambda: caller.lost)
        assert "local-idle-timeout" in str(caller.lost[0])


async def test_a_peer_that_speaks_something_else_is_told_from_one_that_fails() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    caller = Caller()
    connection = Connection(caller, client=ClientSasl())
    connection.open(Open("caller"))
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
        await caller.until(lambda: caller.lost)
    assert caller.lost[0] is not None
    assert caller.lost[0].name == "amqp:connection:framing-error"


async def test_nothing_is_left_of_what_is_closed(peer: Peer) -> None:
    """State that leads back to a proton object would keep it for ever."""
    links: list[weakref.ref[SenderLink]] = []
    async with calling(peer) as (caller, connection):
        for _ in range(20):
            link = await sender_with_credit(caller, connection)
            link.send(encode(Message(body=b"x")), lambda outcome: None)
            links.append(weakref.ref(link))
            link.close()
            await caller.until(lambda: caller.detached)
            caller.detached.clear()
            caller.attached.clear()
        gone = weakref.ref(connection)
    del link, connection
    peer.links.clear()
    gc.collect()
    assert [ref() for ref in links] == [None] * 20
    assert gone() is None


async def test_a_callback_that_fails_is_not_called_again(peer: Peer) -> None:
    failures: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: failures.append(context["exception"])
    )

    def fail(delivery: Delivery) -> None:
        raise RuntimeError("a fault of the owner")

    peer.settle = fail
    async with calling(peer) as (caller, connection):
        link = await sender_with_credit(caller, connection)
        link.send(b"x", lambda outcome: None)
        await caller.until(lambda: caller.lost)
    assert [str(failure) for failure in failures] == ["a fault of the owner"]
    assert len(peer.deliveries) == 1


def test_uvloop_drives_it_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def exchange() -> None:
        async with Peer().listening() as peer, calling(peer) as (caller, connection):
            link = await sender_with_credit(caller, connection)
            got: list[Outcome | None] = []
            for _ in range(50):
                link.send(bytes(100_000), noting(caller, got.append))
            await caller.until(lambda: len(got) == 50)
            assert {outcome.kind for outcome in got if outcome is not None} == {OutcomeKind.ACCEPTED}

    uvloop.run(exchange())
