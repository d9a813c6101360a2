"""The check `limits`: memory and open files, as far as they bound the agent."""

import asyncio
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, mib, ok, warning

LEAST_BYTES = 64 * 1024**2
"""Below this the agent does not come up with one protocol."""
ENOUGH_BYTES = 192 * 1024**2
"""What an agent with several protocols and full queues takes."""
ENOUGH_FILES = 256
CGROUP = Path("/sys/fs/cgroup")


class Limits(msgspec.Struct, frozen=True):
    """What this process may have."""

    available: int
    """Bytes of memory that are left on the host."""
    cgroup: int | None
    """Bytes that the cgroup may have; None: no limit."""
    files: int
    """Open files."""
    container: str = ""


def judge(limits: Limits) -> Iterator[Finding]:
    """What is to be said of it."""
    least = limits.available if limits.cgroup is None else min(limits.available, limits.cgroup)
    by_group = limits.cgroup is not None and limits.cgroup <= limits.available
    what = "the cgroup's limit" if by_group else "left on this host"
    found = f"{mib(least)} of memory {what}"
    where = "raise resources.limits.memory" if limits.container else "raise MemoryMax= of the unit"
    todo = where if by_group else "end what takes it: ps aux --sort=-rss | head"
    if least < LEAST_BYTES:
        yield failed("memory", f"{found}; an agent takes {mib(LEAST_BYTES)} at least", todo)
    elif least < ENOUGH_BYTES:
        yield warning("memory", f"{found}; {mib(ENOUGH_BYTES)} is enough for most benches", todo)
    else:
        yield ok("memory", found)
    if limits.files < ENOUGH_FILES:
        found = f"{limits.files} open files at most; {ENOUGH_FILES} is enough for most benches"
        yield warning("files", found, "raise LimitNOFILE= of the unit, or ulimit -n")
    else:
        yield ok("files", f"{limits.files} open files at most")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at both."""

    async def look() -> list[Finding]:
        return list(judge(await asyncio.to_thread(_gather, case.container)))

    return {"": look}


def _gather(container: str) -> Limits:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2**31 if soft == resource.RLIM_INFINITY else soft
    own = Path("/proc/self/cgroup").read_text()
    return Limits(available(Path("/proc/meminfo").read_text()), cgroup_limit(own, CGROUP), files, container)


def available(meminfo: str) -> int:
    """The bytes of memory that are left (proc_meminfo(5), MemAvailable)."""
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise ValueError("/proc/meminfo says nothing of MemAvailable")


def cgroup_limit(own: str, root: Path) -> int | None:
    """The least limit of the cgroup and all above it (cgroup v2, memory.max); None where there is none."""
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::")), "/")
    folder = root / path.lstrip("/")
    limits = []
    for level in (folder, *folder.parents):
        try:
            text = (level / "memory.max").read_text().strip()
        except OSError:
            text = ""
        if text.isdecimal():
            limits.append(int(text))
        if level == root:
            break
    return min(limits, default=None)
