"""What a store keeps beside messages: epoch, counters, values, journal, audit; and its schema."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from storing import TOPIC, Clock, put, taken

from agent.clock import Timeline
from agent.store import AuditEntry, JournalEntry, SqliteStore, records, schema, sqlite
from agent.store.records import ENTRY_OVERHEAD, Limits, Records


@contextlib.contextmanager
def opened(directory: Path | None, audit_age: float = 3600.0) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore(directory, 10**6, 3600.0, audit_age=audit_age)) as store:
        yield store


def entry(key: str, result: bytes | None = None) -> JournalEntry:
    return JournalEntry(key, "write", 5, "reply", b"id", result, "event-1" if result else "", 3, 7)


def rows(directory: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(directory / "store.db")) as database:
        return database.execute(query).fetchall()


# -- epoch and counters ---------------------------------------------------------------------------


def test_each_start_is_one_epoch_later(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        with opened(tmp_path / "state") as store:
            epochs.append(store.epoch)
    assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]
    assert epochs[0] > 1_700_000_000


def test_a_clock_that_was_stepped_back_takes_no_epoch_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        first = store.epoch
    Clock(monkeypatch).step(-(10**8))
    with opened(tmp_path) as store:
        assert store.epoch == first + 1


def test_what_version_0_1_left_goes_on(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("2000000000\n")
    with opened(tmp_path) as store:
        assert store.epoch == 2_000_000_001
    with opened(tmp_path) as store:
        assert store.epoch == 2_000_000_002


def test_what_version_0_1_left_counts_once(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("5\n")
    with opened(tmp_path) as store:
        assert store.epoch == 6
    (tmp_path / "store.db").write_bytes(b"damaged" * 1000)
    with opened(tmp_path) as store:
        assert store.epoch > 1_700_000_000


def test_an_unreadable_epoch_never_goes_back(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("not a number")
    with opened(tmp_path) as store:
        assert store.epoch > 1_700_000_000


def test_counters_count_from_one_without_holes() -> None:
    with opened(None) as store:
        assert [store.next_sequence("a") for _ in range(3)] == [1, 2, 3]
        assert store.next_sequence("b") == 1


def test_a_number_whose_message_was_never_given_is_given_again(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, store.next_sequence("/benches/rig"))
        assert store.next_sequence("/benches/rig") == 2
    with opened(tmp_path) as store:
        assert store.next_sequence("/benches/rig") == 2


def test_values_are_kept_and_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert store.recall("a") is None
        store.remember("a", b"1")
        store.remember("b", b"2")
        store.remember("b", None)
        assert (store.recall("a"), store.recall("b")) == (b"1", None)
    with opened(tmp_path) as store:
        assert (store.recall("a"), store.recall("b")) == (b"1", None)


def test_the_timeline_goes_on_over_restarts_and_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with opened(tmp_path) as store:
        clock.wait(100)
        before = store.timeline.now()
    clock.wait(10)
    clock.step(-1000)
    with opened(tmp_path) as store:
        assert store.timeline.now() == pytest.approx(before + 10)


# -- units ----------------------------------------------------------------------------------------


async def test_what_is_given_together_is_stored_together_or_not_at_all(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with store.together():
            store.remember("a", b"1")
            put(store, 2**70)  # what SQLite cannot hold
        store.remember("b", b"2")
        await store.stored()
        assert [loss.reason for loss in store.outbox.losses()] == ["internal-error"]
    with opened(tmp_path) as store:
        assert (store.recall("a"), store.recall("b")) == (None, b"2")


async def test_a_question_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Records, key: str) -> None:
        raise ZeroDivisionError(key)

    monkeypatch.setattr(Records, "find", fail)
    with opened(None) as store:
        put(store, 1)
        with pytest.raises(ZeroDivisionError):
            await store.journal.find("a")
        await store.stored()
        assert taken(store) == [1]


def test_without_a_loop_everything_is_kept_too(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1, 2)
        store.journal.begin(entry("a"))
    with opened(tmp_path) as store:
        assert store.outbox.stats().messages == 2
        assert [one.key for one in asyncio.run(_unfinished(store))] == ["a"]


async def _unfinished(store: SqliteStore) -> Sequence[JournalEntry]:
    return await store.journal.unfinished()


# -- journal --------------------------------------------------------------------------------------


async def test_the_journal_knows_what_was_begun_and_what_came_of_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert await store.journal.find("a") is None
        store.journal.begin(entry("a"))
        store.journal.begin(entry("b"))
        assert await store.journal.find("a") == entry("a")
        store.journal.finish(entry("a", b"ok"))
        store.journal.finish(entry("read", b"values"))
        assert await store.journal.find("a") == entry("a", b"ok")
        assert list(await store.journal.unfinished()) == []
        since = store.journal.since_ns
    with opened(tmp_path) as store:
        assert await store.journal.find("read") == entry("read", b"values")
        assert list(await store.journal.unfinished()) == [entry("b")]
        assert store.journal.since_ns == since
        store.journal.finish(entry("b", b"cut off"))
        assert list(await store.journal.unfinished()) == []
    with opened(tmp_path) as store:
        assert list(await store.journal.unfinished()) == []


async def test_what_is_changed_after_it_was_given_is_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        begun = entry("a")
        store.journal.begin(begun)
        begun.key = "changed"
        assert await store.journal.find("a") is not None


async def test_results_are_kept_for_a_day_of_the_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with opened(tmp_path) as store:
        store.journal.begin(entry("under-way"))
        store.journal.finish(entry("old", b"1"))
        await store.stored()
        clock.step(10 * 86400)
        clock.wait(23 * 3600)
        store.journal.finish(entry("young", b"2"))
        assert await store.journal.find("old") is not None
        clock.wait(2 * 3600)
        store.journal.finish(entry("now", b"3"))
        found = [await store.journal.find(key) for key in ("old", "young", "now", "under-way")]
        assert [one is not None for one in found] == [False, True, True, True]


async def test_over_the_bound_the_oldest_results_go_and_never_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "JOURNAL_BYTES", 3 * (ENTRY_OVERHEAD + 2))
    with opened(tmp_path) as store:
        store.journal.begin(entry("under-way"))
        for number in range(5):
            store.journal.finish(entry(str(number), b"1"))
    with opened(tmp_path) as store:
        store.journal.finish(entry("5", b"1"))
        found = [await store.journal.find(key) for key in ("under-way", "2", "3", "5")]
        assert [one is not None for one in found] == [True, False, True, True]


# -- audit and dead letters -----------------------------------------------------------------------


async def test_the_audit_is_kept_for_its_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with opened(tmp_path, audit_age=100.0) as store:
        for number in range(3):
            store.audit(AuditEntry(number, number + 1, "ann", "write", "ok", what="{}", lease="abc"))
            await store.stored()
            clock.wait(60)
    assert rows(tmp_path, "SELECT time_ns, who, op, status, what, lease FROM audit") == [
        (1, "ann", "write", "ok", "{}", "abc"),
        (2, "ann", "write", "ok", "{}", "abc"),
    ]


async def test_dead_letters_are_kept_whole_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "GRAVES", 2)
    with opened(tmp_path) as store:
        put(store, 1, 2, durable=False)
        put(store, 3)
        await store.stored()
        while (found := store.outbox.take(TOPIC)) is not None:
            store.outbox.bury(found, f"no {found.sequence}")
    query = "SELECT reason, name, data FROM dead_letters JOIN channels ON channels.id = channel"
    assert rows(tmp_path, query) == [
        ("no 2", TOPIC.name, b"x" * 100),
        ("no 3", TOPIC.name, b"x" * 100),
    ]


def test_a_commit_without_dead_letters_does_not_look_at_those_that_are_kept() -> None:
    with contextlib.closing(schema.connect(None, "normal")) as database:
        statements: list[str] = []
        database.set_trace_callback(statements.append)
        Records(database, Timeline(), Limits(1, 1.0)).bury([])
    assert statements == []


# -- directory and schema -------------------------------------------------------------------------


def test_two_agents_do_not_share_a_directory(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(OSError, match="another agent"):
        SqliteStore(tmp_path, 10**6, 3600.0)
    with opened(tmp_path):
        pass


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with opened(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        modes = {file.name: file.stat().st_mode & 0o077 for file in (tmp_path / "state").glob("store.db*")}
        assert modes == dict.fromkeys(["store.db", "store.db-wal", "store.db-shm"], 0)


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        SqliteStore(tmp_path / "file", 10**6, 3600.0)


def test_a_store_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as database:
        database.execute("PRAGMA user_version = 99")
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(OSError, match="later version"):
        SqliteStore(tmp_path, 10**6, 3600.0)
    assert (tmp_path / "store.db").read_bytes() == before


async def test_a_store_of_an_earlier_schema_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        put(store, 1)
        store.remember("a", b"1")
        epoch = store.epoch
    later = "ALTER TABLE journal ADD COLUMN note TEXT NOT NULL DEFAULT ''"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
    with opened(tmp_path) as store:
        await store.stored()
        assert (store.epoch, store.recall("a"), taken(store)) == (epoch + 1, b"1", [1])
    assert rows(tmp_path, "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
    assert rows(tmp_path, "SELECT note FROM journal") == []


def test_a_migration_that_fails_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path):
        pass
    bad = "CREATE TABLE more (id INTEGER); ALTER TABLE nowhere ADD COLUMN note TEXT"
    version = len(schema.MIGRATIONS)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, bad))
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            SqliteStore(tmp_path, 10**6, 3600.0)
    assert rows(tmp_path, "PRAGMA user_version") == [(version,)]
    with opened(tmp_path):
        pass
