"""The check `serial`: every serial port that the profile names: there, ours to open, and held by whom."""

import asyncio
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from agent.doctor import host
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, not_checked, ok, warning
from agent.doctor.locks import Holder, holders
from protocols.base import DeviceConfig

BY_ID = Path("/dev/serial/by-id")
SLOW_LATENCY_MS = 4
"""Of FTDI's 16 ms by default each answer of a fast device waits."""
_GROUP_MAY = stat.S_IRGRP | stat.S_IWGRP


class Port(msgspec.Struct, frozen=True):
    """A serial port as it is."""

    path: str
    there: bool
    is_device: bool = True
    others: Sequence[str] = ()
    """Serial ports that are here, by the names that stay."""
    by_id: str = ""
    """The name that stays over a replug; empty if it has none."""
    group: str = ""
    user: str = ""
    """Who looks."""
    allowed: bool = True
    """Whether that user may read and write it."""
    in_group: bool = True
    """Whether that user is in the group by the host's list, though perhaps not in this session."""
    group_may: bool = True
    """Whether its mode lets the group read and write it."""
    holders: Sequence[Holder] = ()
    latency_ms: int | None = None
    """Of a USB adapter's timer, where it has one."""


def judge(port: Port, agent_pid: int | None, bench: str = "") -> Iterator[Finding]:
    """What is to be said of a port. Held by the agent that runs here, or its service, it is well."""
    if not port.there:
        others = ", ".join(port.others) or "none"
        yield failed(port.path, f"it is not there; here are: {others}", "plug it in, or name another port")
        return
    if not port.is_device:
        yield failed(port.path, "it is no character device", "name another port in the profile")
        return
    if not port.allowed:
        found = f"user {port.user} may not open it: it is group {port.group}'s"
        yield failed(port.path, found, _let_in(port))
        return
    units = (f"hilgate@{bench}.service", "hilgate.service") if bench else ()
    mine = [holder for holder in port.holders if holder.pid == agent_pid or holder.unit in units]
    strangers = [holder for holder in port.holders if holder not in mine]
    if strangers:
        yield failed(port.path, f"it is held by {', '.join(map(str, strangers))}", _let_go(strangers))
        return
    worries = list(_worries(port))
    if not worries:
        held = f"the running agent (pid {mine[0].pid}) has it" if mine else "there, free, and ours to open"
        yield ok(port.path, held)
    yield from worries


def _let_in(port: Port) -> str:
    if not port.group_may or port.group == "root":  # to be in root's group is no way out
        name = os.path.basename(os.path.realpath(port.path))
        return f'a udev rule: SUBSYSTEM=="tty", KERNEL=="{name}", GROUP="dialout", MODE="0660"'
    if port.in_group:
        return "log in again, for the group to count"
    return f"usermod -aG {port.group} {port.user}, then log in again"


def _let_go(strangers: Sequence[Holder]) -> str:
    units = sorted({holder.unit for holder in strangers if holder.unit})
    if units:  # killed, it would come back; and a bench's agent is not to be killed
        return f"a port is one bench's: name another here, or systemctl disable --now {' '.join(units)}"
    return f"end it: kill {' '.join(str(holder.pid) for holder in strangers)}"


def _worries(port: Port) -> Iterator[Finding]:
    if port.by_id and port.path.startswith("/dev/tty"):  # other names are links that somebody made to stay
        found = "this name may be another adapter's after a replug or a boot"
        yield warning(port.path, found, f"write port: {port.by_id} in the profile")
    if port.latency_ms is not None and port.latency_ms > SLOW_LATENCY_MS:
        name = os.path.basename(os.path.realpath(port.path))
        found = f"its adapter holds answers back for up to {port.latency_ms} ms"
        yield warning(port.path, found, f"echo 1 > /sys/bus/usb-serial/devices/{name}/latency_timer")


def parts(case: Case) -> Mapping[str, Look]:
    """A look at each port; none is opened."""
    ports = named(case)
    if not ports:
        why = case.no_devices or "the profile has no serial port"

        async def nothing() -> list[Finding]:
            return [not_checked("", why)]

        return {"": nothing}

    def look_at(path: str) -> Look:
        async def look() -> list[Finding]:
            presence = await case.presence()
            pid = None if presence.holder is None else presence.holder.pid
            bench = "" if case.settings is None else case.settings.bench
            return list(judge(await asyncio.to_thread(gather, path), pid, bench))

        return look

    return {path: look_at(path) for path in ports}


def named(case: Case) -> Sequence[str]:
    """The serial ports of the profile's devices, each once."""
    ports = (port_of(device) for device in case.devices.values())
    return list(dict.fromkeys(port for port in ports if port is not None))


def port_of(device: DeviceConfig) -> str | None:
    """The serial port that a device is behind; None of every other."""
    connection = getattr(device, "connection", None)
    port, channel = getattr(connection, "port", None), getattr(connection, "channel", None)
    if isinstance(port, str):  # of everything else the port is a number
        return port
    if isinstance(channel, str) and channel.startswith("/dev/"):  # a CAN adapter on a serial line
        return channel.partition("@")[0]
    return None


def gather(path: str) -> Port:
    """The facts of one port."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Port(path, there=False, others=_present())
    user = _user()
    allowed = os.access(path, os.R_OK | os.W_OK)
    if allowed and not host.service_may(path, write=True):
        user, allowed = host.SERVICE_USER, False
    return Port(
        path,
        there=True,
        is_device=stat.S_ISCHR(status.st_mode),
        by_id=_by_id(path),
        group=_group(status.st_gid),
        user=user,
        allowed=allowed,
        in_group=user in _members(status.st_gid),
        group_may=status.st_mode & _GROUP_MAY == _GROUP_MAY,
        holders=holders(Path(path)),
        latency_ms=_latency(path),
    )


def _present() -> Sequence[str]:
    stable = sorted(map(str, BY_ID.iterdir())) if BY_ID.is_dir() else []
    if stable:
        return stable
    return sorted(str(path) for kind in ("ttyUSB*", "ttyACM*") for path in Path("/dev").glob(kind))


def _by_id(path: str) -> str:
    real = os.path.realpath(path)
    links = sorted(BY_ID.iterdir()) if BY_ID.is_dir() else []
    return next((str(link) for link in links if os.path.realpath(link) == real), "")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _members(gid: int) -> Sequence[str]:
    try:
        return grp.getgrgid(gid).gr_mem
    except KeyError:
        return ()


def _latency(path: str) -> int | None:
    name = os.path.basename(os.path.realpath(path))
    try:
        return int(Path("/sys/bus/usb-serial/devices", name, "latency_timer").read_text())
    except (OSError, ValueError):
        return None
