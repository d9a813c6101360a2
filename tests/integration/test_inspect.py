"""A store seen and mended from another process, beside the agent and without it."""

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from agent import clock
from agent.cli import configuration
from agent.cli.exits import Failure
from agent.store import AuditEntry, Lane, Outgoing, SqliteStore
from agent.store.inspect import AuditFilter, Inspector, NoStore
from agent.store.schema import APPLICATION_ID, MIGRATIONS
from protocols.amqp.flavours import Address

TOPIC = Address("hil.rig.events.plc", "topic")
SOURCE = "/benches/rig/devices/plc"
REASON = "amqp:not-allowed: no"


def message(number: int, address: Address = TOPIC, **more: Any) -> Outgoing:
    lane = Lane.RESULT if address.kind == "direct" else Lane.TELEMETRY
    return Outgoing(address, lane, SOURCE, number, number, b"%d" % number, event_id=f"x-{number}", **more)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store with the dead letters 1 to 3, of which the last is a reply."""
    with contextlib.closing(SqliteStore(tmp_path, 2**26, 3600.0)) as one:
        asker = Address("asker", "direct")
        for letter in (message(1), message(2, expires=one.timeline.now() + 0.2), message(3, asker)):
            one.outbox.put(letter)
        one.outbox.put(message(4))
        await one.stored()
        for channel in (TOPIC, TOPIC, asker):
            taken = one.outbox.take(message(0, channel).channel)
            assert taken is not None
            one.outbox.bury(taken, REASON)
        await one.stored()
        yield one


async def test_dead_letters_keep_all_that_is_sent(store: SqliteStore, tmp_path: Path) -> None:
    with Inspector(tmp_path) as opened:
        first, _, reply = opened.dead_letters()
        assert (first.address, first.lane, first.source) == (TOPIC.name, Lane.TELEMETRY, SOURCE)
        assert (first.sequence, first.time_ns, first.event_id, first.data) == (1, 1, "x-1", b"1")
        assert first.reason == REASON
        assert (reply.address, reply.lane) == ("asker", Lane.RESULT)
        assert opened.dead_letter(first.id) == first
        assert opened.dead_letter(99) is None
        assert opened.in_use()


async def test_what_is_retried_while_the_agent_runs_is_taken_as_it_was(
    store: SqliteStore, tmp_path: Path
) -> None:
    outbox = store.outbox
    with Inspector(tmp_path, writable=True) as opened:
        ids = opened.dead_letter_ids()
        assert opened.retry([ids[1], ids[0], 99]) == 2
        assert opened.dead_letter_ids() == ids[2:]
    await until(lambda: outbox.stats().messages == 3)
    again = [outbox.take(TOPIC) for _ in range(3)]
    assert [one and one.data for one in again] == [b"4", b"1", b"2"]  # its TTL counts no more
    assert [one and one.event_id for one in again] == ["x-4", "x-1", "x-2"]
    for one in again:
        assert one is not None
        outbox.done(one)
    await store.stored()
    assert (outbox.stats().messages, outbox.stats().bytes) == (0, 0)
    with Inspector(tmp_path) as opened:
        assert opened.overview().waiting == []


async def test_a_retried_reply_goes_to_who_asked(store: SqliteStore, tmp_path: Path) -> None:
    with Inspector(tmp_path, writable=True) as opened:
        opened.retry(opened.dead_letter_ids()[2:])
    await until(lambda: store.outbox.stats().messages == 2)
    taken = store.outbox.take(message(0, Address("asker", "direct")).channel)
    assert taken is not None
    assert (taken.address, taken.data, taken.lane) == (Address("asker", "direct"), b"3", Lane.RESULT)


async def test_messages_put_after_a_retry_come_after_it(store: SqliteStore, tmp_path: Path) -> None:
    with Inspector(tmp_path, writable=True) as opened:
        opened.retry(opened.dead_letter_ids()[:2])
        store.outbox.put(message(5))
        await store.stored()
    await until(lambda: store.outbox.stats().messages == 4)
    taken = [store.outbox.take(TOPIC) for _ in range(4)]
    assert sorted(one.sequence for one in taken if one) == [1, 2, 4, 5]
    store.close()
    with contextlib.closing(SqliteStore(tmp_path, 2**26, 3600.0)) as again:
        await again.stored()
        assert again.outbox.stats().messages == 4


async def test_the_next_agent_has_what_was_retried_before_it(store: SqliteStore, tmp_path: Path) -> None:
    store.close()
    with Inspector(tmp_path, writable=True) as opened:
        assert not opened.in_use()
        assert opened.retry(opened.dead_letter_ids()) == 3
    with contextlib.closing(SqliteStore(tmp_path, 2**26, 3600.0)) as again:
        await again.stored()
        assert again.outbox.stats().messages == 4
        taken = [again.outbox.take(TOPIC) for _ in range(4)]
        assert [one and one.sequence for one in taken] == [4, 1, 2, None]


async def test_old_letters_are_told_from_young_ones(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Inspector(tmp_path, writable=True) as opened:
        assert opened.dead_letter_ids(older_than_s=3600) == []
        now = clock.now_ns() + 3601 * 10**9
        monkeypatch.setattr(clock, "now_ns", lambda: now)
        old = opened.dead_letter_ids(older_than_s=3600)
        assert len(old) == 3
        assert opened.purge([*old, 99]) == 3
        assert opened.dead_letter_ids() == []


async def test_the_overview_counts_what_is_there(store: SqliteStore, tmp_path: Path) -> None:
    store.remember("leases", b'[{"id":"0a1b","holder":"joe"}]')
    await store.stored()
    with Inspector(tmp_path) as opened:
        found = opened.overview()
    assert (found.epoch, found.schema, found.in_use) == (store.epoch, len(MIGRATIONS), True)
    assert [(line.address, line.lane, line.messages) for line in found.waiting] == [
        (TOPIC.name, "telemetry", 1)
    ]
    assert sum(line.bytes for line in found.waiting) == store.outbox.stats().bytes
    assert found.kept["dead letters"].number == 3
    assert found.kept["dead letters"].bytes == 3
    assert sum(loss.count for loss in found.losses) == 2
    assert found.leases == [{"id": "0a1b", "holder": "joe"}]
    assert "store.db" in found.files


def audited(number: int, **more: Any) -> AuditEntry:
    fields: dict[str, Any] = {"who": "joe", "op": "write", "status": "ok", "key": f"s:cmd-{number}"}
    return AuditEntry(time_ns=number, finished_ns=number, **fields | more)


async def test_audit_is_filtered(store: SqliteStore, tmp_path: Path) -> None:
    entries = [
        audited(10),
        audited(20, who="ann", device="plc", lease="0a1b", holder="Ann's test"),
        audited(30, op="read", status="rejected", code="unknown-device"),
        audited(40, key="b:00ff"),
    ]
    for one in entries:
        store.audit(one)
    await store.stored()
    with Inspector(tmp_path) as opened:

        def found(limit: int = 100, **wanted: Any) -> list[int]:
            return [one.time_ns for one in opened.audit(AuditFilter(**wanted), limit)]

        assert opened.audit(AuditFilter(), 100) == entries
        assert found(limit=2) == [30, 40]
        assert found(since_ns=20, until_ns=40) == [20, 30]
        assert found(user="ann") == found(device="plc") == found(lease="0a1b") == [20]
        assert found(holder="Ann's test") == [20]
        assert found(op="read") == found(status="rejected") == found(status="unknown-device") == [30]
        assert found(message_id="cmd-20") == [20]
        assert found(message_id="00ff") == [40]
        assert found(user="ann", op="read") == []


def test_what_is_no_store_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(NoStore, match="There is no store in"):
        Inspector(tmp_path)
    assert not path.exists()
    path.write_bytes(b"something else\n" * 100)
    with pytest.raises(NoStore, match="cannot be read as a store"):
        Inspector(tmp_path)
    path.unlink()
    for owner, version, says in (
        (17, 1, "is no store of hilgate"),
        (APPLICATION_ID, len(MIGRATIONS) + 1, "a later version"),
        (APPLICATION_ID, len(MIGRATIONS) - 1, "an earlier version"),
    ):
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA application_id = {owner}")
            database.execute(f"PRAGMA user_version = {version}")
            database.execute("CREATE TABLE IF NOT EXISTS other (x)")
        before = path.read_bytes()
        with pytest.raises(NoStore, match=says):
            Inspector(tmp_path, writable=True)
        assert path.read_bytes() == before


async def test_a_damaged_store_is_a_sentence(store: SqliteStore, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / "store.db"
    path.write_bytes(path.read_bytes()[:8192] + bytes(range(256)) * 1000)
    with pytest.raises(Failure, match=f"The store in {tmp_path} fails: database disk image is malformed"):
        with configuration.inspector(None, tmp_path) as opened:
            opened.overview()


async def test_a_read_only_disk_is_read_without_a_trace(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    known = os.statvfs(tmp_path)
    read_only = SimpleNamespace(f_flag=known.f_flag | os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    before = sorted(os.listdir(tmp_path))
    with Inspector(tmp_path) as opened:
        assert opened.overview().kept["dead letters"].number == 3
        assert sorted(os.listdir(tmp_path)) == before
