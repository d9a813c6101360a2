"""The check `can`: every SocketCAN interface that the profile names, against what the profile says of it."""

import asyncio
import errno
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, not_checked, ok, warning
from protocols.can.bus import BusState

if TYPE_CHECKING:
    from protocols.can.buses.netlink import Link
    from protocols.can.config import Connection

SHORT_QUEUE = 100
"""A controller's default of 10 frames is full before a burst of writes is out."""
_STATES = {
    BusState.WARNING: "has counted many errors (error warning)",
    BusState.PASSIVE: "is error passive",
    BusState.BUS_OFF: "is bus-off: it takes no part in the bus",
    BusState.STOPPED: "is stopped",
}
_WIRES = "check bit rate, termination (60 ohm between CAN_H and CAN_L) and wiring"


class Facts(msgspec.Struct, frozen=True):
    """One interface as it is."""

    link: "Link | None"
    """None: there is none of this name."""
    here: tuple[str, ...] = ()
    """The CAN interfaces that are here."""


def judge(connection: "Connection", facts: Facts) -> Iterator[Finding]:
    """What is to be said of an interface; the first thing that keeps it from working, else all else."""
    name, link = str(connection.channel), facts.link
    if link is None or not link.is_can:
        what = "there is no such interface" if link is None else "it is no CAN interface"
        found = f"{what}; CAN interfaces here: {', '.join(facts.here) or 'none'}"
        yield failed(name, found, _make(name) if link is None else "name another channel in the profile")
        return
    broken = _broken(connection, link)
    if broken is not None:
        yield broken
        return
    worries = list(_worries(name, link))
    if not worries:
        yield ok(name, describe(link))
    yield from worries


def _broken(connection: "Connection", link: "Link") -> Finding | None:
    from protocols.can.buses import interface

    name = link.name
    down = shlex.join(["ip", "link", "set", name, "down"])
    bring_up = interface.bring_up(connection, link)
    if not link.up:
        return failed(name, "it is down", f"{bring_up} (for good: hilgate install ... --with can-network)")
    if differs := "; ".join(interface.differences(connection, link)):
        return failed(name, differs, f"{down} && {bring_up}")
    if link.state is BusState.BUS_OFF and not link.restart_ms:
        todo = f"ip link set {name} type can restart, after you {_WIRES.replace('check', 'checked', 1)}"
        return failed(name, f"it {_STATES[link.state]}; {_errors(link)}", todo)
    return None


def _worries(name: str, link: "Link") -> Iterator[Finding]:
    if link.state in _STATES:
        yield warning(name, f"it {_STATES[link.state]}; {_errors(link)}", _WIRES)
    if link.restart_ms == 0:
        todo = (
            f"ip link set {name} down && ip link set {name} type can restart-ms 100 && ip link set {name} up"
        )
        yield warning(name, "it stays bus-off for ever once it is (restart-ms 0)", todo)
    if link.kind == "can" and link.queue is not None and link.queue < SHORT_QUEUE:
        found = f"only {link.queue} frames may wait to be sent: bursts of writes will fail"
        yield warning(name, found, f"ip link set {name} txqueuelen 1000")


def describe(link: "Link") -> str:
    """An interface that is well, in words."""
    said = [f"up ({link.kind})"]
    if link.bitrate is not None:
        said.append(f"{link.bitrate} bit/s")
    if link.data_bitrate is not None:
        said.append(f"data phase {link.data_bitrate} bit/s")
    if link.state is not None:
        said.append(f"error {link.state.value}, {_errors(link)}")
    if link.restart_ms:
        said.append(f"restart-ms {link.restart_ms}")
    if link.queue is not None:
        said.append(f"queue {link.queue}")
    return ", ".join(said)


def _errors(link: "Link") -> str:
    counted = f"error counters {link.tx_errors or 0} sending, {link.rx_errors or 0} receiving"
    return f"{counted}, {link.restarts} restarts" if link.restarts else counted


def _make(name: str) -> str:
    if name.startswith("vcan"):
        return f"ip link add {name} type vcan && ip link set {name} mtu 72 up"
    return "is the adapter plugged in? dmesg | grep -i can"


def socketcan(case: Case) -> "Mapping[str, Connection]":
    """The SocketCAN connections of the profile's devices, by interface."""
    connections = {}
    for device in case.devices.values():
        if device.protocol == "can":
            connection: Connection = device.connection  # type: ignore[attr-defined]  # a CAN device has one
            if connection.interface == "socketcan":
                connections[str(connection.channel)] = connection
    return connections


def parts(case: Case) -> Mapping[str, Look]:
    """A look at each interface."""
    found = socketcan(case)
    if not found:
        why = case.no_devices or "the profile has no SocketCAN bus"

        async def nothing() -> list[Finding]:
            return [not_checked("", why)]

        return {"": nothing}

    def look_at(connection: "Connection") -> Look:
        async def look() -> list[Finding]:
            return list(judge(connection, await asyncio.to_thread(_gather, str(connection.channel))))

        return look

    return {name: look_at(connection) for name, connection in found.items()}


def _gather(name: str) -> Facts:
    from protocols.can.buses import netlink

    here = tuple(sorted(link.name for link in netlink.can_links()))
    try:
        return Facts(netlink.link(name), here)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return Facts(None, here)
