"""The outbox: order per channel, bounds that spare results, losses said, all of it also after a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from storing import OTHER, TOPIC, Clock, message, put, taken

from agent.store import Lane, Outgoing, SqliteStore, outbox, spool
from agent.store.message import MESSAGE_OVERHEAD
from protocols.amqp.flavours import Address

SIZE = 100 + MESSAGE_OVERHEAD


@pytest.fixture(params=["memory", "disk"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "disk" else None


@contextlib.contextmanager
def opened(directory: Path | None, max_bytes: int = 10**6, max_age: float = 3600.0) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore(directory, max_bytes, max_age)) as store:
        yield store


@pytest.fixture
async def store(directory: Path | None) -> AsyncIterator[SqliteStore]:
    with opened(directory) as one:
        yield one


async def test_messages_of_a_channel_come_in_order_and_again_in_order(store: SqliteStore) -> None:
    for number in range(5):
        put(store, number)
        put(store, number + 100, address=OTHER)
    await store.stored()
    first = [store.outbox.take(TOPIC) for _ in range(3)]
    assert [found.sequence for found in first if found] == [0, 1, 2]
    store.outbox.retry([found for found in first if found])
    assert taken(store) == [0, 1, 2, 3, 4]
    assert taken(store, OTHER) == [100, 101, 102, 103, 104]


async def test_nothing_is_taken_before_it_is_stored(store: SqliteStore) -> None:
    put(store, 1)
    assert store.outbox.take(TOPIC) is None
    await store.outbox.wait(TOPIC)
    assert taken(store) == [1]


async def test_over_the_bound_the_oldest_telemetry_goes_then_events_and_never_results(
    directory: Path | None,
) -> None:
    with opened(directory, max_bytes=4 * SIZE) as store:
        put(store, 1, lane=Lane.RESULT)
        put(store, 2, lane=Lane.EVENT)
        put(store, 3, 4, 5, 6)
        await store.stored()
        assert taken(store) == [1, 2, 5, 6]
        (loss,) = store.outbox.losses()
        assert (loss.reason, loss.count, loss.first, loss.last) == ("outbox-full", 2, 3, 4)
        assert (loss.first_time_ns, loss.last_time_ns) == (3000, 4000)
    with opened(None, max_bytes=2 * SIZE) as store:
        put(store, *range(5), lane=Lane.RESULT)
        put(store, 9, lane=Lane.EVENT)
        await store.stored()
        assert taken(store) == [0, 1, 2, 3, 4]
        assert [loss.first for loss in store.outbox.losses()] == [9]


async def test_the_bound_holds_for_what_waits_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "WINDOW", 4)
    with opened(tmp_path, max_bytes=10 * SIZE) as store:
        for number in range(50):
            put(store, number)
        for _ in range(20):
            await store.stored()
        assert store.outbox.stats().messages == 10
        (loss,) = store.outbox.losses()
        assert (loss.count, loss.first, loss.last) == (40, 0, 39)
    with opened(tmp_path) as store:
        assert await drained(store) == list(range(40, 50))


async def test_no_event_goes_while_telemetry_waits_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "WINDOW", 4)
    with opened(tmp_path) as store:
        put(store, 1, 2, lane=Lane.EVENT, address=OTHER)
        put(store, *range(3, 40))
    with opened(tmp_path, max_bytes=10 * SIZE) as store:
        for number in range(40, 80):
            put(store, number)
            await asyncio.sleep(0)
        for _ in range(40):
            await store.stored()
        assert store.outbox.stats().messages == 10
        assert taken(store, OTHER) == [1, 2]


async def test_what_is_in_flight_is_not_dropped(directory: Path | None) -> None:
    with opened(directory, max_bytes=2 * SIZE) as store:
        put(store, 1)
        await store.stored()
        flying = store.outbox.take(TOPIC)
        assert flying is not None
        put(store, 2, 3)
        await store.stored()
        assert [loss.first for loss in store.outbox.losses()] == [2]
        store.outbox.retry([flying])
        assert taken(store) == [1, 3]


async def test_a_message_past_its_ttl_is_lost_and_said(store: SqliteStore) -> None:
    late = message(1)
    late.expires = 0.0
    store.outbox.put(late)
    put(store, 2)
    await store.stored()
    assert taken(store) == [2]
    assert [loss.reason for loss in store.outbox.losses()] == ["expired"]


async def test_age_counts_on_the_timeline_whatever_the_wall_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with opened(tmp_path, max_age=100.0) as store:
        put(store, 1)
        put(store, 2, lane=Lane.RESULT)
        await store.stored()
    clock.step(+10 * 86400)
    with opened(tmp_path, max_age=100.0) as store:
        await store.stored()
        assert store.outbox.stats().messages == 2
        clock.step(-30 * 86400)
        clock.wait(99)
        assert store.outbox.stats().oldest_s == pytest.approx(99, abs=1)
        found = store.outbox.take(TOPIC)
        assert found is not None
        store.outbox.retry([found])
        clock.wait(2)
        assert taken(store) == [2]
        assert [(loss.reason, loss.first) for loss in store.outbox.losses()] == [("too-old", 1)]


async def test_stats_count_until_done(store: SqliteStore) -> None:
    put(store, 1)
    await store.stored()
    found = store.outbox.take(TOPIC)
    assert found is not None
    assert store.outbox.stats().messages == 1
    store.outbox.done(found)
    store.outbox.done(found)
    stats = store.outbox.stats()
    assert (stats.messages, stats.bytes, stats.oldest_s) == (0, 0, 0.0)


async def test_wait_and_empty_wake_whoever_waits(store: SqliteStore) -> None:
    put(store, 1)
    await store.stored()
    (found,) = iter(lambda: store.outbox.take(TOPIC), None)
    waiting = asyncio.create_task(store.outbox.wait(TOPIC))
    emptied = asyncio.create_task(store.outbox.empty())
    await asyncio.sleep(0)
    assert not waiting.done()
    put(store, 2)
    async with asyncio.timeout(5):
        await waiting
    assert not emptied.done()
    store.outbox.done(found)
    for found in iter(lambda: store.outbox.take(TOPIC), None):
        store.outbox.done(found)
    async with asyncio.timeout(5):
        await emptied


async def test_replies_share_one_channel_and_keep_their_addresses(directory: Path | None) -> None:
    opened_channels: list[Address] = []
    with opened(directory) as store:
        store.outbox.on_channel = opened_channels.append
        for number in range(10):
            put(store, number, lane=Lane.RESULT, address=Address(f"reply-{number}", "direct"))
        await store.stored()
        assert len(opened_channels) == 1
        found = list(iter(lambda: store.outbox.take(opened_channels[0]), None))
        assert [one.address.name for one in found if one] == [f"reply-{number}" for number in range(10)]
    if directory is not None:
        opened_channels.clear()
        with opened(directory) as store:
            store.outbox.on_channel = opened_channels.append
            await store.stored()
            assert len(opened_channels) == 1
            again = list(iter(lambda: store.outbox.take(opened_channels[0]), None))
            assert [one.address.name for one in again if one] == [f"reply-{number}" for number in range(10)]


async def test_what_is_buried_or_postponed(store: SqliteStore) -> None:
    put(store, 0, 1, 2)
    await store.stored()
    first, second = store.outbox.take(TOPIC), store.outbox.take(TOPIC)
    assert first is not None
    assert second is not None
    store.outbox.bury(first, "amqp:not-allowed: no")
    store.outbox.postpone(second)
    assert taken(store) == [2, 1]
    assert [(loss.reason, loss.first) for loss in store.outbox.losses()] == [("rejected", 0)]


async def test_a_result_that_is_buried_is_no_loss(store: SqliteStore) -> None:
    put(store, 1, lane=Lane.RESULT)
    await store.stored()
    found = store.outbox.take(TOPIC)
    assert found is not None
    store.outbox.bury(found, "no")
    assert store.outbox.losses() == []
    await store.outbox.empty()


async def test_a_restart_gives_back_the_same_message(tmp_path: Path) -> None:
    sent = Outgoing(
        TOPIC, Lane.TELEMETRY, "/s", 7, 123, b"data", counter="/s#c", event_id="id-7", expires=1e9
    )
    with opened(tmp_path) as store:
        store.outbox.put(sent)
        await store.stored()
    with opened(tmp_path) as store:
        await store.stored()
        found = store.outbox.take(TOPIC)
        assert found is not None
        fields = sent.__struct_fields__
        assert [getattr(found, name) for name in fields] == [getattr(sent, name) for name in fields]


async def test_what_is_not_durable_keeps_its_place_and_does_not_outlive_the_agent(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(1, 7):
            assert store.next_sequence("/benches/rig") == number
            put(store, number, durable=number % 2 == 0)
        await store.stored()
        assert taken(store) == [1, 2, 3, 4, 5, 6]
        assert store.outbox.stats().messages == 6
    with opened(tmp_path) as store:
        await store.stored()
        assert taken(store) == [2, 4, 6]
        assert store.next_sequence("/benches/rig") == 7


async def test_memory_holds_a_window_and_the_rest_follows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "WINDOW", 8)
    with opened(tmp_path) as store:
        for number in range(100):
            put(store, number, durable=number % 3 > 0)
            put(store, number, address=OTHER)
        await store.stored()
        assert taken(store) == list(range(8))
        assert store.outbox.stats().messages == 200
    with opened(tmp_path) as store:
        assert await drained(store) == [number for number in range(100) if number % 3]
        assert await drained(store, OTHER) == list(range(100))
        await store.outbox.empty()


async def test_a_window_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "WINDOW_BYTES", 3 * SIZE)
    with opened(tmp_path) as store:
        put(store, *range(20))
        await store.stored()
        assert taken(store) == [0, 1, 2]
    with opened(tmp_path) as store:
        assert await drained(store) == list(range(20))


async def test_losses_are_kept_until_said_and_what_grew_meanwhile_is_said_next(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=SIZE) as store:
        put(store, 1, 2, 3)
        await store.stored()
    with opened(tmp_path, max_bytes=SIZE) as store:
        seen = store.outbox.losses()
        assert [(loss.reason, loss.count, loss.first, loss.last) for loss in seen] == [
            ("outbox-full", 2, 1, 2)
        ]
        put(store, 4)
        await store.stored()
        with store.together():
            store.outbox.said(seen)
            put(store, 100, lane=Lane.EVENT, address=OTHER)
        await store.stored()
        left = store.outbox.losses()
        assert [(loss.count, loss.first, loss.last) for loss in left] == [(2, 3, 4)]
    with opened(tmp_path, max_bytes=SIZE) as store:
        assert store.outbox.losses() == left


async def test_a_slow_disk_costs_telemetry_and_nothing_else(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SLOW_BYTES", 250)
    put(store, 1, 2, 3, 4)
    put(store, 5, lane=Lane.EVENT)
    put(store, 6, lane=Lane.RESULT)
    await store.stored()
    assert taken(store) == [1, 2, 3, 5, 6]
    assert [(loss.reason, loss.first) for loss in store.outbox.losses()] == [("slow-disk", 4)]
    put(store, 7)
    await store.stored()
    assert taken(store) == [7]


async def test_a_fault_in_one_message_is_loud_and_costs_no_other(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, 1, 2**70, 3)
    await store.stored()
    assert taken(store) == [1, 3]
    assert [(loss.reason, loss.first) for loss in store.outbox.losses()] == [("internal-error", 2**70)]


async def drained(store: SqliteStore, channel: Address = TOPIC) -> list[int]:
    """Takes and forgets until nothing comes any more."""
    found: list[int] = []
    await store.stored()
    while one := store.outbox.take(channel):
        found.append(one.sequence)
        store.outbox.done(one)
        await store.stored()
    return found
