"""Our AMQP client when a real broker restarts, hangs, or gives no credit."""

import asyncio

import pytest
from brokers import Artemis, Broker, RabbitMQ3, RabbitMQ4
from lines import PATIENCE_S, Line, connected, queue, subscribed, topic, unique

from protocols.amqp.client import ConnectionLost, LinkRefused, NotReady, Outcome, Sender
from protocols.amqp.codec import Message, encode

pytestmark = pytest.mark.peer("brokers")

QUICK = {"backoff_min": 0.1, "backoff_max": 0.5}
rabbitmq = pytest.mark.parametrize(
    "broker", [RabbitMQ3, RabbitMQ4], indirect=True, ids=lambda kind: kind.name
)
artemis = pytest.mark.parametrize("broker", [Artemis], indirect=True, ids=["artemis"])


async def test_everything_is_attached_again_after_a_restart(broker: Broker) -> None:
    bench = unique("t")
    commands, events = f"hil.{bench}.commands", f"hil.{bench}.events.pump"
    async with connected(broker.url, **QUICK) as line:
        inbox, heard = line.inbox(queue(commands)), line.inbox(topic(f"hil.{bench}.events.*"))
        to_queue, to_topic = line.client.sender(queue(commands)), line.client.sender(topic(events))
        await subscribed(line, heard, events)
        await line.send(to_queue, Message(body=b"before", durable=True))
        await inbox.until(1)
        before = len(line.states)

        await asyncio.to_thread(broker.stop)
        reason = await line.until_state("connecting", after=before)
        assert reason
        await asyncio.to_thread(broker.start)
        await line.until_state("connected", after=before)

        await line.send(to_queue, Message(body=b"after", durable=True))
        assert (await inbox.until(2))[1].body == b"after"
        await subscribed(line, heard, events)
        await line.send(to_topic, Message(body=b"heard"))
        assert (await heard.until(1))[0].body == b"heard"


async def test_durable_commands_outlive_a_power_cut(broker: Broker) -> None:
    name = f"hil.{unique('t')}.commands"
    # The queue comes first: on RabbitMQ whoever attaches to one that is not there makes it, and not this one.
    if isinstance(broker, RabbitMQ4):
        await asyncio.to_thread(broker.declare, name, quorum=True)
    elif isinstance(broker, RabbitMQ3):
        # There only a receiver makes a durable one.
        async with connected(broker.url) as agent, asyncio.timeout(PATIENCE_S):
            await agent.inbox(queue(name)).receiver.attached()
        await asyncio.to_thread(broker.write_down)
    async with connected(broker.url, **QUICK) as line:
        sender = line.client.sender(queue(name))
        assert (await line.send(sender, Message(body=b"kept", durable=True))).kind == "accepted"
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        assert (await line.inbox(queue(name)).until(1))[0].body == b"kept"


