"""From the outbox to a broker that does what the test says: every outcome, and every way to get none."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest
from amqp_peer import PATIENCE_S, Peer
from waiting import until

from agent import uplink as uplink_module
from agent.store import Lane, Outbox, Outgoing, SqliteStore
from agent.uplink import Uplink
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.codec import Message, encode

TOPIC = Address("hil.rig.events.plc", "topic")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink_module, "RETRY_S", 0.01)


@contextlib.asynccontextmanager
async def sending(peer: Peer) -> AsyncIterator[tuple[Outbox, Uplink]]:
    """An uplink that runs."""
    store = SqliteStore(None, 10**7, 3600)
    outbox = store.outbox
    client = Client(
        Options(url=peer.url, container_id="test", backoff_min=0.01), lambda _state, _reason: None
    )
    uplink = Uplink(client, outbox)
    tasks = [asyncio.create_task(client.run()), asyncio.create_task(uplink.run())]
    try:
        yield outbox, uplink
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        store.close()


def put(outbox: Outbox, number: int, address: Address = TOPIC, size: int = 1) -> None:
    data = encode(Message(body=b"%d" % number * size, message_id=str(number), to=address.name))
    lane = Lane.RESULT if address.kind == "direct" else Lane.TELEMETRY
    outbox.put(Outgoing(address, lane, "/benches/rig", number, 0, data))


async def emptied(outbox: Outbox) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await outbox.empty()


def numbers(peer: Peer) -> list[int]:
    return [int(delivery.message().body) for delivery in peer.deliveries]


async def test_what_is_accepted_is_forgotten_and_came_in_order() -> None:
    peer = Peer()
    async with peer.listening(), sending(peer) as (outbox, uplink):
        for number in range(200):
            put(outbox, number)
        await emptied(outbox)
        assert numbers(peer) == list(range(200))
        assert uplink.dead_letters == 0


async def test_what_is_rejected_is_buried_and_the_next_goes_on() -> None:
    def settle(delivery: Delivery) -> None:
        if delivery.message().body == b"1":
            delivery.reject("amqp:not-allowed", "no")
        else:
            delivery.accept()

    peer = Peer()
    peer.settle = settle
    async with peer.listening(), sending(peer) as (outbox, uplink):
        for number in range(3):
            put(outbox, number)
        await emptied(outbox)
        assert numbers(peer) == [0, 1, 2]
        assert uplink.dead_letters == 1


async def test_what_is_released_is_sent_again() -> None:
    seen: set[bytes] = set()

    def settle(delivery: Delivery) -> None:
        body = delivery.message().body
        if body in seen:
            delivery.accept()
        else:
            seen.add(body)
            delivery.release()

    peer = Peer()
    peer.settle = settle
    async with peer.listening(), sending(peer) as (outbox, _):
        for number in range(5):
            put(outbox, number)
        await emptied(outbox)
        assert sorted(numbers(peer)) == sorted([*range(5), *range(5)])


async def test_without_an_outcome_it_is_sent_again_on_the_next_connection() -> None:
    peer = Peer()
    peer.settle = None
    async with peer.listening(), sending(peer) as (outbox, _):
        for number in range(5):
            put(outbox, number)
        await peer.until(lambda: len(peer.deliveries) == 5)
        peer.settle = Delivery.accept
        peer.connections[0].abort()
        await emptied(outbox)
        assert numbers(peer) == [*range(5), *range(5)]


async def test_an_end_with_messages_in_flight_leaves_nothing_that_complains_later() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    peer = Peer()
    peer.settle = None
    async with peer.listening(), sending(peer) as (outbox, _):
        for number in range(5):
            put(outbox, number)
        await peer.until(lambda: len(peer.deliveries) == 5)
        socket = peer.connections[0]._socket
        assert socket is not None
        socket.pause_reading()  # so that it does not answer the end
    gc.collect()
    assert complaints == []


async def test_without_credit_it_waits() -> None:
    peer = Peer()
    peer.credit = 0
    async with peer.listening(), sending(peer) as (outbox, _):
        for number in range(3):
            put(outbox, number)
        await peer.until(lambda: peer.links)
        assert outbox.stats().messages == 3
        peer.give_credit(2)
        await peer.until(lambda: len(peer.deliveries) == 2)
        peer.give_credit(1)
        await emptied(outbox)
        assert numbers(peer) == [0, 1, 2]


async def test_a_refused_address_is_tried_again_and_holds_back_no_other() -> None:
    other = Address("hil.rig.events.psu", "topic")
    peer = Peer()
    peer.refuse.add(TOPIC.name)
    async with peer.listening(), sending(peer) as (outbox, _):
        put(outbox, 1)
        put(outbox, 2, other)
        await peer.until(lambda: numbers(peer) == [2])
        await until(lambda: outbox.stats().messages == 1)
        peer.refuse.clear()
        await emptied(outbox)


async def test_what_is_too_large_for_the_broker_is_buried() -> None:
    peer = Peer()
    peer.max_message_size = 500
    async with peer.listening(), sending(peer) as (outbox, uplink):
        put(outbox, 1, size=1000)
        put(outbox, 2)
        await emptied(outbox)
        assert numbers(peer) == [2]
        assert uplink.dead_letters == 1


async def test_results_wait_for_the_broker_and_go_where_they_were_asked() -> None:
    peer = Peer()
    peer.settle = None
    async with peer.listening(), sending(peer) as (outbox, _):
        put(outbox, 1, Address("asker", "direct"))
        await peer.until(lambda: peer.deliveries)
        peer.settle = Delivery.accept
        peer.connections[0].abort()
        await emptied(outbox)
        assert numbers(peer) == [1, 1]
        assert {delivery.message().to for delivery in peer.deliveries} == {"asker"}
