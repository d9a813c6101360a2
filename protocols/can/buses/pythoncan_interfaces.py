"""What python-can's interfaces take and do, as far as it differs, and what their errors mean to a person.

From python-can 4.6 (`can/interfaces`, and the chapter "CAN Interface Modules" of its documentation).
"""

import difflib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from protocols.base import DriverError
from protocols.can.config import Connection

Echo = Literal["none", "asked", "always"]
"""Whether own frames come back once the bus took them: never, with `receive_own_messages`, or in any case."""


class Interface(msgspec.Struct, frozen=True):
    """How one of python-can's interfaces differs from the others."""

    echo: Echo = "none"
    silent: Mapping[str, Any] | None = None
    """Arguments for listening only; None where it cannot: then it acknowledges frames all the same."""
    fixed: Mapping[str, Any] = {}
    """Arguments that its defaults are worse than."""
    bit_timing: bool = False
    """CAN FD is set by `timing`; elsewhere by `fd`, `bitrate` and `data_bitrate`."""
    linux_errors: bool = False
    """Its error frames are laid out as those of Linux."""
    tells_state: bool = False
    """Its `state` is that of the controller, not what was asked for nor a constant."""
    needs: str = ""
    """What has to be installed beside python-can."""


_SERIAL_NEEDS = "the package pyserial (hilgate[can])"
_PASSIVE = {"state": "PASSIVE"}

INTERFACES: Mapping[str, Interface] = {
    # Its port is read byte by byte: a wait of 1 ms for each, as is the default, costs CPU and gains nothing.
    "slcan": Interface(
        silent={"listen_only": True}, fixed={"timeout": 0.05}, bit_timing=True, needs=_SERIAL_NEEDS
    ),
    "seeedstudio": Interface(silent={"operation_mode": "silent"}, needs=_SERIAL_NEEDS),
    "robotell": Interface(needs=_SERIAL_NEEDS),
    "serial": Interface(needs=_SERIAL_NEEDS),
    "pcan": Interface(
        echo="asked", silent=_PASSIVE, bit_timing=True, needs="PEAK's PCAN-Basic library (libpcanbasic)"
    ),
    "kvaser": Interface(
        echo="asked", silent={"driver_mode": False}, bit_timing=True, needs="Kvaser's CANlib (linuxcan)"
    ),
    "vector": Interface(
        echo="asked", silent={"listen_only": True}, bit_timing=True, needs="Vector's XL library, on Windows"
    ),
    "ixxat": Interface(echo="asked", tells_state=True, needs="Ixxat's VCI, on Windows"),
    "neovi": Interface(echo="asked", needs="the package python-ics"),
    "nixnet": Interface(echo="asked", silent={"listen_only": True}, needs="NI-XNET, on Windows"),
    "systec": Interface(echo="asked", silent=_PASSIVE, needs="SYS TEC's driver, on Windows"),
    "etas": Interface(echo="asked", needs="ETAS BOA, on Windows"),
    "gs_usb": Interface(
        echo="always",
        linux_errors=True,
        needs="the package gs-usb and libusb; interface: socketcan is the better way, Linux has a driver",
    ),
    "cantact": Interface(silent={"monitor": True}, needs="the package cantact"),
    "canalystii": Interface(needs="the package canalystii"),
    "socketcand": Interface(needs="options host and port: where the daemon socketcand listens"),
    # Multicast comes back to its sender, though the interface says that it cannot receive own messages.
    "udp_multicast": Interface(
        echo="always", linux_errors=True, needs="the package msgpack (hilgate[multicast])"
    ),
    "virtual": Interface(echo="asked", linux_errors=True),
}
"""The interfaces that differ, by python-can's name."""

_OTHER = Interface()
_FD_CLOCK_HZ = 80_000_000
_SAMPLE_POINT = 80.0
_OWN_TIMING = re.compile(r"timing|f_clock|tseg|brp|sjw")


def interface_of(connection: Connection) -> Interface:
    """What is known of a connection's interface."""
    return INTERFACES.get(connection.interface, _OTHER)


def echoes(connection: Connection) -> bool:
    """Whether own frames come back when the bus took them; the option `receive_own_messages` can say so."""
    echo = interface_of(connection).echo
    return echo == "always" or bool(connection.options.get("receive_own_messages", echo == "asked"))


