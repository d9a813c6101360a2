"""The store's directory: its lock, its database file, and what ails them."""

import errno
import fcntl
import os
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import structlog

from agent import clock
from agent.store.schema import ForeignFile, Synchronous, connect

LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.05
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_corrupt(error: Exception) -> bool:
    """Whether the file is no database, is damaged, or is somebody else's."""
    return isinstance(error, ForeignFile) or _primary_code(error) in _CORRUPT


def ailment(error: Exception) -> str:
    """What is wrong with the disk, as the reason of a loss; empty if the disk is not to blame."""
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return "disk-full"
        return {errno.EROFS: "read-only", errno.EIO: "disk-error"}.get(error.errno or 0, "")
    match _primary_code(error):
        case sqlite3.SQLITE_FULL:
            return "disk-full"
        case sqlite3.SQLITE_READONLY:
            return "read-only"
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_BUSY | sqlite3.SQLITE_PROTOCOL:
            return "disk-error"
    return ""


def _primary_code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class Disk:
    """One store directory, which is this process's until `close`.

    Raises (on construction):
        OSError: it cannot be made or opened, or another agent uses it. On a full or read-only disk there is
            no error as long as the directory is there.
    """

    def __init__(self, directory: Path, synchronous: Synchronous) -> None:
        self.directory = directory
        self.path = directory / "store.db"
        self._synchronous = synchronous
        self._log = structlog.get_logger("store")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock(directory)

    def open(self) -> sqlite3.Connection:
        """Opens the database, and begins one if there is none.

        Raises:
            sqlite3.Error: it cannot be read, or it is damaged.
            ForeignFile: it is somebody else's.
            OSError: there is no permission, or a later version made it.
        """
        self._demand_permission()
        previous = os.umask(0o077)  # lease tokens are inside
        try:
            return connect(self.path, self._synchronous)
        except sqlite3.OperationalError:
            if not self._is_whole():
                raise
            return connect(self.path, self._synchronous, immutable=True)
        finally:
            os.umask(previous)

    def describe(self, error: Exception) -> str:
        """Says in words what the trouble with the disk is, and what that means."""
        what = {
            "disk-full": f"the disk of {self.directory} is full",
            "read-only": f"{self.directory} is read-only",
        }.get(ailment(error), f"the store in {self.directory} fails ({error})")
        return f"{what}: results and availability go on from memory, telemetry is dropped first"

    def move_aside(self, error: Exception) -> None:
        """Makes room for a new database; the old one stays for people to look into.

        Raises:
            OSError: the disk does not allow it.
        """
        stamp = datetime.fromtimestamp(clock.now_ns() // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        for ending in ("-wal", "-shm", ""):
            part = Path(f"{self.path}{ending}")
            if part.exists():
                part.replace(f"{aside}{ending}")
        self._log.error("the store cannot be used and was moved aside", to=str(aside), reason=str(error))

    def close(self) -> None:
        """Leaves the directory to the next agent."""
        if self._lock is not None:
            self._lock.close()

    def _demand_permission(self) -> None:
        """A lack of permission is a mistake to be said; SQLite does not tell it from a disk that fails."""
        try:
            self.path.open("r+b").close()
        except FileNotFoundError:
            if not os.access(self.directory, os.W_OK | os.X_OK) and not _is_read_only(self.directory):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.directory)) from None
        except PermissionError:
            raise
        except OSError as error:
            if not ailment(error):
                raise

    def _is_whole(self) -> bool:
        """Whether the file alone, without a write-ahead log, is the whole database, on a disk for reading."""
        wal = Path(f"{self.path}-wal")
        return self.path.exists() and not wal.exists() and _is_read_only(self.directory)


def _is_read_only(directory: Path) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _lock(directory: Path) -> IO[bytes] | None:
    """Locks the directory; None where the disk does not allow so much as a lock file."""
    path = directory / "lock"
    try:
        file: IO[bytes] = path.open("ab")
    except OSError as error:
        if not ailment(error):
            raise
        if not path.exists():
            return None
        file = path.open("rb")
    for attempt in range(LOCK_ATTEMPTS, 0, -1):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if attempt == 1:
                file.close()
                text = "another agent uses this store directory"
                raise OSError(error.errno, text, str(directory)) from None
            time.sleep(LOCK_PAUSE_S)  # `hilgate store` may look at it just now
    return file