async def test_what_was_in_flight_at_a_restart_is_known_and_sent_again(broker: Broker) -> None:
    """No hole: each message is accepted, or its future fails and it goes again."""
    name = f"hil.{unique('t')}.commands"
    count = 3000
    async with connected(broker.url, **QUICK) as line:
        inbox = line.inbox(queue(name), credit=200)
        sender = line.client.sender(queue(name))
        await line.send(sender, Message(body=b"0", durable=True))
        await inbox.until(1)

        async def stream() -> None:
            window: list[tuple[int, asyncio.Future[Outcome]]] = []
            waiting = list(range(count, 0, -1))
            while waiting or window:
                try:
                    await sender.ready()
                    while waiting and len(window) < 64:
                        number = waiting.pop()
                        message = Message(body=b"%d" % number, durable=True)
                        window.append((number, sender.post(encode(message))))
                except NotReady:
                    waiting.append(number)
                except LinkRefused:
                    pass  # RabbitMQ 3 ends the link when it goes down; the next `ready` attaches it again
                outcomes = await asyncio.gather(*(future for _, future in window), return_exceptions=True)
                for (number, _), outcome in zip(reversed(window), reversed(outcomes), strict=True):
                    if isinstance(outcome, ConnectionLost):
                        waiting.append(number)
                    else:
                        assert isinstance(outcome, Outcome)
                        assert outcome.kind == "accepted"
                window.clear()

        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            group.create_task(stream())
            await inbox.until(count // 10)
            await asyncio.to_thread(broker.restart)
        numbers = await line.until(
            lambda: inbox.messages if len({message.body for message in inbox.messages}) > count else [],
            "all messages",
        )
        assert {int(message.body) for message in numbers} == set(range(count + 1))


async def fill(line: Line, sender: Sender, size: int, most: int) -> list[asyncio.Future[Outcome]]:
    """Sends until the broker gives no more credit."""
    futures: list[asyncio.Future[Outcome]] = []
    body = encode(Message(body=bytes(size), durable=True))
    async with asyncio.timeout(90):
        while len(futures) < most:
            try:
                futures.append(sender.post(body))
            except NotReady:
                try:
                    async with asyncio.timeout(4):
                        await sender.ready()
                except TimeoutError:
                    return futures
    raise AssertionError(f"the broker took {most} messages of {size} bytes and never ran out of credit")


@pytest.mark.parametrize("broker", [RabbitMQ4], indirect=True, ids=["rabbitmq4"])
async def test_no_credit_is_blocked_and_not_dead(broker: RabbitMQ4) -> None:
    """A memory alarm withholds credit; the client waits and does not connect again."""
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url, outcome_timeout=6.0, blocked_after=0.5) as line:
        sender = line.client.sender(queue(name))
        await line.send(sender, Message(body=b"x"))
        before = len(line.states)
        starved = broker.starved()
        await asyncio.to_thread(starved.__enter__)
        try:
            futures = await fill(line, sender, 1000, 5000)
            await line.until_state("blocked", after=before)
            # Longer than the outcome watchdog: it must not take a blocked broker for a hung one.
            await asyncio.sleep(7)
            assert "connecting" not in [state for state, _ in line.states[before:]]
        finally:
            await asyncio.to_thread(starved.__exit__, None, None, None)
        await line.until_state("connected", after=before)
        async with asyncio.timeout(PATIENCE_S):
            assert {outcome.kind for outcome in await asyncio.gather(*futures)} == {"accepted"}
            assert (await line.send(sender, Message(body=b"x"))).kind == "accepted"
        assert "connecting" not in [state for state, _ in line.states[before:]]


@artemis
async def test_a_full_address_withholds_credit(broker: Artemis) -> None:
    """`address-full-policy` BLOCK and `max-size-bytes` for hil.full.#, as in brokers/broker.xml."""
    name = f"hil.full.{unique('t')}.commands"
    async with (
        connected(broker.url, outcome_timeout=6.0, blocked_after=0.5) as line,
        connected(broker.url) as agent,
    ):
        sender = line.client.sender(queue(name))
        await line.send(sender, Message(body=b"x", durable=True))
        before = len(line.states)
        futures = await fill(line, sender, 4096, 5000)
        await line.until_state("blocked", after=before)
        inbox = agent.inbox(queue(name))
        await inbox.until(1 + len(futures))
        await line.until_state("connected", after=before)
        assert (await line.send(sender, Message(body=b"y", durable=True))).kind == "accepted"
        assert "connecting" not in [state for state, _ in line.states[before:]]


async def test_a_hung_broker_is_noticed_by_its_missing_outcomes(broker: Broker) -> None:
    """The connection stays open and nothing is settled: the watchdog gives it up, long before heartbeats."""
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url, outcome_timeout=4.0, idle_timeout=60.0, **QUICK) as line:
        inbox = line.inbox(queue(name))
        sender = line.client.sender(queue(name))
        await line.send(sender, Message(body=b"before", durable=True))
        await inbox.until(1)
        before = len(line.states)
        with broker.frozen():
            future = sender.post(encode(Message(body=b"lost?", durable=True)))
            with pytest.raises(ConnectionLost):
                async with asyncio.timeout(PATIENCE_S):
                    await future
            assert await line.until_state("connecting", after=before)
        await line.until_state("connected", after=before)
        await line.send(sender, Message(body=b"after", durable=True))
        await line.until(
            lambda: any(message.body == b"after" for message in inbox.messages), "the message after"
        )


@rabbitmq
async def test_connections_closed_by_the_operator_come_back(broker: RabbitMQ3) -> None:
    """RabbitMQ 3 then keeps the connection open, sends heartbeats and settles nothing."""
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url, outcome_timeout=4.0, **QUICK) as line:
        inbox = line.inbox(queue(name))
        sender = line.client.sender(queue(name))
        await line.send(sender, Message(body=b"before", durable=True))
        await inbox.until(1)
        await asyncio.to_thread(broker.ctl, "close_all_connections", "test")
        await line.send(sender, Message(body=b"after", durable=True))
        await line.until(
            lambda: any(message.body == b"after" for message in inbox.messages), "the message after"
        )