def arguments(connection: Connection) -> dict[str, Any]:
    """The arguments of `can.Bus` beside interface and channel; `options` of the profile win.

    Where an interface wants the bit timing of CAN FD, the sample points are at 80 %, which is usual, of a
    clock of 80 MHz; options with a timing of one's own are passed as they are.

    Raises:
        ValueError: no such bit timing can be had.
    """
    import can

    kind = interface_of(connection)
    made: dict[str, Any] = dict(kind.fixed)
    if connection.bitrate is not None:
        made["bitrate"] = connection.bitrate
    if kind.echo == "asked":
        made["receive_own_messages"] = True
    if connection.listen_only:
        made |= kind.silent or {}
    if connection.interface == "virtual":
        made["protocol"] = can.CanProtocol.CAN_FD if connection.fd else can.CanProtocol.CAN_20
    elif connection.interface == "udp_multicast":
        made["fd"] = connection.fd
    elif connection.fd:
        made |= _fd_arguments(connection, kind)
    made |= connection.options
    if made.get("state") in ("ACTIVE", "PASSIVE"):
        made["state"] = can.BusState[made["state"]]
    return made


def _fd_arguments(connection: Connection, kind: Interface) -> dict[str, Any]:
    import can

    if not kind.bit_timing or any(_OWN_TIMING.search(option) for option in connection.options):
        rate = connection.data_bitrate
        return {"fd": True} if rate is None else {"fd": True, "data_bitrate": rate}
    if connection.bitrate is None or connection.data_bitrate is None:
        raise ValueError("CAN FD needs bitrate and data_bitrate, or a timing of its own in options")
    timing = can.BitTimingFd.from_sample_point(
        f_clock=_FD_CLOCK_HZ,
        nom_bitrate=connection.bitrate,
        nom_sample_point=_SAMPLE_POINT,
        data_bitrate=connection.data_bitrate,
        data_sample_point=_SAMPLE_POINT,
    )
    return {"fd": True, "timing": timing}


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from: python-can wraps what it does not raise itself."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def reason_of(error: BaseException) -> str:
    """Why, for people: what python-can says, and what it came from in the system's own words."""
    said = str(error) if not isinstance(error, KeyError) else f"{error} is none of its values"
    *_, root = causes(error)
    deeper = next(
        (os.strerror(cause.errno) for cause in causes(error) if isinstance(cause, OSError) and cause.errno),
        str(root),
    )
    if not said or said.startswith("[Errno"):
        return deeper or type(error).__name__
    return said if not deeper or deeper in said else f"{said}: {deeper}"


def open_error(connection: Connection, error: Exception) -> DriverError:
    """What it means that a bus could not be opened."""
    import can

    needs = interface_of(connection).needs
    system = next(
        (cause.errno for cause in causes(error) if isinstance(cause, OSError) and cause.errno), None
    )
    if connection.interface not in can.VALID_INTERFACES:
        close = difflib.get_close_matches(connection.interface, can.VALID_INTERFACES, 1)
        meant = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(can.VALID_INTERFACES))}"
        return DriverError("device-error", f"python-can has no interface {connection.interface!r}; {meant}")
    if system == errno.ENOENT:
        text = f"{connection}: there is no {connection.channel}; is the adapter plugged in?"
        return DriverError("disconnected", text)
    if system in (errno.EACCES, errno.EPERM):
        text = f"{connection}: permission denied; the agent's user has to be in the group of that device"
        return DriverError("disconnected", f"{text} (often dialout)")
    if system == errno.EBUSY:
        return DriverError("disconnected", f"{connection} is used by another program")
    if _missing(error):
        hint = f"; {connection.interface} needs {needs}" if needs else ""
        return DriverError("disconnected", f"{connection} cannot be used: {reason_of(error)}{hint}")
    if system is None and any(isinstance(one, ValueError | TypeError | LookupError) for one in causes(error)):
        text = f"{connection} cannot be opened with these settings: {reason_of(error)}"
        return DriverError("device-error", text)
    return DriverError("disconnected", f"{connection} cannot be opened: {reason_of(error)}")


def _missing(error: Exception) -> bool:
    """Whether a library or an argument that the interface cannot do without is missing."""
    if isinstance(error, ImportError | NameError | NotImplementedError):
        return True
    # PCAN's library, libusb, and the address of a socketcand tell it so.
    words = ("library not found", "No backend available", "required positional argument")
    return any(word in str(error) for word in words)
