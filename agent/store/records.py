"""What one database keeps beside the outbox: facts, counters, values, losses, journal and audit."""

import sqlite3
from collections.abc import Iterable, Mapping

from msgspec.structs import astuple

from agent.clock import Timeline
from agent.store.base import AuditEntry, JournalEntry, Loss

JOURNAL_RETENTION_S = 24 * 3600.0
ENTRY_OVERHEAD = 512
"""Bytes that a journal entry costs beside its key and result."""
PRUNE_STEP = 64
"""Rows that one commit prunes at most beside what it adds: so pruning keeps up and never stalls."""

_ENTRY = "key, op, received_ns, reply_to, correlation_id, result, event_id, sequence, time_ns"
_FINISHED = """
ON CONFLICT (key) DO UPDATE SET result = excluded.result, event_id = excluded.event_id,
    sequence = excluded.sequence, time_ns = excluded.time_ns, finished_at = excluded.finished_at
"""
_AUDIT = "time_ns, finished_ns, who, op, status, code, message, device, lease, holder, key, what"


class Records:
    """The statements for one open database. It belongs to the keeper's thread."""

    def __init__(
        self, database: sqlite3.Connection, timeline: Timeline, journal_bytes: int, audit_age: float
    ) -> None:
        self.database = database
        self._timeline = timeline
        self._journal_most = journal_bytes
        self._audit_age = audit_age
        (self._journal_bytes,) = database.execute(
            f"SELECT coalesce(sum(length(key) + length(result) + {ENTRY_OVERHEAD}), 0) FROM journal"
        ).fetchone()

    def note(self, name: str, value: int | bytes) -> None:
        """Keeps one fact."""
        self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # -- counters and values --------------------------------------------------------------------

    def count(self, counters: Mapping[str, int]) -> None:
        """Keeps how far counters came; none ever goes back."""
        self.database.executemany(
            "INSERT INTO counters VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            counters.items(),
        )

    def remember(self, name: str, value: bytes | None) -> None:
        """Keeps a value under a name; None forgets it."""
        if value is None:
            self.database.execute("DELETE FROM kept WHERE name = ?", (name,))
        else:
            self.database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, value))

    # -- losses ---------------------------------------------------------------------------------

    def lose(self, losses: Mapping[int, Loss | None]) -> None:
        """Keeps losses by number as they are now; None forgets one."""
        self.database.executemany(
            "INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(number, *astuple(one)) for number, one in losses.items() if one is not None],
        )
        said = [(number,) for number, one in losses.items() if one is None]
        self.database.executemany("DELETE FROM losses WHERE id = ?", said)

    def losses(self) -> dict[int, Loss]:
        """All losses by number."""
        return {row[0]: Loss(*row[1:]) for row in self.database.execute("SELECT * FROM losses ORDER BY id")}

    # -- journal --------------------------------------------------------------------------------

    def find(self, key: str) -> JournalEntry | None:
        """The entry of a message-id."""
        row = self.database.execute(f"SELECT {_ENTRY} FROM journal WHERE key = ?", (key,)).fetchone()
        return None if row is None else JournalEntry(*row)

    def unfinished(self) -> list[JournalEntry]:
        """Entries without a result, in the order they were begun."""
        rows = self.database.execute(f"SELECT {_ENTRY} FROM journal WHERE result IS NULL ORDER BY id")
        return [JournalEntry(*row) for row in rows]

    def begin(self, entry: JournalEntry) -> None:
        """Adds an entry without a result."""
        self.database.execute(
            f"INSERT OR IGNORE INTO journal ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(entry)
        )

    def finish(self, entry: JournalEntry) -> None:
        """Adds a result, and forgets entries over age or, oldest first, over the bound."""
        assert entry.result is not None
        self.database.execute(
            f"INSERT INTO journal ({_ENTRY}, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {_FINISHED}",
            (*astuple(entry), self._timeline.now()),
        )
        self._journal_bytes += len(entry.key) + len(entry.result) + ENTRY_OVERHEAD
        self._prune_journal()

    def _prune_journal(self) -> None:
        horizon = self._timeline.now() - JOURNAL_RETENTION_S
        over = self._journal_bytes - self._journal_most
        pruned = []
        for number, finished_at, size in self.database.execute(
            f"SELECT id, finished_at, length(key) + length(result) + {ENTRY_OVERHEAD} FROM journal"
            " ORDER BY id LIMIT ?",
            (PRUNE_STEP,),
        ):
            if finished_at is None:
                continue  # under way
            if over <= 0 and finished_at >= horizon:
                break
            pruned.append((number,))
            over -= size
            self._journal_bytes -= size
        self.database.executemany("DELETE FROM journal WHERE id = ?", pruned)

    # -- audit ----------------------------------------------------------------------------------

    def audit(self, entries: Iterable[AuditEntry]) -> None:
        """Adds entries, and forgets the oldest over age."""
        now = self._timeline.now()
        self.database.executemany(
            f"INSERT INTO audit (at, {_AUDIT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(now, *astuple(one)) for one in entries],
        )
        self.database.execute(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?) AND at < ?",
            (PRUNE_STEP, now - self._audit_age),
        )
