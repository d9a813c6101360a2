"""The check `kernel`: the modules that the profile's CAN buses need."""

import os
import platform
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from agent.doctor import host
from agent.doctor.can import socketcan
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, not_checked, ok

State = Literal["there", "loadable", "missing", "unknown"]


class Modules(msgspec.Struct, frozen=True):
    """The modules that are needed, and how each of them is."""

    states: Mapping[str, State]
    release: str
    """Of the kernel."""
    container: str = ""


def needed(interfaces: Mapping[str, bool]) -> list[str]:
    """The modules for these SocketCAN interfaces; each with whether it is virtual by its name."""
    if not interfaces:
        return []
    return ["can", "can_raw", *(["vcan"] if any(interfaces.values()) else [])]


def judge(facts: Modules) -> Iterator[Finding]:
    """What is to be said of each module; those that are loaded on demand are well."""
    missing = [name for name, state in facts.states.items() if state == "missing"]
    unknown = [name for name, state in facts.states.items() if state == "unknown"]
    good = [name for name, state in facts.states.items() if state in ("there", "loadable")]
    if good:
        yield ok(", ".join(good), "loaded, or loaded when it is needed")
    if missing:
        names = " ".join(missing)
        where = "on the host: " if facts.container else ""
        # Debian's cloud kernels leave CAN out; its others have it.
        todo = (
            f"{where}apt-get install linux-image-$(dpkg --print-architecture), reboot; or modprobe -a {names}"
        )
        yield failed(", ".join(missing), f"kernel {facts.release} does not have it", todo)
    if unknown:
        yield not_checked(", ".join(unknown), "not loaded, and modprobe is not here to ask")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at all modules."""

    async def look() -> list[Finding]:
        if case.no_devices:
            return [not_checked("", case.no_devices)]
        names = needed(
            {str(bus.channel): str(bus.channel).startswith("vcan") for bus in socketcan(case).values()}
        )
        if not names:
            return [not_checked("", "the profile has no SocketCAN bus")]
        states = {name: await _state(name) for name in names}
        return list(judge(Modules(states, platform.release(), case.container)))

    return {"": look}


def is_loaded(name: str) -> bool:
    """Whether a module is loaded, or is part of the kernel."""
    return os.path.exists(f"/sys/module/{name}")


async def _state(name: str) -> State:
    if is_loaded(name):
        return "there"
    code, _ = await host.output("modprobe", "--dry-run", "--quiet", name)
    if code == 0:
        return "loadable"
    return "unknown" if code == -1 else "missing"
