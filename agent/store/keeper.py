"""The thread that owns the databases: it commits in groups all that was given meanwhile.

Where the disk fails it goes on in memory, by the same code, and tries the disk again every few seconds.
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from agent.clock import Timeline
from agent.store.base import Lane
from agent.store.disk import Disk, ailment, is_corrupt
from agent.store.opening import Found
from agent.store.records import Carried, Limits, Records
from agent.store.rows import Rows
from agent.store.schema import ForeignFile
from agent.store.unit import Question, Report, Room, Unit

IDLE_S = 1.0
"""How often it looks for what another process changed."""
AGAIN_S = 3.0
"""How often it tries a disk that failed."""
MOMENT_S = 1.0
"""How often the time is kept while something is written."""
MEMORY_BYTES = 16 * 1024 * 1024
"""What the memory takes of telemetry beside or instead of the disk; of events twice as much."""


class Keeper:
    """Writes units and reports what came of them, one report a transaction.

    Args:
        disk: Where the database is, or None: all is kept in memory only.
        found: What was found there.
        memory: The database in memory.
        timeline: The store's clock.
        limits: How much is kept.
        carried: Says what the loop knows of counters, values and losses now.
        deliver: Called in the thread with each report.
    """

    def __init__(
        self,
        disk: Disk | None,
        found: Found,
        memory: sqlite3.Connection,
        timeline: Timeline,
        limits: Limits,
        carried: Callable[[], Carried],
        deliver: Callable[[Report], None],
    ) -> None:
        self._disk, self._spool = disk, found.spool
        self._main = None if found.database is None else Records(found.database, timeline, limits)
        self._memory = Records(memory, timeline, limits)
        self._timeline, self._limits = timeline, limits
        self._carried, self._deliver = carried, deliver
        self._queue: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._closing = False
        self.turns = 0
        """Grows each second at least, while the thread goes on."""
        self._noted = float("-inf")
        self._data_version = 0 if self._main is None else self._main.data_version()
        self._again_at = 0.0
        self._reason = ""
        """Why the disk is not written, as the reason of losses; empty while it is."""
        self._log = structlog.get_logger("store")
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._last_room = Room()
        self._error = found.error

    def start(self) -> None:
        """Begins to work, with what an earlier run left."""
        self._thread.start()

    def give(self, unit: Unit) -> None:
        """Hands over a unit."""
        self._queue.put(unit)

    def close(self) -> None:
        """Returns once everything given is stored and the database is closed."""
        self._queue.put(None)
        self._thread.join()

    # -- thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        report = Report()
        if self._error is not None:
            self._leave_disk(self._error, report)
        self._refill(report)
        while True:
            self.turns += 1
            if report != Report(room=self._last_room):
                self._last_room = report.room
                self._deliver(report)
            if self._closing:
                break
            units = self._next()
            report = Report()
            if self._reason and time.monotonic() >= self._again_at:
                self._try_disk(report)
            self._store(units, report)
            self._refill(report)
            report.handled = sum(len(message.data) for unit in units for message in unit.puts)
            report.room = self._room()
        self._close()

    def _next(self) -> list[Unit]:
        """All units that wait; none after a while without any."""
        units = []
        try:
            one = self._queue.get(timeout=IDLE_S)
            while True:
                if one is None:
                    self._closing = True
                else:
                    units.append(one)
                one = self._queue.get_nowait()
        except queue.Empty:
            return units

    def _close(self) -> None:
        if self._target is not self._memory:
            try:
                self._note_time(0.0)
            except sqlite3.Error as error:
                self._log.warning("the time of the end is not kept", reason=str(error))
        if self._main is not None:
            self._main.database.close()
        self._memory.database.close()

    @property
    def _target(self) -> Records:
        """What is written now."""
        return self._memory if self._main is None or self._reason else self._main

    # -- writing --------------------------------------------------------------------------------

    def _store(self, units: Sequence[Unit], report: Report) -> None:
        try:
            self._commit(units, report)
        except Exception as error:  # noqa: BLE001  # the disk's fault is dealt with, one of ours found and named
            if self._survives(error, report):
                self._store(units, report)
            else:
                for unit in units:
                    self._store_apart([unit] if unit.together else unit.divided(), report)

    def _store_apart(self, units: Sequence[Unit], report: Report) -> None:
        for unit in units:
            try:
                self._commit([unit], report)
            except Exception as error:  # noqa: BLE001  # logged, and said to whoever waits
                self._log.exception("could not be stored, by a fault of the agent")
                report.unkept += unit.puts
                questions = [one for one in unit.operations if isinstance(one, Question)]
                report.answers += [partial(question.fail, error) for question in questions]

    def _commit(self, units: Sequence[Unit], report: Report) -> None:
        target, answers = self._target, []
        with target.transaction():
            if target is not self._memory:
                self._adopt(report)
            change = self._spool.write(units)
            target.count(_counters(units))
            target.bury([grave for unit in units for grave in unit.graves])
            for unit in units:
                target.lose(unit.losses)
                answers += [answer for one in unit.operations if (answer := one(target)) is not None]
            if units:
                self._note_time(MOMENT_S)
        if change.fresh_in_memory or change.gone_in_memory:
            with self._memory.transaction():
                self._spool.write_memory(change)
        self._spool.committed(change, report)
        report.answers += answers

    def _note_time(self, most: float) -> None:
        """Keeps this instant, unless one of the last `most` seconds is kept: a restart goes on from it."""
        moment = self._timeline.moment()
        if moment.at - self._noted >= most:
            self._noted = moment.at
            self._target.note("moment", msgspec.json.encode(moment))

    def _adopt(self, report: Report) -> None:
        """Takes over what another process changed."""
        assert self._main is not None
        version = self._main.data_version()
        if version != self._data_version:
            self._data_version = version
            messages, size = self._spool.adopt()
            report.messages += messages
            report.bytes += size

    def _refill(self, report: Report) -> None:
        try:
            self._spool.refill(report)
        except sqlite3.Error as error:
            if not self._survives(error, report):
                self._log.exception("could not be read")

    # -- trouble --------------------------------------------------------------------------------

    def _survives(self, error: Exception, report: Report) -> bool:
        """Deals with what the disk did; false if it is not to blame."""
        if self._disk is None or not (ailment(error) or is_corrupt(error)):
            return False
        if self._reason:
            return self._stop_reading(error)
        if is_corrupt(error):
            self._replace_file(error, report)
        else:
            self._leave_disk(error, report)
        return True

    def _stop_reading(self, error: Exception) -> bool:
        """Lets alone a disk that cannot be read either; false if that is so already."""
        if not self._spool.readable:
            return False
        self._close_main()
        self._spool.stop_reading()
        self._log.error("what is on disk cannot be read now", reason=str(error))
        return True

    def _leave_disk(self, error: Exception, report: Report) -> None:
        """Goes on in memory."""
        assert self._disk is not None
        self._reason = ailment(error) or "disk-error"
        self._again_at = time.monotonic() + AGAIN_S
        self._memory.carry(self._carried())
        self._memory.older = self._main
        self._spool.leave_disk()
        if self._main is None:
            self._spool.stop_reading()
        report.trouble = self._disk.describe(error)
        self._log.error("the store goes on in memory", reason=str(error))

    def _try_disk(self, report: Report) -> None:
        """Goes back to the disk if it works again."""
        assert self._disk is not None
        self._again_at = time.monotonic() + AGAIN_S
        # Opened anew: what SQLite shares between connections remembers that the disk was read-only.
        self._close_main()
        try:
            database = self._disk.open()
        except (sqlite3.Error, ForeignFile, OSError) as error:
            if is_corrupt(error):
                self._replace_file(error, report)
            else:
                self._stop_reading(error)
            return
        try:
            self._move_to(database, report, anew=False)
        except sqlite3.Error as error:
            self._log.debug("the disk still fails", reason=str(error))
            self._read_from(database)
        else:
            self._log.info("the store is on disk again")

    def _read_from(self, database: sqlite3.Connection) -> None:
        """Reads on from a database that cannot be written."""
        if self._spool.read_from(Rows(database)):
            self._main = self._memory.older = Records(database, self._timeline, self._limits)
        else:
            database.close()

    def _replace_file(self, error: Exception, report: Report) -> None:
        """Moves a damaged database aside and begins a new one with what memory has, or goes on in memory."""
        assert self._disk is not None
        self._close_main()
        try:
            self._disk.move_aside(error)
            database = self._disk.open()
        except (sqlite3.Error, OSError) as worse:
            self._leave_disk(worse, report)
            return
        try:
            self._move_to(database, report, anew=True)
        except sqlite3.Error as worse:
            database.close()
            self._leave_disk(worse, report)
        else:
            report.anew = True

    def _close_main(self) -> None:
        if self._main is not None:
            self._main.database.close()
            self._main = self._memory.older = None

    def _move_to(self, database: sqlite3.Connection, report: Report, *, anew: bool) -> None:
        """Writes all that memory has to a database, and goes on with that one."""
        main, rows = Records(database, self._timeline, self._limits), Rows(database)
        with main.transaction():
            main.carry(self._carried())
            main.take_from(self._memory)
            self._spool.move_to(rows, fresh=anew)
        with self._memory.transaction():
            messages, size = self._spool.moved_to(rows)
            self._memory.clear()
        self._main, self._reason = main, ""
        self._memory.older = None
        self._data_version = main.data_version()
        report.messages += messages
        report.bytes += size
        report.trouble = ""

    def _room(self) -> Room:
        used = self._spool.memory_bytes
        if self._disk is None or used <= MEMORY_BYTES:
            return Room(self._reason)
        refused = Lane.EVENT if used > 2 * MEMORY_BYTES else Lane.TELEMETRY
        return Room(self._reason, refused if self._reason else None, passing_refused=True)


def _counters(units: Sequence[Unit]) -> dict[str, int]:
    """How far counters came; a repeated result bears an older number of its counter."""
    highest: dict[str, int] = {}
    for unit in units:
        for message in unit.puts:
            counter = message.counter or message.source
            highest[counter] = max(highest.get(counter, 0), message.sequence)
    return highest
