"""The thread that owns the database: it commits in groups all that was given meanwhile."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from agent.clock import Timeline
from agent.store.records import Records
from agent.store.rows import Rows
from agent.store.spool import Spool
from agent.store.unit import Question, Report, Unit

IDLE_S = 1.0
"""How often it looks for what another process changed."""
MOMENT_S = 1.0
"""How often the time is kept while something is written."""


class Keeper:
    """Writes units and reports what came of them, one report a transaction."""

    def __init__(
        self, main: Records, memory: Records, timeline: Timeline, deliver: Callable[[Report], None]
    ) -> None:
        self._main, self._memory = main, memory
        self._timeline = timeline
        self._noted = float("-inf")
        self._deliver = deliver
        self._rows = Rows(main.database)
        self.spool = Spool(self._rows, Rows(memory.database))
        self._queue: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._closing = False
        self._data_version = self._read_data_version()
        self._log = structlog.get_logger("store")
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

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
        while not self._closing:
            units = self._next()
            report = Report()
            self._store(units, report)
            self.spool.refill(report)
            report.handled = sum(len(message.data) for unit in units for message in unit.puts)
            if report != Report():
                self._deliver(report)
        self._note_time(0.0)
        self._main.database.close()
        self._memory.database.close()

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

    def _store(self, units: Sequence[Unit], report: Report) -> None:
        try:
            self._commit(units, report)
        except sqlite3.DatabaseError:
            raise
        except Exception:  # noqa: BLE001  # a fault of ours: found and named below, and the rest is stored
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
        database, memory = self._main.database, self._memory.database
        database.execute("BEGIN IMMEDIATE")
        if memory is not database:
            memory.execute("BEGIN")
        try:
            self._adopt(report)
            change = self.spool.write(units)
            self._count(units)
            if units:
                self._note_time(MOMENT_S)
            answers = []
            for unit in units:
                if unit.graves:
                    self._rows.bury(unit.graves)
                if unit.losses:
                    self._main.lose(unit.losses)
                answers += [answer for one in unit.operations if (answer := one(self._main)) is not None]
            database.execute("COMMIT")
        except BaseException:
            for one in {database, memory}:
                if one.in_transaction:
                    one.execute("ROLLBACK")
            raise
        if memory is not database:
            memory.execute("COMMIT")
        self.spool.committed(change, report)
        report.answers += answers

    def _count(self, units: Sequence[Unit]) -> None:
        counters = {
            message.counter or message.source: message.sequence for unit in units for message in unit.puts
        }
        if counters:
            self._main.count(counters)

    def _note_time(self, most: float) -> None:
        """Keeps this instant, unless one of the last `most` seconds is kept: a restart goes on from it."""
        moment = self._timeline.moment()
        if moment.at - self._noted >= most:
            self._noted = moment.at
            self._main.note("moment", msgspec.json.encode(moment))

    def _adopt(self, report: Report) -> None:
        """Takes over what another process changed."""
        version = self._read_data_version()
        if version != self._data_version:
            self._data_version = version
            messages, size = self.spool.adopt()
            report.messages += messages
            report.bytes += size

    def _read_data_version(self) -> int:
        (version,) = self._main.database.execute("PRAGMA data_version").fetchone()
        return int(version)
