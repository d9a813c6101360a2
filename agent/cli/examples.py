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
        name, value = next(filter(None, map(_write, config.points.values())), (None, ""))
        if name is not None:
            found.append(f"send {bench} write {device} {name}={value} --verify")
            break
    where = "" if url == DEFAULT_BROKER else f" --broker {shlex.quote(url)}"
    program = _program()
    return [f"{program} {line}{where}" for line in found]


def _write(point: "Point") -> tuple[str, str] | None:
    """A harmless write: a number in the middle of its limits."""
    if point.access != "rw" or point.min is None or point.max is None:
        return None
    return point.name, f"{round((point.min + point.max) / 2):d}"


def _program() -> str:
    """How to call this program from the present directory: its name where the PATH finds it."""
    name = Path(sys.argv[0])
    found = shutil.which(name.name)
    if found is not None and Path(found).resolve() == name.resolve():
        return name.name
    return shlex.quote(str(name))
