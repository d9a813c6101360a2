"""What a store finds when it is opened, and the beginning of a run."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agent import clock
from agent.clock import Moment
from agent.store.base import JournalEntry, Loss
from agent.store.disk import Disk, ailment, is_corrupt
from agent.store.records import losses_in, unfinished_in
from agent.store.rows import Rows
from agent.store.schema import ForeignFile
from agent.store.spool import Spool


@dataclass
class Found:
    """What earlier runs left, and this run's epoch."""

    database: sqlite3.Connection | None
    """None: it cannot be opened now, or all is kept in memory."""
    spool: Spool
    epoch: int
    since_ns: int
    """When the database was begun (UTC)."""
    moment: Moment | None = None
    counters: dict[str, int] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    losses: dict[int, Loss] = field(default_factory=dict)
    unfinished: list[JournalEntry] = field(default_factory=list)
    error: Exception | None = None
    """Why it cannot be written."""
    anew: bool = False
    """A damaged one was moved aside."""


def find(disk: Disk | None, memory: Rows) -> Found:
    """Opens the database of a directory and begins a run, whatever state they are in.

    Everything that a start needs is read here, where damage is dealt with.

    Raises:
        OSError: there is no permission, or a later version made the database.
    """
    if disk is None:
        return _nothing(Spool(None, memory))
    try:
        return _open(disk, memory)
    except (sqlite3.Error, ForeignFile, OSError) as error:
        if is_corrupt(error):
            try:
                disk.move_aside(error)
                found = _open(disk, memory)
                found.anew = True
            except (sqlite3.Error, OSError) as worse:
                return _nothing(Spool(None, memory, blind=True), worse)
            return found
        if not ailment(error):
            raise
        return _nothing(Spool(None, memory, blind=True), error)


def _nothing(spool: Spool, error: Exception | None = None) -> Found:
    now_ns = clock.now_ns()
    return Found(None, spool, now_ns // 10**9, now_ns, error=error)


def _open(disk: Disk, memory: Rows) -> Found:
    database = disk.open()
    try:
        facts: dict[str, Any] = dict(database.execute("SELECT name, value FROM facts"))
        moment = facts.get("moment")
        found = Found(
            database,
            Spool(Rows(database), memory),
            facts.get("epoch", 0) or _epoch_of_0_1(disk.directory),
            facts.get("since_ns", clock.now_ns()),
            None if moment is None else msgspec.json.decode(moment, type=Moment),
            dict(database.execute("SELECT name, value FROM counters")),
            dict(database.execute("SELECT name, value FROM kept")),
            losses_in(database),
            unfinished_in(database),
        )
        _begin(found, database)
        if found.error is None:
            # Kept in the database now: were that lost, an epoch of 0.1 would take the bench back.
            _file_of_0_1(disk.directory).unlink(missing_ok=True)
    except BaseException:
        database.close()
        raise
    return found


def _begin(found: Found, database: sqlite3.Connection) -> None:
    """Gives this run its epoch, and keeps it before anything else happens; or keeps why that cannot be."""
    second = clock.now_ns() // 10**9
    last = found.epoch
    found.epoch = last + 1 if last else second
    (synchronous,) = database.execute("PRAGMA synchronous").fetchone()
    database.execute("PRAGMA synchronous = full")  # an epoch given twice would be a lie
    try:
        database.execute("BEGIN IMMEDIATE")
        with database:
            database.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                [("epoch", found.epoch), ("since_ns", found.since_ns)],
            )
    except sqlite3.Error as error:
        if not ailment(error):
            raise
        # Runs that could not keep theirs count too.
        found.epoch, found.error = max(last + 1, second), error
    database.execute(f"PRAGMA synchronous = {synchronous}")


def _epoch_of_0_1(directory: Path) -> int:
    """What version 0.1 left, which kept nothing but its epoch; 0 if it left nothing that can be read."""
    try:
        return int(_file_of_0_1(directory).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _file_of_0_1(directory: Path) -> Path:
    return directory / "epoch"
