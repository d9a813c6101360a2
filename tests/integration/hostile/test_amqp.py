"""AMQP under a storm: the client by a hostile broker, the embedded broker by hostile clients."""

import asyncio
import contextlib

from storm import PATIENCE_S, Turns, at_client, at_server, recording, storming
from waiting import until

from protocols.amqp.client import Address, Client, Delivery, LinkState, Options
from protocols.amqp.codec import Message, encode
from sim.broker import Broker


async def exchange(port: int) -> None:
    """A good client: it is answered what it sends to a queue and by a topic, and leaves."""
    heard: list[bytes] = []

    def take(delivery: Delivery) -> None:
        heard.append(delivery.message().body)
        delivery.accept()

    client = Client(Options(f"amqp://127.0.0.1:{port}", "good"), lambda state, reason: None)
    queue, topic = Address("storm.queue", "queue"), Address("storm.topic", "topic")
    for one in (queue, topic):
        client.receiver(one, take, credit=10)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        running = group.create_task(client.run())
        reply_to = await client.open_replies(take)
        for one in (queue, topic):
            sender = client.sender(one)
            await sender.ready()
            body = Message(body=b"{}", message_id="1", properties={"a": 1}, reply_to=reply_to, to=one.name)
            await sender.post(encode(body))
        await client.reply(reply_to, encode(Message(body=b"[]", to=reply_to)))
        await until(lambda: len(heard) >= 3)
        running.cancel()


async def recorded(broker: Broker) -> Turns:
    async with recording(broker.port) as (port, turns):
        await exchange(port)
    return turns


async def test_hostile_clients(broker: Broker) -> None:
    turns = await recorded(broker)
    async with storming("embedded AMQP broker", 3000) as storm:
        await at_server(storm, broker.port, [data for up, data in turns if up])
        await until(lambda: not broker.clients)
        broker.router.sweep()
    await exchange(broker.port)


async def test_a_hostile_broker(broker: Broker) -> None:
    turns = await recorded(broker)
    async with storming("AMQP client", 2000) as storm:
        lost = asyncio.Event()

        def take(delivery: Delivery) -> None:
            delivery.accept()

        def said(state: LinkState, reason: str) -> None:
            if state is LinkState.CONNECTING and reason:
                storm.refused += 1
                lost.set()

        client: Client | None = None
        running: asyncio.Task[None] | None = None

        async def live(port: int) -> None:
            nonlocal client, running
            if client is None:
                quick = Options(
                    f"amqp://127.0.0.1:{port}",
                    "storm",
                    backoff_min=0.001,
                    backoff_max=0.001,
                    close_timeout=0.05,
                )
                client = Client(quick, said)
                for address in (Address("storm.queue", "queue"), Address("storm.topic", "topic")):
                    client.receiver(address, take, credit=10)
                    client.sender(address)
                running = asyncio.create_task(client.run())
            lost.clear()
            await lost.wait()

        try:
            await at_client(storm, turns, live)
        finally:
            assert running is not None
            assert not running.done()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    await exchange(broker.port)
