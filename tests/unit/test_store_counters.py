"""What a store takes over: counters never go back, and an older schema keeps what it had."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from storing import message

from agent.store import JournalEntry, Lane, SqliteStore, schema


def test_a_repeated_result_takes_no_counter_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, 10**7, 3600)
    numbers = [store.next_sequence("/benches/rig") for _ in range(5)]
    with store.together():
        for number in (*numbers, 2):
            store.outbox.put(message(number, Lane.RESULT))
    store.close()
    store = SqliteStore(tmp_path, 10**7, 3600)
    assert store.next_sequence("/benches/rig") == 6
    store.close()


async def test_a_store_of_the_first_schema_keeps_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as database:
        schema.migrate(database, schema.MIGRATIONS[:1])
        database.execute("INSERT INTO facts VALUES ('epoch', 7)")
        database.execute(
            "INSERT INTO journal VALUES (1, 's:a', 'write', 5, 'desk', x'733a61', NULL, '', 0, 0, NULL)"
        )
    with contextlib.closing(SqliteStore(tmp_path, 10**7, 3600)) as store:
        assert store.epoch == 8
        assert await store.journal.unfinished() == [JournalEntry("s:a", "write", 5, "desk", b"s:a")]
        entry = JournalEntry("s:b", "write", 6, None, b"s:b", result=b"{}", asked=b"who")
        store.journal.finish(entry)
        assert await store.journal.find("s:b") == entry
