"""Commands to try against a bench, made from its profile so that they work as they stand."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.options import DEFAULT_BROKER

if TYPE_CHECKING:
    from agent.profile import Profile
    from protocols.base import Point


def commands(profile: "Profile", bench: str, url: str) -> Sequence[str]:
    """Lines for a second terminal: watch, read and write this bench on the broker at `url`."""
    found = [f"watch {bench}", f"send {bench} describe"]
    for device, config in profile.devices.items():
        found.append(f"send {bench} read {device}")
        writes = [write for point in config.points.values() if (write := _write(point))]
        if writes:
            found.append(f"send {bench} write {device} {writes[0]} --verify")
            break
    where = [] if url == DEFAULT_BROKER else [f"export HILGATE_BROKER={shlex.quote(url)}"]
    program = _program()
    return [*where, *(f"{program} {line}" for line in found)]


def _write(point: "Point") -> str | None:
    """A write that is easy to see: a number at two thirds of its limits."""
    if point.access != "rw" or point.min is None or point.max is None:
        return None
    return f"{point.name}={round(point.min + (point.max - point.min) * 2 / 3)}"


def _program() -> str:
    """How to call this program from the present directory: its name where the PATH finds it."""
    name = Path(sys.argv[0])
    found = shutil.which(name.name)
    if found is not None and Path(found).resolve() == name.resolve():
        return name.name
    return shlex.quote(str(name))
