"""The store: one SQLite database, owned by a thread, that survives a killed agent."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from agent import clock
from agent.clock import Timeline
from agent.store.base import AuditEntry, Journal, Outbox
from agent.store.disk import Disk
from agent.store.handover import Handover
from agent.store.journal import SqliteJournal
from agent.store.keeper import Keeper
from agent.store.opening import find
from agent.store.outbox import SqliteOutbox
from agent.store.records import Carried, Limits
from agent.store.rows import Rows
from agent.store.schema import Synchronous, connect
from agent.store.unit import Report

MEMORY_BYTES = 64 * 1024 * 1024
"""What is kept at most of messages, and of the journal, where there is no directory."""
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
        OSError: the directory cannot be made or used, another agent uses it, or a later version made it. A
            disk that is full, read-only or broken is no error: see `trouble`.
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
        memory = connect(None, synchronous)
        self._disk = None if directory is None else Disk(directory, synchronous)
        try:
            found = find(self._disk, Rows(memory))
        except BaseException:
            memory.close()
            self._leave_directory()
            raise
        self.epoch = found.epoch
        self.timeline = Timeline(found.moment)
        self._counters, self._values = found.counters, found.values
        on_disk = self._disk is not None
        limits = Limits(JOURNAL_BYTES if on_disk else MEMORY_BYTES, audit_age)
        self._keeper = Keeper(self._disk, found, memory, self.timeline, limits, self._carried, self._deliver)
        self._handover = Handover(self._keeper.give, self._take)
        most = max_bytes if on_disk else min(max_bytes, MEMORY_BYTES)
        self._outbox = SqliteOutbox(self._handover, self.timeline, most, max_age)
        self._outbox.adopt(found)
        self._journal = SqliteJournal(self._handover, found.since_ns, found.unfinished)
        self.outbox: Outbox = self._outbox
        self.journal: Journal = self._journal
        self.anew = found.anew
        """What earlier runs kept was damaged and is not known any more."""
        self.trouble = ""
        self.on_trouble: Callable[[], None] = lambda: None
        if self._disk is not None and found.error is not None:
            self.trouble = self._disk.describe(found.error)
        if found.anew:
            self._outbox.lose_unknown("store-corrupt")
        self._keeper.start()

    @property
    def turns(self) -> int:
        """Grows each second at least, while the store goes on; a disk that failed does not stop it."""
        return self._keeper.turns

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
        self._leave_directory()

    def _leave_directory(self) -> None:
        if self._disk is not None:
            self._disk.close()

    def _deliver(self, report: Report) -> None:
        self._handover.deliver(report)

    def _carried(self) -> Carried:
        return Carried(self.epoch, self._counters.copy(), self._values.copy(), self._outbox.counted())

    def _take(self, report: Report) -> None:
        self._outbox.report(report)
        if report.anew:
            self._journal.since_ns = clock.now_ns()
            self._outbox.lose_unknown("store-corrupt")
        if report.trouble is not None and report.trouble != self.trouble:
            self.trouble = report.trouble
            self.on_trouble()
