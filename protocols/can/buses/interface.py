"""Whether a network interface is the bus that the profile means."""

import errno
import shlex
from collections.abc import Iterator

from protocols.base import DriverError
from protocols.can.buses import netlink
from protocols.can.buses.layout import FD_MTU
from protocols.can.config import Connection

_USUAL_BITRATE = 500_000


def check(connection: Connection) -> netlink.Link:
    """The interface, which is up and set as the profile says.

    Raises:
        DriverError: `disconnected` if it is not there or not up, `device-error` if it is set otherwise; the
            text says what to do.
    """
    name = str(connection.channel)
    try:
        link = netlink.link(name)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise DriverError(
                "disconnected", f"cannot ask the kernel about {name}: {error.strerror}"
            ) from None
        raise DriverError("disconnected", f"there is no interface {name}; {_there_are()}") from None
    if not link.is_can:
        raise DriverError("disconnected", f"{name} is no CAN interface; {_there_are()}")
    if not link.up:
        raise DriverError("disconnected", f"{name} is down: {bring_up(connection, link)}")
    if differs := "; ".join(differences(connection, link)):
        down = shlex.join(["ip", "link", "set", name, "down"])
        raise DriverError("device-error", f"{name}: {differs}; {down}; {bring_up(connection, link)}")
    return link


def why_lost(connection: Connection, error: OSError) -> str:
    """What became of an interface that was in use, after this error of its socket."""
    name = str(connection.channel)
    try:
        link = netlink.link(name)
    except OSError:
        return f"the interface {name} is no longer there"
    if not link.up:
        return f"{name} went down: {bring_up(connection, link)}"
    return f"{name}: {error.strerror}"


def _there_are() -> str:
    try:
        names = ", ".join(sorted(link.name for link in netlink.can_links()))
    except OSError:
        names = ""
    return f"CAN interfaces here: {names or 'none'}"


def bring_up(connection: Connection, link: netlink.Link) -> str:
    """The command that brings an interface up as the profile wants it."""
    words = ["ip", "link", "set", str(connection.channel), "up"]
    if link.kind in ("vcan", "vxcan"):
        words += ["mtu", str(FD_MTU)] if connection.fd else []
    else:
        words += ["type", "can", "bitrate", str(connection.bitrate or _USUAL_BITRATE)]
        if connection.fd:
            words += ["dbitrate", str(connection.data_bitrate or "RATE"), "fd", "on"]
        elif link.fd:
            words += ["fd", "off"]
        if connection.listen_only or link.listen_only:
            words += ["listen-only", _on(connection.listen_only)]
    return shlex.join(words)


def differences(connection: Connection, link: netlink.Link) -> Iterator[str]:
    """What the interface is set to and the profile has otherwise, in words."""
    for what, there, wanted in (
        ("bit rate", link.bitrate, connection.bitrate),
        ("data bit rate", link.data_bitrate, connection.data_bitrate),
    ):
        if wanted is not None and there is not None and there != wanted:
            yield f"its {what} is {there} and should be {wanted}"
    if link.fd is not None and link.fd != connection.fd:
        yield f"CAN FD is {_on(link.fd)} and should be {_on(connection.fd)}"
    elif connection.fd and link.mtu < FD_MTU:
        yield f"its MTU is {link.mtu}, and CAN FD takes {FD_MTU}"
    if link.listen_only is not None and link.listen_only != connection.listen_only:
        yield f"listen-only is {_on(link.listen_only)} and should be {_on(connection.listen_only)}"


def _on(flag: bool) -> str:
    return "on" if flag else "off"
