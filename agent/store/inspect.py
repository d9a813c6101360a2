"""A store directory seen and mended from another process, also while an agent runs on it."""

import fcntl
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import msgspec

from agent import clock
from agent.clock import Moment, Timeline
from agent.store.base import AuditEntry, Lane, Loss
from agent.store.message import COLUMNS, MESSAGE_OVERHEAD
from agent.store.records import losses_in
from agent.store.schema import APPLICATION_ID, BUSY_S, MIGRATIONS, NUMBER_BITS

LEASES = "leases"
"""The name under which leases are remembered (agent.lease)."""

_LETTERS = """
SELECT letter.id, buried_ns, reason, coalesce(address, name, ''),
    lane, source, sequence, time_ns, event_id, data
FROM dead_letters AS letter LEFT JOIN channels ON channels.id = letter.channel
"""
_AUDIT = ", ".join(AuditEntry.__struct_fields__)


def is_locked(directory: Path) -> bool:
    """Whether an agent runs on the store there.

    Raises:
        OSError: the lock file cannot be read.
    """
    try:
        with (directory / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class NoStore(Exception):
    """There is nothing to look into; the text is a sentence for people."""


class Waiting(msgspec.Struct, frozen=True):
    """Messages of one lane that wait in one channel."""

    address: str
    """Empty for the replies, whose addresses come and go."""
    lane: str
    messages: int
    bytes: int
    oldest_ns: int
    """When the first sample of the oldest was taken (UTC)."""


class Kept(msgspec.Struct, frozen=True):
    """What one table holds; `bytes` of what was given, without the table's own."""

    number: int
    bytes: int
    oldest_ns: int | None
    note: str = ""


class Overview(msgspec.Struct, frozen=True):
    """Everything that a store keeps, by number and size."""

    directory: str
    in_use: bool
    epoch: int
    schema: int
    files: Mapping[str, int]
    waiting: list[Waiting]
    kept: Mapping[str, Kept]
    losses: list[Loss]
    leases: list[dict[str, Any]]


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that the broker refused for good."""

    id: int
    buried_ns: int
    reason: str
    address: str
    lane: Lane
    source: str
    sequence: int
    time_ns: int
    event_id: str
    data: bytes


class AuditFilter(msgspec.Struct, frozen=True):
    """Which audit entries are wanted; None: any. Times are UTC in nanoseconds."""

    since_ns: int | None = None
    until_ns: int | None = None
    """Entries of this time are not among them."""
    user: str | None = None
    op: str | None = None
    device: str | None = None
    status: str | None = None
    """A status or a code."""
    lease: str | None = None
    holder: str | None = None
    message_id: str | None = None
    """As text, whatever its AMQP type."""


class Inspector:
    """One store directory, opened to read or to mend; a context manager.

    Raises (on construction):
        NoStore: there is none, or it is another program's or another version's.
        OSError: the file may not be read or written.
    """

    def __init__(self, directory: Path, *, writable: bool = False) -> None:
        self.directory = directory
        path = directory / "store.db"
        try:
            path.open("r+b" if writable else "rb").close()  # SQLite does not say why it cannot open a file
        except (FileNotFoundError, NotADirectoryError):
            raise NoStore(f"There is no store in {directory}") from None
        options = "mode=rw" if writable else "mode=ro"
        if os.statvfs(directory).f_flag & os.ST_RDONLY and not Path(f"{path}-wal").exists():
            options = "immutable=1"  # else SQLite wants to make the files of a write-ahead log even to read
        self._database = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{options}", uri=True, timeout=BUSY_S, isolation_level=None
        )
        try:
            self.schema = self._version(path)
        except BaseException:
            self._database.close()
            raise

    def _version(self, path: Path) -> int:
        try:
            owner, version = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
        except sqlite3.DatabaseError as error:
            raise NoStore(f"{path} cannot be read as a store: {error}") from error
        if owner != APPLICATION_ID:
            raise NoStore(f"{path} is no store of hilgate")
        if version > len(MIGRATIONS):
            raise NoStore(f"{path} was made by a later version of hilgate: take that one to look into it")
        if version < len(MIGRATIONS):
            raise NoStore(f"{path} was made by an earlier version; an agent that starts on it updates it")
        return len(MIGRATIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def in_use(self) -> bool:
        """Whether an agent runs on this store."""
        return is_locked(self.directory)

    # -- everything by number -------------------------------------------------------------------

    def overview(self) -> Overview:
        """Everything that is kept."""
        self._database.execute("BEGIN")  # one picture, whatever the agent does meanwhile
        try:
            return Overview(
                directory=str(self.directory),
                in_use=self.in_use(),
                epoch=self._one("SELECT value FROM facts WHERE name = 'epoch'"),
                schema=self.schema,
                files={file.name: file.stat().st_size for file in sorted(self.directory.glob("store.db*"))},
                waiting=self._waiting(),
                kept=self._kept(),
                losses=list(losses_in(self._database).values()),
                leases=self._leases(),
            )
        finally:
            self._database.execute("ROLLBACK")

    def _waiting(self) -> list[Waiting]:
        rows = self._database.execute(
            f"SELECT name, lane, count(*), sum(length(data) + {MESSAGE_OVERHEAD}), min(time_ns)"
            f" FROM outbox JOIN channels ON channels.id = outbox.id >> {NUMBER_BITS}"
            " GROUP BY channels.id, lane ORDER BY name, lane"
        )
        return [Waiting(name, Lane(lane).name.lower(), *rest) for name, lane, *rest in rows]

    def _kept(self) -> dict[str, Kept]:
        unfinished = self._one("SELECT count(*) FROM journal WHERE result IS NULL")
        return {
            "dead letters": self._sum("dead_letters", "length(data)", "buried_ns"),
            "journal": self._sum(
                "journal", "length(result)", "received_ns", f"{unfinished} unfinished" if unfinished else ""
            ),
            "audit": self._sum("audit", "length(what) + length(message)", "time_ns"),
        }

    def _sum(self, table: str, size: str, time: str, note: str = "") -> Kept:
        row = self._database.execute(f"SELECT count(*), coalesce(sum({size}), 0), min({time}) FROM {table}")
        number, total, oldest_ns = row.fetchone()
        return Kept(number, total, oldest_ns, note)

    def _leases(self) -> list[dict[str, Any]]:
        row = self._database.execute("SELECT value FROM kept WHERE name = ?", (LEASES,)).fetchone()
        return [] if row is None else msgspec.json.decode(row[0], type=list[dict[str, Any]])

    # -- dead letters ---------------------------------------------------------------------------

    def dead_letter_ids(self, older_than_s: float = 0.0) -> list[int]:
        """The ids of all dead letters, or of those buried so many seconds ago, the oldest first."""
        horizon = clock.now_ns() - round(older_than_s * 1e9) if older_than_s else None
        rows = self._database.execute(
            "SELECT id FROM dead_letters WHERE ?1 IS NULL OR buried_ns < ?1 ORDER BY id", (horizon,)
        )
        return [number for (number,) in rows]

    def dead_letters(self) -> Iterator[DeadLetter]:
        """All dead letters, the oldest first."""
        return map(_letter, self._database.execute(f"{_LETTERS} ORDER BY letter.id"))

    def dead_letter(self, number: int) -> DeadLetter | None:
        """One dead letter, or None where there is none of that id."""
        row = self._database.execute(f"{_LETTERS} WHERE letter.id = ?", (number,)).fetchone()
        return None if row is None else _letter(row)

    def retry(self, numbers: Collection[int]) -> int:
        """Makes dead letters wait in the outbox again, at the end of their channels; how many there were.

        Their TTL counts no more, and their age from now on: somebody asked for them.
        """
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:  # commits, or rolls back
            now = self._timeline_now()
            return sum(self._retry(number, now) for number in sorted(numbers))

    def _timeline_now(self) -> float:
        kept = self._one("SELECT value FROM facts WHERE name = 'moment'")
        return Timeline(None if kept is None else msgspec.json.decode(kept, type=Moment)).now()

    def _retry(self, number: int, now: float) -> int:
        size = self._one(f"SELECT length(data) + {MESSAGE_OVERHEAD} FROM dead_letters WHERE id = ?", number)
        if size is None:
            return 0
        self._database.execute(
            "UPDATE totals SET messages = messages + 1, bytes = bytes + ?, number = number + 1", (size,)
        )
        self._database.execute(
            f"INSERT INTO outbox (id, {COLUMNS}) SELECT channel << {NUMBER_BITS} | totals.number, lane, ?,"
            " NULL, address, source, counter, sequence, time_ns, event_id, TRUE, data"
            " FROM dead_letters, totals WHERE dead_letters.id = ?",
            (now, number),
        )
        return self._purge(number)

    def purge(self, numbers: Collection[int]) -> int:
        """Deletes dead letters for good; how many there were."""
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            return sum(map(self._purge, numbers))

    def _purge(self, number: int) -> int:
        return self._database.execute("DELETE FROM dead_letters WHERE id = ?", (number,)).rowcount

    # -- audit ----------------------------------------------------------------------------------

    def audit(self, wanted: AuditFilter, limit: int) -> list[AuditEntry]:
        """The newest entries that fit, in the order they were made."""
        conditions = {
            "time_ns >= ?": wanted.since_ns,
            "time_ns < ?": wanted.until_ns,
            "who = ?": wanted.user,
            "op = ?": wanted.op,
            "device = ?": wanted.device,
            "? IN (status, code)": wanted.status,
            "lease = ?": wanted.lease,
            "holder = ?": wanted.holder,
            "substr(key, 3) = ?": wanted.message_id,  # what stands before it says its AMQP type
        }
        asked = {text: value for text, value in conditions.items() if value is not None}
        rows = self._database.execute(
            f"SELECT {_AUDIT} FROM audit WHERE {' AND '.join(asked) or 'TRUE'} ORDER BY id DESC LIMIT ?",
            [*asked.values(), limit],
        ).fetchall()
        return [AuditEntry(*row) for row in reversed(rows)]

    def _one(self, statement: str, *values: Any) -> Any:
        row = self._database.execute(statement, values).fetchone()
        return None if row is None else row[0]


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    number, buried_ns, reason, address, lane, *rest = row
    return DeadLetter(number, buried_ns, reason, address, Lane(lane), *rest)
