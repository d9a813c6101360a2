"""Replies by the client: through the relay or a sender each, and never a hang over a bad address."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from amqp_line import COMMANDS, HELLO, running
from amqp_peer import Peer
from waiting import until

from protocols.amqp.client import ConnectionLost, Delivery, LinkState, Outcome, OutcomeKind
from protocols.amqp.codec import CodecError, Message, encode
from protocols.amqp.performatives import Condition


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer().listening() as one:
        yield one


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


@pytest.mark.parametrize("offered", [("ANONYMOUS-RELAY",), ()], ids=["relay", "senders"])
async def test_a_reply_that_waits_for_credit_when_the_connection_goes_is_not_refused(
    peer: Peer, offered: tuple[str, ...]
) -> None:
    peer.offered, peer.credit = offered, 0
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        waiting = asyncio.create_task(line.client.reply("somebody", HELLO))
        await peer.until(lambda: peer.links)
        peer.connections[0].abort()
        with pytest.raises(ConnectionLost):
            await waiting
        await line.until(LinkState.CONNECTED, 2)


async def test_replies_that_wait_for_a_relay_that_ends_are_not_refused(peer: Peer) -> None:
    peer.offered, peer.credit = ("ANONYMOUS-RELAY",), 0
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        waiting = [asyncio.create_task(line.client.reply(f"reply-{number}", HELLO)) for number in range(3)]
        await peer.until(lambda: peer.links)
        peer.links[0].close(Condition("amqp:not-found", "no gone here"))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ConnectionLost] * 3


async def test_a_reply_that_waits_at_a_sender_that_makes_room_is_not_refused(peer: Peer) -> None:
    peer.credit = 0
    async with running(peer.url, outcome_timeout=0.5) as line:
        await line.until(LinkState.CONNECTED)
        waiting = [asyncio.create_task(line.client.reply(f"reply-{number}", HELLO)) for number in range(33)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[0], ConnectionLost)
        assert {outcome.kind for outcome in outcomes[1:]} == {OutcomeKind.RELEASED}  # type: ignore[union-attr]


async def test_all_replies_to_an_address_that_is_refused_are_rejected(peer: Peer) -> None:
    peer.refuse = {"gone"}
    async with running(peer.url) as line:
        await line.until(LinkState.CONNECTED)
        outcomes = await asyncio.gather(*(line.client.reply("gone", HELLO) for _ in range(5)))
        assert {outcome.kind for outcome in outcomes} == {OutcomeKind.REJECTED}
        assert len(peer.links) == 1


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
        peer.sender_to(COMMANDS.name).send(b"\xff" * 100, outcomes.append)
        await until(lambda: outcomes)
        assert outcomes[0] is not None
        assert outcomes[0].kind is OutcomeKind.REJECTED
        assert len(failures) == 1
