"""The broker as a client sees it that none of us wrote: proton's own blocking client, in a thread."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import proton
import pytest
from proton.reactor import AtMostOnce, Container, DurableSubscription, LinkOption
from proton.utils import BlockingConnection, LinkDetached, SendException

from sim.broker import Broker, Limits

TIMEOUT = 30.0


@contextlib.contextmanager
def connected(
    broker: Broker, container_id: str | None = None, **options: Any
) -> Iterator[BlockingConnection]:
    container = Container()
    if container_id is not None:
        container.container_id = container_id
    connection = BlockingConnection(broker.url, timeout=TIMEOUT, container=container, **options)
    try:
        yield connection
    finally:
        connection.close()


async def as_client(broker: Broker, act: Callable[[BlockingConnection], None], **options: Any) -> None:
    """Runs a client's whole connection in a thread, while the broker runs on the loop."""

    def run() -> None:
        with connected(broker, **options) as connection:
            act(connection)

    await asyncio.to_thread(run)


class Capability(LinkOption):
    """Asks for a kind of address."""

    def __init__(self, name: str) -> None:
        self.name = name

    def apply(self, link: Any) -> None:
        terminus = link.target if link.is_sender else link.source
        terminus.capabilities.put_array(False, proton.Data.SYMBOL)
        terminus.capabilities.enter()
        terminus.capabilities.put_symbol(proton.symbol(self.name))


class ToCoordinator(LinkOption):
    """Attaches to the transaction coordinator."""

    def apply(self, link: Any) -> None:
        link.target.type = proton.Terminus.COORDINATOR


def take(receiver: Any, count: int) -> list[Any]:
    bodies = []
    for _ in range(count):
        message = receiver.receive(timeout=TIMEOUT)  # its body is a view of its memory: copied while it lives
        bodies.append(bytes(message.body) if isinstance(message.body, memoryview) else message.body)
        receiver.accept()
    return bodies


def nothing_comes(receiver: Any) -> bool:
    try:
        receiver.receive(timeout=0.2)
    except proton.Timeout:
        return True
    return False


