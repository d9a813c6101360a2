"""The check `store`: the directory, its disk, who holds it, and whether what is in it is whole."""

import asyncio
import contextlib
import os
import pwd
import shlex
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, mib, not_checked, ok, warning
from agent.doctor.presence import store_holder
from agent.store.inspect import Inspector, NoStore, is_locked

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"})
"""File systems whose locks SQLite does not trust."""
LEAST_BYTES = 16 * 1024**2
"""What docs/store.md wants: the write-ahead log alone takes 4 MiB."""
PRIVATE = Path("/var/lib/private")
"""Where StateDirectory= of a service with DynamicUser= is (systemd.exec(5))."""
_STEPS = 100_000
"""SQLite's machine instructions between two looks at whether the time is over."""


class Facts(msgspec.Struct, frozen=True):
    """A store directory as it is."""

    path: Path
    wanted: int
    """Bytes that the outbox may grow to."""
    there: bool = True
    nearest: Path = Path("/")
    """Of a directory that is not there: what there is on the way to it."""
    owner: str = ""
    writable: bool = True
    """By whom who looks."""
    free: int = 0
    used: int = 0
    """Bytes that its files take already."""
    filesystem: str = ""
    locked: bool = False
    holder: str = ""
    letters: int = 0
    damage: str = ""
    """What the integrity check said; empty if it is whole or was not looked at."""
    unread: str = ""
    """Why it could not be looked into."""


def judge(facts: Facts) -> Iterator[Finding]:
    """What is to be said of it."""
    path = str(facts.path)
    if not facts.there and not facts.writable:
        todo = f"mkdir -p {path} and chown it to the agent's user (systemd: StateDirectory=)"
        yield failed(path, f"it is not there, and {facts.nearest} does not let us make it", todo)
        return
    if not facts.writable:
        yield failed(
            path, f"we may not write there; it is {facts.owner}'s", f"run as {facts.owner}, or chown it"
        )
    elif not facts.there:
        yield ok(path, "it is not there yet; the agent makes it")
    elif facts.locked:
        yield ok(path, f"held by {facts.holder or 'an agent that runs'}, owned by {facts.owner}")
    else:
        yield ok(path, f"free, writable, owned by {facts.owner}")
    yield from _disk(path, facts)
    if facts.damage:
        todo = "start the agent: it moves the damaged database aside and begins a new one"
        yield failed("integrity", facts.damage, todo)
    elif facts.unread:
        yield not_checked("integrity", facts.unread)
    elif facts.there and not facts.locked:
        yield ok("integrity", "the database is whole")
    if facts.letters:
        found = f"{facts.letters} messages that the broker refused for good wait for somebody to look"
        yield warning("dead letters", found, f"hilgate store list --store {path}")


def _disk(path: str, facts: Facts) -> Iterator[Finding]:
    found = f"{mib(facts.free)} free on {facts.filesystem or 'its disk'}"
    if facts.free < LEAST_BYTES:
        found += f", and the store needs {mib(LEAST_BYTES)} to go on"
        yield failed("disk", found, "make room: the agent loses what memory does not hold")
    elif facts.free + facts.used < facts.wanted:
        found += f", and the outbox may grow to {mib(facts.wanted)}"
        yield warning("disk", found, "make room, or set a smaller outbox_size")
    else:
        yield ok("disk", found)
    if facts.filesystem in NETWORK:
        found = f"{path} is on {facts.filesystem}: SQLite's locks are not safe on a network file system"
        yield warning("disk", found, "take a directory on a local disk")


def judge_shut(path: Path) -> Finding:
    """What is to be said of a store that who looks may not even reach."""
    if PRIVATE in Path(os.path.realpath(path)).parents:  # a service's, which systemd lets in
        return not_checked(str(path), "only root can look into a service's store", "call it as root too")
    return failed(str(path), "we may not pass a folder on the way", f"namei -l {shlex.quote(str(path))}")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at the store."""

    async def look() -> list[Finding]:
        settings = case.settings
        if settings is None:
            return [not_checked("", case.no_settings)]
        if settings.store is None:
            found = "all is kept in memory: what the broker has not taken is lost when the agent ends"
            return [warning("", found, "set store: /var/lib/hilgate/BENCH")]
        gathering = _Gathering(settings.store, settings.outbox_size)
        try:
            return list(judge(await asyncio.to_thread(gathering.facts)))
        except PermissionError:
            return [judge_shut(settings.store)]
        finally:
            gathering.stop = True

    return {"": look}


class _Gathering:
    """Gathers in a thread; `stop` ends a long integrity check."""

    def __init__(self, path: Path, wanted: int) -> None:
        self.stop = False
        self._path = path
        self._wanted = wanted

    def facts(self) -> Facts:
        path = self._path
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
        disk = os.statvfs(nearest)
        facts = Facts(
            path,
            self._wanted,
            there=path.is_dir(),
            nearest=nearest,
            owner=_owner(nearest),
            writable=os.access(nearest, os.W_OK | os.X_OK),
            free=disk.f_bavail * disk.f_frsize,
            filesystem=filesystem_of(nearest.resolve(), Path("/proc/self/mountinfo").read_text()),
        )
        if not facts.there or not facts.writable:
            return facts
        locked = is_locked(path)
        holder = store_holder(path) if locked else None
        return msgspec.structs.replace(
            facts,
            used=sum(file.stat().st_size for file in path.glob("store.db*")),
            locked=locked,
            holder=str(holder or ""),
            **self._inside(locked),
        )

    def _inside(self, locked: bool) -> Mapping[str, int | str]:
        if not (self._path / "store.db").exists():
            return {"unread": "there is no database yet"}
        try:
            with Inspector(self._path) as opened:
                letters = len(opened.dead_letter_ids())
        except NoStore as error:
            return {"damage": str(error)}
        except sqlite3.Error as error:
            return {"damage": f"the database fails: {error}"}
        return {"letters": letters, "damage": "" if locked else self._check()}

    def _check(self) -> str:
        """What SQLite's quick_check finds; it only reads."""
        file = (self._path / "store.db").absolute()
        # Without a write-ahead log nobody is at it, and SQLite would make one even to read.
        mode = "mode=ro" if Path(f"{file}-wal").exists() else "immutable=1"
        database = sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True)
        database.set_progress_handler(lambda: self.stop, _STEPS)
        try:
            said = [text for (text,) in database.execute("PRAGMA quick_check(3)")]
        except sqlite3.Error as error:
            return f"the database fails: {error}"
        finally:
            database.close()
        return "" if said == ["ok"] else "; ".join(said)


def _owner(path: Path) -> str:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def filesystem_of(path: Path, mountinfo: str) -> str:
    """The type of the file system that a path is on (proc_pid_mountinfo(5)): of the last mount over it."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split()
        if len(words) < 5 or not after:
            continue
        mount = Path(words[4].encode().decode("unicode_escape"))
        if (path == mount or mount in path.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), after.split()[0]
    return kind
