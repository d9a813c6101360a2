"""Who holds a file: by the kernel's list of locks, and by the files that processes have open. Reads only."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

PROC = Path("/proc")
_UNIT = re.compile(r"^0::/system\.slice/(?:\S+/)?([^/\s]+\.service)", re.MULTILINE)


class Holder(msgspec.Struct, frozen=True):
    """A process that holds a file."""

    pid: int
    command: str
    """Its name; empty where it cannot be read."""
    unit: str = ""
    """The system's service that it is part of; empty where none."""

    def __str__(self) -> str:
        return f"{self.command or 'a process'} (pid {self.pid})"


def lock_owners(table: str, inode: int) -> Sequence[int]:
    """The processes that have locked the file of this inode number, by the text of /proc/locks (proc(5))."""
    owners = []
    for line in table.splitlines():
        words = line.split()
        # "1: FLOCK ADVISORY WRITE 1234 00:05:9131 0 EOF"; one that waits has "->" as its second word.
        if len(words) < 6 or words[1] == "->":
            continue
        if words[5].rpartition(":")[2] == str(inode) and words[4].isdecimal() and int(words[4]) > 0:
            owners.append(int(words[4]))
    return owners


def holders(path: Path) -> Sequence[Holder]:
    """Who has locked or opened the file; others' open files are seen by root only.

    Raises:
        OSError: there is no such file.
    """
    stat = path.stat()
    try:
        table = (PROC / "locks").read_text()
    except OSError:
        table = ""
    pids = dict.fromkeys(lock_owners(table, stat.st_ino))
    pids |= dict.fromkeys(_openers(os.path.realpath(path)))
    return [Holder(pid, _command(pid), unit_of(_read(pid, "cgroup"))) for pid in pids if pid != os.getpid()]


def _openers(path: str) -> Iterable[int]:
    for process in PROC.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            files = [*(process / "fd").iterdir()]
        except OSError:
            continue  # another's, or gone
        for file in files:
            try:
                if os.readlink(file) == path:
                    yield int(process.name)
                    break
            except OSError:
                continue


def _command(pid: int) -> str:
    return _read(pid, "comm").strip()


def unit_of(cgroup: str) -> str:
    """The system's service by the text of /proc/PID/cgroup (cgroups(7)); empty where it is none."""
    found = _UNIT.search(cgroup)
    return found[1] if found else ""


def _read(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text()
    except OSError:
        return ""
