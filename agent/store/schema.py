"""The tables of the store, their versions, and how a database file is opened."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

Synchronous = Literal["normal", "full"]

APPLICATION_ID = 0x68696C67
"""Marks a database file as ours (`PRAGMA application_id`): "hilg"."""
NUMBER_BITS = 40
"""A row of the outbox has the id `channel << NUMBER_BITS | number`, where numbers only rise.

So the table holds the messages of a channel side by side and in order: a channel is read without an index.
"""
WAL_LIMIT = 64 * 1024 * 1024
"""Bytes of the write-ahead log that stay allocated after a burst."""
BUSY_S = 5.0
"""How long a commit waits for another process (`hilgate store`)."""

_MESSAGE = """
    lane INTEGER NOT NULL,
    at REAL NOT NULL,           -- seconds on the timeline when it was put
    expires REAL,
    address TEXT,               -- NULL: its channel's
    source TEXT NOT NULL,
    counter TEXT,               -- NULL: its source's
    sequence INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    durable INTEGER NOT NULL DEFAULT 1,
    data BLOB NOT NULL
"""

_VERSION_1 = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE kept (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
-- An address may have several numbers: a run that could not read this table gave one of its own.
CREATE TABLE channels (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL);
CREATE TABLE outbox (id INTEGER PRIMARY KEY, {_MESSAGE});
-- One row, changed with what it counts: messages in the outbox and their bytes, the last number given,
-- and the bytes of the journal's results.
CREATE TABLE totals (
    messages INTEGER NOT NULL, bytes INTEGER NOT NULL, number INTEGER NOT NULL, journal INTEGER NOT NULL
);
INSERT INTO totals VALUES (0, 0, 0, 0);
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
    buried_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    channel INTEGER NOT NULL,
    {_MESSAGE}
);
CREATE TABLE losses (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first_time_ns INTEGER NOT NULL,
    last_time_ns INTEGER NOT NULL
);
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    op TEXT NOT NULL,
    received_ns INTEGER NOT NULL,
    reply_to TEXT,
    correlation_id BLOB NOT NULL,
    result BLOB,
    event_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    finished_at REAL            -- seconds on the timeline
);
CREATE INDEX unfinished ON journal (id) WHERE result IS NULL;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,           -- seconds on the timeline
    time_ns INTEGER NOT NULL,
    finished_ns INTEGER NOT NULL,
    who TEXT NOT NULL,
    op TEXT NOT NULL,
    status TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    device TEXT NOT NULL,
    lease TEXT NOT NULL,
    holder TEXT NOT NULL,
    key TEXT NOT NULL,
    what TEXT NOT NULL
);
"""

_VERSION_2 = """
-- Who asked for what: the audit needs it also of a command that a kill cut off.
ALTER TABLE journal ADD COLUMN asked BLOB NOT NULL DEFAULT x'';
-- In which epoch the result's event was made: a repetition bears it too. 0: not known.
ALTER TABLE journal ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
"""

MIGRATIONS: Sequence[str] = (_VERSION_1, _VERSION_2)
"""The script at index n leads from version n to n + 1. Version 0 is an empty file."""


class ForeignFile(Exception):
    """A database, but no store of ours."""


def connect(path: Path | None, synchronous: Synchronous, *, immutable: bool = False) -> sqlite3.Connection:
    """Opens a database, or one in memory, and brings it to this version's schema.

    An `immutable` one is only read, and without a lock or a log.

    Raises:
        sqlite3.Error: it cannot be read or written, or is no database.
        ForeignFile: it is somebody else's.
        OSError: a later version made it.
    """
    target = ":memory:" if path is None else f"file:{quote(str(path.absolute()))}?immutable={immutable:d}"
    connection = sqlite3.connect(
        target, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        if path is not None:
            _check_owner(connection, path)
            if not immutable:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        migrate(connection, MIGRATIONS)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != APPLICATION_ID and tables:
        raise ForeignFile(f"{path} is a database of another program")
    if version > len(MIGRATIONS):
        raise OSError(
            f"{path} was made by a later version of hilgate (schema {version}, this one knows"
            f" {len(MIGRATIONS)}): install that version again, or give another store directory"
        )


def migrate(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Runs the scripts that a database lacks, each in a transaction of its own.

    Raises:
        sqlite3.Error: the disk or the file does not allow it; the database is as before that script.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(scripts[version:], version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
