"""The broker and our own client together: what a fault of one means for messages of the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from waiting import until

from protocols.amqp.client import (
    Address,
    Client,
    ConnectionLost,
    Delivery,
    LinkState,
    Options,
    Outcome,
    OutcomeKind,
)
from protocols.amqp.codec import Message, encode
from sim.broker import Broker

COMMANDS = Address("hil.rig.commands", "queue")
EVENTS = Address("hil.rig.events.pump", "topic")


class Inbox:
    """Takes messages, and settles them unless told to hold."""

    def __init__(self, hold: bool = False) -> None:
        self.hold = hold
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if not self.hold:
            delivery.accept()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message().body for delivery in self.deliveries]


class States:
    """Notes what the client says of its connection."""

    def __init__(self) -> None:
        self.seen: list[LinkState] = []

    def __call__(self, state: LinkState, reason: str) -> None:
        self.seen.append(state)


@contextlib.asynccontextmanager
async def running(
    broker: Broker, states: States | None = None, name: str = "client", **options: float
) -> AsyncIterator[Client]:
    quick = {"backoff_min": 0.01, "backoff_max": 0.05} | options
    client = Client(Options(broker.url, name, **quick), states or States())  # type: ignore[arg-type]
    task = asyncio.create_task(client.run(), name=name)
    try:
        await until(lambda: client.connected)
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def deliver(client: Client, address: Address, *bodies: bytes) -> list[Outcome]:
    """Sends each body until the broker has said what became of it, over as many connections as that takes."""
    sender = client.sender(address)
    outcomes = []
    for body in bodies:
        data = encode(Message(body=body, properties={"_AMQ_DUPL_ID": body.decode()}))
        while True:
            await sender.ready()
            try:
                outcomes.append(await sender.post(data))
            except ConnectionLost:
                continue
            break
    sender.close()
    return outcomes


async def test_commands_and_events_go_where_they_should(broker: Broker) -> None:
    async with running(broker) as agent, running(broker, name="plane") as plane:
        commands, events = Inbox(), Inbox()
        agent.receiver(COMMANDS, commands, 10)
        watcher = plane.receiver(Address("hil.*.events.#", "topic"), events, 10)
        await watcher.attached()
        await deliver(plane, COMMANDS, b"ping")
        await deliver(agent, EVENTS, b"hot")
        await until(lambda: commands.bodies == [b"ping"] and events.bodies == [b"hot"])


async def test_a_reply_finds_its_way_and_one_to_nowhere_is_rejected(broker: Broker) -> None:
    async with running(broker) as agent, running(broker, name="plane") as plane:
        replies = Inbox()
        address = await plane.open_replies(replies)
        reply = encode(Message(body=b"pong", to=address))
        assert (await agent.reply(address, reply)).kind is OutcomeKind.ACCEPTED
        await until(lambda: replies.bodies == [b"pong"])
        gone = await agent.reply("temporary.gone", encode(Message(body=b"pong", to="temporary.gone")))
        assert (gone.kind, gone.condition) == (OutcomeKind.REJECTED, "amqp:not-found")


async def test_nothing_is_lost_or_doubled_while_connections_drop(broker: Broker) -> None:
    sent = [b"%d" % number for number in range(300)]
    async with running(broker) as agent, running(broker, name="plane") as plane:
        inbox = Inbox()
        agent.receiver(COMMANDS, inbox, 10)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(deliver(plane, COMMANDS, *sent))
            for arrived in (50, 100, 150):
                await until(lambda arrived=arrived: len(inbox.deliveries) >= arrived)  # type: ignore[misc]
                broker.drop_connections()
        assert {outcome.kind for outcome in sending.result()} == {OutcomeKind.ACCEPTED}
        await until(lambda: set(inbox.bodies) == set(sent))
    first_seen = list(dict.fromkeys(inbox.bodies))
    assert first_seen == sent
    again = [d for d in inbox.deliveries if d.message().delivery_count]
    assert len(inbox.deliveries) - len(sent) == len(again)  # only what was under way, and it says so


async def test_what_an_agent_had_not_answered_comes_again_with_the_next_one(broker: Broker) -> None:
    async with running(broker, name="plane") as plane:
        async with running(broker) as agent:
            held = Inbox(hold=True)
            agent.receiver(COMMANDS, held, 10)
            await deliver(plane, COMMANDS, b"write")
            await until(lambda: held.bodies == [b"write"])
        async with running(broker) as agent:
            inbox = Inbox()
            agent.receiver(COMMANDS, inbox, 10)
            await until(lambda: inbox.bodies == [b"write"])


async def test_a_broker_that_settles_nothing_is_left_and_nothing_is_lost(broker: Broker) -> None:
    states = States()
    async with running(broker, states, outcome_timeout=0.2) as client:
        async with asyncio.TaskGroup() as group:
            await deliver(client, EVENTS, b"before")
            broker.freeze()
            sending = group.create_task(deliver(client, COMMANDS, b"while frozen"))
            await until(lambda: states.seen.count(LinkState.CONNECTED) > 1)
            broker.freeze(False)
        assert sending.result()[0].kind is OutcomeKind.ACCEPTED
        inbox = Inbox()
        client.receiver(COMMANDS, inbox, 10)
        await until(lambda: inbox.bodies == [b"while frozen"])


async def test_a_broker_that_gives_no_credit_is_called_blocked_and_not_left(broker: Broker) -> None:
    states = States()
    async with running(broker, states, blocked_after=0.1) as client:
        broker.withhold_credit()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(deliver(client, COMMANDS, b"patience"))
            await until(lambda: LinkState.BLOCKED in states.seen)
            broker.withhold_credit(False)
        assert sending.result()[0].kind is OutcomeKind.ACCEPTED
        assert states.seen.count(LinkState.CONNECTED) <= 2
        assert LinkState.CONNECTING not in states.seen[states.seen.index(LinkState.CONNECTED) :]


async def test_a_restarted_broker_is_found_again() -> None:
    async with Broker() as first:
        port = first.port
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(running(first))
            inbox = Inbox()
            client.receiver(COMMANDS, inbox, 10)
            await first.close()
            await until(lambda: not client.connected)
            async with Broker(port=port):
                await until(lambda: client.connected)
                await deliver(client, COMMANDS, b"again")
                await until(lambda: inbox.bodies == [b"again"])
