"""The store: order per channel, bounds that spare results, losses said, one more epoch a start."""

import asyncio
from pathlib import Path

import pytest

from agent.store import Lane, MemoryStore, Outgoing
from agent.store.memory import MESSAGE_OVERHEAD, MemoryJournal, MemoryOutbox
from protocols.amqp.flavours import Address

TOPIC = Address("hil.rig.events.plc", "topic")
OTHER = Address("hil.rig.events.psu", "topic")


def message(
    sequence: int, lane: Lane = Lane.TELEMETRY, address: Address = TOPIC, size: int = 100
) -> Outgoing:
    return Outgoing(address, lane, "/benches/rig", sequence, sequence * 1000, b"x" * size)


def taken(outbox: MemoryOutbox, channel: Address = TOPIC) -> list[int]:
    return [found.sequence for found in iter(lambda: outbox.take(channel), None)]


def test_messages_of_a_channel_come_in_order_and_again_in_order() -> None:
    outbox = MemoryOutbox(10**6, 3600)
    for number in range(5):
        outbox.put(message(number))
        outbox.put(message(number + 100, address=OTHER))
    first = [outbox.take(TOPIC) for _ in range(3)]
    assert [found.sequence for found in first if found] == [0, 1, 2]
    outbox.retry([found for found in first if found])
    assert taken(outbox) == [0, 1, 2, 3, 4]
    assert taken(outbox, OTHER) == [100, 101, 102, 103, 104]


def test_over_the_bound_the_oldest_telemetry_goes_then_events_and_never_results() -> None:
    outbox = MemoryOutbox(4 * (100 + MESSAGE_OVERHEAD), 3600)
    outbox.put(message(1, Lane.RESULT))
    outbox.put(message(2, Lane.EVENT))
    for number in (3, 4, 5, 6):
        outbox.put(message(number))
    assert taken(outbox) == [1, 2, 5, 6]
    (loss,) = outbox.take_losses()
    assert (loss.reason, loss.count, loss.first, loss.last) == ("outbox-full", 2, 3, 4)
    assert outbox.take_losses() == []

    outbox = MemoryOutbox(2 * (100 + MESSAGE_OVERHEAD), 3600)
    for number in range(5):
        outbox.put(message(number, Lane.RESULT))
    outbox.put(message(9, Lane.EVENT))
    assert taken(outbox) == [0, 1, 2, 3, 4]
    assert [loss.first for loss in outbox.take_losses()] == [9]


def test_what_is_in_flight_is_not_dropped() -> None:
    outbox = MemoryOutbox(2 * (100 + MESSAGE_OVERHEAD), 3600)
    outbox.put(message(1))
    flying = outbox.take(TOPIC)
    outbox.put(message(2))
    outbox.put(message(3))
    assert flying is not None
    assert [loss.first for loss in outbox.take_losses()] == [2]
    outbox.retry([flying])
    assert taken(outbox) == [1, 3]


def test_a_message_past_its_ttl_is_lost_and_said() -> None:
    outbox = MemoryOutbox(10**6, 3600)
    late = message(1)
    late.expires = 0.0
    outbox.put(late)
    outbox.put(message(2))
    assert taken(outbox) == [2]
    assert [loss.reason for loss in outbox.take_losses()] == ["expired"]


def test_stats_count_until_done() -> None:
    outbox = MemoryOutbox(10**6, 3600)
    outbox.put(message(1))
    found = outbox.take(TOPIC)
    assert found is not None
    assert outbox.stats().messages == 1
    outbox.done(found)
    outbox.done(found)
    assert (outbox.stats().messages, outbox.stats().bytes, outbox.stats().oldest_s) == (0, 0, 0.0)


async def test_wait_and_empty_wake_whoever_waits() -> None:
    outbox = MemoryOutbox(10**6, 3600)
    outbox.put(message(1))
    assert taken(outbox) == [1]
    waiting = asyncio.create_task(outbox.wait(TOPIC))
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.put(message(2))
    async with asyncio.timeout(5):
        await waiting
    assert not outbox._emptied.is_set()


def test_replies_share_one_channel() -> None:
    opened: list[Address] = []
    outbox = MemoryOutbox(10**6, 3600)
    outbox.on_channel = opened.append
    for number in range(10):
        outbox.put(message(number, Lane.RESULT, Address(f"reply-{number}", "direct")))
    assert len(opened) == 1
    assert taken(outbox, opened[0]) == list(range(10))


def test_the_journal_keeps_results_up_to_its_bound_and_never_drops_what_is_under_way() -> None:
    journal = MemoryJournal(max_bytes=3 * 600)
    journal.begin("under-way")
    for number in range(5):
        journal.begin(str(number))
        journal.finish(str(number), b"%d" % number)
    assert journal.find("under-way") is not None
    assert journal.find("0") is None
    last = journal.find("4")
    assert last is not None
    assert last.result == b"4"


def test_each_start_is_one_epoch_later(tmp_path: Path) -> None:
    def start() -> int:
        store = MemoryStore(tmp_path / "state", 10**6, 3600)
        store.close()
        return store.epoch

    first = start()
    assert [start(), start()] == [first + 1, first + 2]
    assert first > 1_700_000_000


def test_two_agents_do_not_share_a_directory(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, 10**6, 3600)
    with pytest.raises(OSError, match="another agent"):
        MemoryStore(tmp_path, 10**6, 3600)
    store.close()
    MemoryStore(tmp_path, 10**6, 3600).close()


def test_what_is_given_up_or_postponed() -> None:
    outbox = MemoryOutbox(10**6, 3600)
    for number in range(3):
        outbox.put(message(number))
    first, second = outbox.take(TOPIC), outbox.take(TOPIC)
    assert first is not None
    assert second is not None
    outbox.give_up(first, "rejected")
    outbox.postpone(second)
    assert taken(outbox) == [2, 1]
    assert [(loss.reason, loss.first) for loss in outbox.take_losses()] == [("rejected", 0)]


def test_an_unreadable_epoch_never_goes_back(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("not a number")
    store = MemoryStore(tmp_path, 10**6, 3600)
    assert store.epoch > 1_700_000_000
    store.close()


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        MemoryStore(tmp_path / "file", 10**6, 3600)


def test_counters_count_from_one_without_holes() -> None:
    store = MemoryStore(None, 10**6, 3600)
    assert [store.next_sequence("a") for _ in range(3)] == [1, 2, 3]
    assert store.next_sequence("b") == 1
