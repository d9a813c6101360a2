"""The store: one SQLite database, owned by a thread, that survives a killed agent."""

import fcntl
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import msgspec

from agent import clock
from agent.clock import Moment, Timeline
from agent.store.base import AuditEntry, Journal, Outbox
from agent.store.handover import Handover
from agent.store.journal import SqliteJournal
from agent.store.keeper import Keeper
from agent.store.outbox import SqliteOutbox
from agent.store.records import Records
from agent.store.schema import Synchronous, connect
from agent.store.unit import Report, Unit

MEMORY_BYTES = 64 * 1024 * 1024
"""What is kept of messages where there is no directory."""
JOURNAL_BYTES = 256 * 1024 * 1024


class SqliteStore:
    """Outbox, journal, counters, values and audit in `directory/store.db`; without a directory in memory.

    Without a directory, and in a new one, the epoch is the second of the start: a bench whose directory was
    lost does not fall behind what it said before.

    Args:
        directory: Made if need be; one agent at a time uses it.
        max_bytes: What the outbox may hold; without a directory 64 MiB at most.
        max_age: Seconds that messages other than results are kept.
        synchronous: `normal` survives a killed process, `full` a power cut too.
        audit_age: Seconds that the audit is kept.

    Raises:
        OSError: the directory cannot be made or written, another agent uses it, or a later version made it.
    """

    def __init__(
        self,
        directory: Path | None,
        max_bytes: int,
        max_age: float,
        *,
        synchronous: Synchronous = "normal",
        audit_age: float = 30 * 24 * 3600.0,
    ) -> None:
        self._lock = None if directory is None else _lock(directory)
        memory = connect(None, synchronous)
        main = memory if directory is None else connect(directory / "store.db", synchronous)
        self.timeline = Timeline(_last_moment(main))
        journal_bytes = MEMORY_BYTES if directory is None else JOURNAL_BYTES
        records = Records(main, self.timeline, journal_bytes, audit_age)
        self.epoch, since_ns = _begin(main, directory)
        self._handover = Handover(self._give, self._report)
        self._counters: dict[str, int] = dict(main.execute("SELECT name, value FROM counters"))
        self._values: dict[str, bytes] = dict(main.execute("SELECT name, value FROM kept"))
        most = max_bytes if directory is not None else min(max_bytes, MEMORY_BYTES)
        self._outbox = SqliteOutbox(self._handover, self.timeline, most, max_age)
        self.outbox: Outbox = self._outbox
        self.journal: Journal = SqliteJournal(self._handover, since_ns, records.unfinished())
        self.trouble = ""
        self.on_trouble: Callable[[], None] = lambda: None
        in_memory = records if main is memory else Records(memory, self.timeline, 0, audit_age)
        self._keeper = Keeper(records, in_memory, self.timeline, self._handover.deliver)
        spool = self._keeper.spool
        self._outbox.adopt(spool.channels, spool.messages, spool.bytes, records.losses())
        self._keeper.start()

    def next_sequence(self, counter: str) -> int:
        """The next number of a counter, from 1."""
        number = self._counters[counter] = self._counters.get(counter, 0) + 1
        return number

    def remember(self, name: str, value: bytes | None) -> None:
        """Keeps a small value under a name."""
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value
        self._handover.operate(lambda records: records.remember(name, value))

    def recall(self, name: str) -> bytes | None:
        """The value last remembered under a name."""
        return self._values.get(name)

    def audit(self, entry: AuditEntry) -> None:
        """Keeps an entry for people to look up."""
        self._handover.operate(lambda records: records.audit([entry]))

    def together(self) -> AbstractContextManager[None]:
        """Everything given inside is stored at once or not at all."""
        return self._handover.together()

    async def stored(self) -> None:
        """Returns when everything given before is on disk, or in memory where the store is in `trouble`."""
        await self._handover.ask(lambda _: None)

    def close(self) -> None:
        """Stores what was given and leaves the directory to the next agent."""
        self._handover.hand_over()
        self._keeper.close()
        self._handover.take_reports()
        if self._lock is not None:
            self._lock.close()

    def _give(self, unit: Unit) -> None:
        self._keeper.give(unit)

    def _report(self, report: Report) -> None:
        self._outbox.report(report)


def _lock(directory: Path) -> IO[bytes]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (directory / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise OSError(error.errno, "another agent uses this store directory", str(directory)) from None
    return file


def _last_moment(database: sqlite3.Connection) -> Moment | None:
    row = database.execute("SELECT value FROM facts WHERE name = 'moment'").fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=Moment)


def _begin(database: sqlite3.Connection, directory: Path | None) -> tuple[int, int]:
    """Begins a run: its epoch, and when the database was begun (UTC, nanoseconds)."""
    facts = dict(database.execute("SELECT name, value FROM facts"))
    last = facts.get("epoch", 0) or _epoch_of_0_1(directory)
    epoch = last + 1 if last else int(clock.now_ns() // 1_000_000_000)
    since_ns = facts.get("since_ns", clock.now_ns())
    (synchronous,) = database.execute("PRAGMA synchronous").fetchone()
    database.execute("PRAGMA synchronous = full")  # an epoch given twice would be a lie
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)", [("epoch", epoch), ("since_ns", since_ns)]
        )
    database.execute(f"PRAGMA synchronous = {synchronous}")
    return epoch, since_ns


def _epoch_of_0_1(directory: Path | None) -> int:
    """What version 0.1 left, which kept nothing but its epoch; 0 if it left nothing that can be read."""
    if directory is None:
        return 0
    try:
        return int((directory / "epoch").read_text())
    except (FileNotFoundError, ValueError):
        return 0
