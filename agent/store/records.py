"""What one database keeps beside the outbox: facts, counters, values, losses, journal and audit."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import astuple

from agent import clock
from agent.clock import Timeline
from agent.store.base import AuditEntry, JournalEntry, Loss
from agent.store.message import COLUMNS, PLACES, Grave, to_row
from agent.store.schema import NUMBER_BITS

JOURNAL_RETENTION_S = 24 * 3600.0
ENTRY_OVERHEAD = 512
"""Bytes that a journal entry costs beside its key and result."""
PRUNE_STEP = 64
"""Rows that one commit prunes at most beside what it adds: so pruning keeps up and never stalls."""

GRAVES = 1000
"""Dead letters kept; of more the oldest go."""
GRAVE_BYTES = 64 * 1024 * 1024
AUDIT_ROWS = 1_000_000
"""Audit entries kept; of more the oldest go."""

_LETTER = f"buried_ns, reason, channel, {COLUMNS}"
_ENTRY = "key, op, received_ns, reply_to, correlation_id, result, event_id, sequence, time_ns, asked, epoch"
_FINISHED = """
ON CONFLICT (key) DO UPDATE SET result = excluded.result, event_id = excluded.event_id,
    sequence = excluded.sequence, time_ns = excluded.time_ns, epoch = excluded.epoch,
    finished_at = excluded.finished_at
