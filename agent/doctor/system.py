"""The check `system`: Python, version, architecture, and the packages that the profile's protocols need."""

import importlib.metadata
import platform
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, ok, warning

_OLDEST = (3, 11)
_EXTRA = "extra =="


class System(msgspec.Struct, frozen=True):
    """What runs here."""

    python: tuple[int, int, int]
    version: str
    machine: str
    kernel: str
    lacking: Mapping[str, Sequence[str]]
    """By protocol, or by setting: packages of its extra that are not installed."""


def judge(facts: System) -> Iterator[Finding]:
    """What is to be said of it."""
    python = ".".join(map(str, facts.python))
    found = f"hilgate {facts.version}, Python {python}, {facts.machine}, Linux {facts.kernel}"
    if facts.python[:2] < _OLDEST:
        yield failed("", found, "install Python 3.11 or later and hilgate in it")
    else:
        yield ok("", found)
    for extra, packages in facts.lacking.items():
        text = f"not installed: {', '.join(packages)}"
        yield warning(extra, text, f"{sys.executable} -m pip install 'hilgate[{extra}]'")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at the whole."""

    async def look() -> list[Finding]:
        return list(judge(_gather(case)))

    return {"": look}


def _gather(case: Case) -> System:
    extras = dict.fromkeys(device.protocol for device in case.devices.values())
    if case.settings is not None and case.settings.http is not None:
        extras["web"] = None
    return System(
        python=sys.version_info[:3],
        version=importlib.metadata.version("hilgate"),
        machine=platform.machine(),
        kernel=platform.release(),
        lacking={extra: packages for extra in extras if (packages := lacking(extra))},
    )


def lacking(extra: str) -> Sequence[str]:
    """The packages that an extra of hilgate brings and that are not installed."""
    asked = importlib.metadata.requires("hilgate") or []
    wanted = packages_of(extra, asked)
    return [name for name in wanted if not _installed(name)]


def packages_of(extra: str, requirements: Collection[str]) -> Sequence[str]:
    """The distributions of an extra, by a distribution's metadata (core metadata, Requires-Dist)."""
    found = []
    for requirement in requirements:
        what, _, marker = requirement.partition(";")
        quoted = marker.partition(_EXTRA)[2].strip().strip("()")[: len(extra) + 2].strip("'\"")
        if quoted == extra:
            name = what.strip()
            for stop in "<>=!~[ (":
                name = name.partition(stop)[0]
            found.append(name)
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