async def test_a_queue_keeps_messages_in_order_for_a_later_consumer(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("hil.rig.commands")
        for number in range(50):
            sender.send(proton.Message(id=str(number), body=number))
        assert take(client.create_receiver("hil.rig.commands", credit=10), 50) == list(range(50))

    await as_client(broker, act)
    assert broker.statistics().counters.delivered == 50


async def test_the_open_frame_says_who_it_is(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        assert client.conn is not None
        assert client.conn.remote_properties[proton.symbol("product")] == "hilgate-broker"
        assert "ANONYMOUS-RELAY" in client.conn.remote_offered_capabilities

    await as_client(broker, act)


async def test_every_subscriber_of_a_topic_gets_a_copy(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        exact = client.create_receiver("hil.rig.events.pump", credit=5)
        wild = client.create_receiver("hil.*.events.#", credit=5)
        sender = client.create_sender("hil.rig.events.pump", options=Capability("topic"))
        sender.send(proton.Message(body="hot"))
        assert take(exact, 1) == take(wild, 1) == ["hot"]

    await as_client(broker, act)


async def test_capabilities_decide_the_kind_of_a_new_address(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("news", options=Capability("topic"))
        sender.send(proton.Message(body="nobody listens"))
        assert nothing_comes(client.create_receiver("news", credit=1))
        with pytest.raises(LinkDetached, match="amqp:not-allowed"):
            client.create_receiver("news", name="mistaken", options=Capability("queue"))

    await as_client(broker, act)
    assert broker.statistics().counters.unrouted == 1


async def test_a_request_is_answered_over_the_relay_to_a_dynamic_node(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        replies: Any = client.create_receiver(None, dynamic=True, credit=5)
        reply_to = replies.link.remote_source.address
        relay = client.create_sender(None)
        relay.send(proton.Message(address=reply_to, body="answer"))
        assert take(replies, 1) == ["answer"]
        replies.close()
        for nowhere in (reply_to, None):
            with pytest.raises(SendException) as rejected:
                relay.send(proton.Message(address=nowhere, body="too late"))
            assert rejected.value.state == proton.Delivery.REJECTED
        with pytest.raises(LinkDetached, match="amqp:not-found"):
            client.create_sender(reply_to)

    await as_client(broker, act)
    assert broker.statistics().counters.refused == 2


async def test_outcomes_decide_what_becomes_of_a_message(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("q")
        receiver = client.create_receiver("q", credit=1)
        sender.send(proton.Message(body="bad"))
        receiver.receive(timeout=TIMEOUT)
        receiver.release(delivered=False)
        again = receiver.receive(timeout=TIMEOUT)
        assert again.delivery_count == 0
        receiver.reject()
        assert take(client.create_receiver("DLQ", credit=1), 1) == ["bad"]

    await as_client(broker, act)


async def test_what_a_dropped_consumer_held_comes_again_and_says_so(broker: Broker) -> None:
    loop = asyncio.get_running_loop()

    def hold(client: BlockingConnection) -> None:
        client.create_sender("q").send(proton.Message(body="work", durable=True, priority=7, ttl=60.0))
        client.create_receiver("q", credit=1).receive(timeout=TIMEOUT)
        loop.call_soon_threadsafe(broker.drop_connections)
        with pytest.raises(proton.ConnectionException):
            client.wait(lambda: client.disconnected)

    await as_client(broker, hold)

    def finish(client: BlockingConnection) -> None:
        message = client.create_receiver("q", credit=1).receive(timeout=TIMEOUT)
        assert message.body == "work"
        assert message.delivery_count == 1
        assert message.durable
        assert message.priority == 7
        assert 0 < message.ttl <= 60.0

    await as_client(broker, finish)


async def test_at_most_once_leaves_nothing_behind(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("q", options=AtMostOnce())
        receiver = client.create_receiver("q", credit=5, options=AtMostOnce())
        sender.link.send(proton.Message(body="telemetry"))
        assert receiver.receive(timeout=TIMEOUT).body == "telemetry"

    await as_client(broker, act)
    queue = broker.statistics().queue("q")
    assert queue is not None
    assert queue.messages == 0


async def test_a_durable_subscription_survives_its_connection_and_ends_when_it_is_closed(
    broker: Broker,
) -> None:
    def subscribe(client: BlockingConnection) -> None:
        client.create_receiver("hil.rig.events.*", credit=5, name="log", options=DurableSubscription())

    def detach(client: BlockingConnection) -> None:
        name, options = "log", DurableSubscription()
        client.create_receiver("hil.rig.events.*", credit=5, name=name, options=options).link.detach()

    def send(client: BlockingConnection) -> None:
        client.create_sender("hil.rig.events.pump").send(proton.Message(body="while you were away"))

    def resume(client: BlockingConnection) -> None:
        receiver: Any = client.create_receiver(
            "hil.rig.events.*", credit=5, name="log", options=DurableSubscription()
        )
        assert take(receiver, 1) == ["while you were away"]
        receiver.close()

    await as_client(broker, subscribe, container_id="plane")
    await as_client(broker, detach, container_id="plane")
    await as_client(broker, send)
    await as_client(broker, resume, container_id="plane")
    assert [queue.name for queue in broker.statistics().queues if queue.subscription] == []


async def test_a_new_subscriber_learns_the_last_availability_of_every_bench(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("hil.availability")
        for bench, state in (("a", "starting"), ("b", "available"), ("a", "leased")):
            sender.send(
                proton.Message(
                    body=f"{bench} {state}", properties={"cloudEvents:source": f"/benches/{bench}"}
                )
            )
        assert take(client.create_receiver("hil.availability", credit=9), 2) == ["b available", "a leased"]

    await as_client(broker, act)


async def test_a_message_of_many_frames_arrives_whole(broker: Broker) -> None:
    body = bytes(range(256)) * 20_000

    def act(client: BlockingConnection) -> None:
        client.create_sender("q").send(proton.Message(body=body))
        assert take(client.create_receiver("q", credit=1), 1) == [body]

    await as_client(broker, act)


async def test_too_large_a_message_ends_its_link_and_nothing_else() -> None:
    def act(client: BlockingConnection) -> None:
        other = client.create_sender("q")
        with pytest.raises(LinkDetached, match="amqp:link:message-size-exceeded"):
            client.create_sender("q", name="large").send(proton.Message(body=b"x" * 2000))
        other.send(proton.Message(body="small"))

    async with Broker(limits=Limits(max_message_size=1000)) as broker:
        await as_client(broker, act)


async def test_a_drained_consumer_gets_what_is_there_and_its_credit_back(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        client.create_sender("q").send(proton.Message(body="last"))
        receiver = client.create_receiver("q", credit=1)
        assert take(receiver, 1) == ["last"]
        receiver.link.drain(10)
        client.wait(lambda: receiver.link.credit == 0, timeout=TIMEOUT)

    await as_client(broker, act)


async def test_transactions_are_refused(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        with pytest.raises(LinkDetached, match="amqp:not-implemented"):
            client.create_sender(None, options=ToCoordinator())

    await as_client(broker, act)


async def test_expired_messages_are_not_delivered(broker: Broker) -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("q")
        sender.send(proton.Message(body="old", expiry_time=1.0))
        sender.send(proton.Message(body="new"))
        assert take(client.create_receiver("q", credit=5), 1) == ["new"]

    await as_client(broker, act)
    assert broker.statistics().counters.expired == 1


async def test_a_password_decides_and_the_user_id_is_vouched_for() -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("q")
        sender.send(proton.Message(body="mine", user_id=b"ann"))
        with pytest.raises(SendException):
            sender.send(proton.Message(body="not mine", user_id=b"bob"))

    plain = {"allowed_mechs": "PLAIN", "allow_insecure_mechs": True, "user": "ann"}
    async with Broker(users={"ann": "secret"}) as broker:
        await as_client(broker, act, password="secret", **plain)
        with pytest.raises(proton.ConnectionException):
            await as_client(broker, act, password="guess", **plain)
        with pytest.raises(proton.ConnectionException):
            await as_client(broker, act, allowed_mechs="ANONYMOUS")


async def test_a_full_queue_lets_nobody_send_until_there_is_room() -> None:
    def act(client: BlockingConnection) -> None:
        sender = client.create_sender("q")
        sent = 0
        with contextlib.suppress(proton.Timeout):
            while sent < 20:
                sender.send(proton.Message(body=b"x" * 1000), timeout=0.5)
                sent += 1
        assert 4 <= sent < 8  # 4,000 bytes, and the credit that was out by then
        take(client.create_receiver("q", credit=20), sent)
        sender.send(proton.Message(body="room again"), timeout=TIMEOUT)

    async with Broker(limits=Limits(max_queue_bytes=4000, producer_window=2)) as broker:
        await as_client(broker, act)