"""
_AUDIT = "time_ns, finished_ns, who, op, status, code, message, device, lease, holder, key, what"
_APPENDED = {"dead_letters": _LETTER, "audit": f"at, {_AUDIT}"}


class Limits(NamedTuple):
    """How much is kept of what piles up."""

    journal_bytes: int
    audit_age: float
    """In seconds."""


class Carried(NamedTuple):
    """What the loop knows, and a database that takes over has to know."""

    epoch: int
    counters: Mapping[str, int]
    values: Mapping[str, bytes]
    losses: Mapping[int, Loss]


class Records:
    """The statements for one open database. It belongs to the keeper's thread."""

    def __init__(self, database: sqlite3.Connection, timeline: Timeline, limits: Limits) -> None:
        self.database = database
        self._timeline = timeline
        self._limits = limits
        self.older: Records | None = None
        """Where the journal's entries are that are not here."""

    def note(self, name: str, value: int | bytes) -> None:
        """Keeps one fact."""
        self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed, or rolled back where an error leaves it. May be nested."""
        if self.database.in_transaction:
            yield
            return
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:  # SQLite itself rolls back where the disk is full
                self.database.execute("ROLLBACK")
            raise

    def data_version(self) -> int:
        """Changes when another process changed something."""
        (version,) = self.database.execute("PRAGMA data_version").fetchone()
        return int(version)

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

    # -- dead letters ---------------------------------------------------------------------------

    def bury(self, graves: Sequence[Grave]) -> None:
        """Adds dead letters, and forgets the oldest over the bounds."""
        if not graves:
            return  # most commits have none, and what is below looks at all that are kept
        self.database.executemany(
            f"INSERT INTO dead_letters ({_LETTER}) VALUES (?, ?, ?, {PLACES})",
            [(one.buried_ns, one.reason, one.id >> NUMBER_BITS, *to_row(one.message)) for one in graves],
        )
        # The newest come first; the first whose sum is over a bound goes, and all that are older.
        self.database.execute(
            "DELETE FROM dead_letters WHERE id <= (SELECT id FROM (SELECT id,"
            " sum(length(data)) OVER newest AS bytes, row_number() OVER newest AS number"
            " FROM dead_letters WINDOW newest AS (ORDER BY id DESC))"
            " WHERE bytes > ? OR number > ? LIMIT 1)",
            (GRAVE_BYTES, GRAVES),
        )

    # -- journal --------------------------------------------------------------------------------

    def find(self, key: str) -> JournalEntry | None:
        """The entry of a message-id."""
        row = self.database.execute(f"SELECT {_ENTRY} FROM journal WHERE key = ?", (key,)).fetchone()
        if row is None and self.older is not None:
            return self.older.find(key)
        return None if row is None else JournalEntry(*row)

    def begin(self, entry: JournalEntry) -> None:
        """Adds an entry without a result."""
        self.database.execute(
            f"INSERT OR IGNORE INTO journal ({_ENTRY}) VALUES (?{', ?' * 10})", astuple(entry)
        )

    def finish(self, entry: JournalEntry, at: float | None = None) -> None:
        """Adds a result, and forgets entries over age or, oldest first, over the bound."""
        assert entry.result is not None
        self.database.execute(
            f"INSERT INTO journal ({_ENTRY}, finished_at) VALUES (?{', ?' * 11}) {_FINISHED}",
            (*astuple(entry), self._timeline.now() if at is None else at),
        )
        self._prune_journal(len(entry.key) + len(entry.result) + ENTRY_OVERHEAD)

    def _prune_journal(self, grown: int) -> None:
        (size,) = self.database.execute("SELECT journal FROM totals").fetchone()
        size += grown
        horizon = self._timeline.now() - JOURNAL_RETENTION_S
        pruned = []
        for number, finished_at, freed in self.database.execute(
            f"SELECT id, finished_at, length(key) + length(result) + {ENTRY_OVERHEAD} FROM journal"
            " ORDER BY id LIMIT ?",
            (PRUNE_STEP,),
        ):
            if finished_at is None:
                continue  # under way
            if size <= self._limits.journal_bytes and finished_at >= horizon:
                break
            pruned.append((number,))
            size -= freed
        self.database.executemany("DELETE FROM journal WHERE id = ?", pruned)
        self.database.execute("UPDATE totals SET journal = ?", (size,))

    # -- audit ----------------------------------------------------------------------------------

    def audit(self, entries: Iterable[AuditEntry]) -> None:
        """Adds entries, and forgets the oldest over age."""
        now = self._timeline.now()
        self.database.executemany(
            f"INSERT INTO audit (at, {_AUDIT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(now, *astuple(one)) for one in entries],
        )
        self.database.execute(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?)"
            " AND (at < ? OR id <= (SELECT max(id) FROM audit) - ?)",
            (PRUNE_STEP, now - self._limits.audit_age, AUDIT_ROWS),
        )

    # -- moving ---------------------------------------------------------------------------------

    def carry(self, carried: Carried) -> None:
        """Takes over what the loop knows, in place of what is here."""
        self.note("epoch", carried.epoch)
        self.database.execute("INSERT OR IGNORE INTO facts VALUES ('since_ns', ?)", (clock.now_ns(),))
        self.count(carried.counters)
        self.database.execute("DELETE FROM kept")
        self.database.executemany("INSERT INTO kept VALUES (?, ?)", carried.values.items())
        self.database.execute("DELETE FROM losses")
        self.lose(carried.losses)

    def take_from(self, memory: "Records") -> None:
        """Adds the journal, the audit and the dead letters of the memory."""
        for row in memory.database.execute(f"SELECT {_ENTRY}, finished_at FROM journal ORDER BY id"):
            if row[-1] is None:
                self.begin(JournalEntry(*row[:-1]))
            else:
                self.finish(JournalEntry(*row[:-1]), row[-1])
        for table, columns in _APPENDED.items():
            places = ", ".join("?" * (columns.count(",") + 1))
            rows = memory.database.execute(f"SELECT {columns} FROM {table} ORDER BY id")
            self.database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)

    def clear(self) -> None:
        """Forgets all but the outbox."""
        for table in ("journal", "kept", "losses", "counters", *_APPENDED):
            self.database.execute(f"DELETE FROM {table}")
        self.database.execute("UPDATE totals SET journal = 0")


def losses_in(database: sqlite3.Connection) -> dict[int, Loss]:
    """All losses by number."""
    return {row[0]: Loss(*row[1:]) for row in database.execute("SELECT * FROM losses ORDER BY id")}


def unfinished_in(database: sqlite3.Connection) -> list[JournalEntry]:
    """Journal entries without a result, in the order they were begun."""
    rows = database.execute(f"SELECT {_ENTRY} FROM journal WHERE result IS NULL ORDER BY id")
    return [JournalEntry(*row) for row in rows]
