"""What a bus can do, whatever is behind it: SocketCAN by our own path, all else by python-can."""

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from protocols.can.config import Connection
from protocols.can.frame import Frame


class BusState(enum.StrEnum):
    """State of the controller (ISO 11898-1, fault confinement; names as Linux shows them)."""

    ACTIVE = "active"
    WARNING = "warning"
    PASSIVE = "passive"
    BUS_OFF = "bus-off"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    """The interface cannot tell."""


class BusStatus(msgspec.Struct, frozen=True):
    """How the bus is now. What the interface cannot tell is None."""

    state: BusState = BusState.UNKNOWN
    tx_errors: int | None = None
    """Transmit error counter of the controller."""
    rx_errors: int | None = None
    restarts: int | None = None
    """How often the controller came back from bus-off."""
    bitrate: int | None = None
    """Bits a second, in the arbitration phase."""
    data_bitrate: int | None = None
    dropped: int = 0
    """Frames that were lost between controller and agent since it connected (the kernel's own counter)."""


class Listener(Protocol):
    """Who is told what happens on a bus. Every call returns at once, never fails and comes on the loop."""

    def frames(self, batch: Sequence[Frame]) -> None:
        """Takes frames in the order of the bus: of others, and our own once the bus took them."""

    def dropped(self, count: int) -> None:
        """Frames were lost before they could be read: between those already given and those to come."""

    def status(self, status: BusStatus) -> None:
        """The state of the controller changed."""


class Filter(NamedTuple):
    """Frames with `received & mask == can_id & mask` pass, as in `struct can_filter` (flag bits included)."""

    can_id: int
    mask: int


class Periodic(Protocol):
    """Frames that are sent in turn, one each period, until stopped."""

    def update(self, frames: Sequence[Frame]) -> None:
        """Other content from the next turn on; the identifier and the number of frames stay."""

    def stop(self) -> None:
        """Ends it; safe to call twice."""


class Bus(Protocol):
    """One open or closed bus, owned by one driver."""

    async def open(self, listener: Listener, filters: Sequence[Filter] | None) -> None:
        """Opens it and begins to listen; `filters` None lets all frames pass, error frames always pass.

        Safe to call again after the bus was lost or closed.

        Raises:
            DriverError: no such interface, it is down, has another bit rate than the profile says, ...
        """

    def listen(self, filters: Sequence[Filter] | None) -> None:
        """Other filters from now on, while it is open: a recording wants all, a request its answer."""

    async def lost(self) -> str:
        """Returns why, once the bus can no longer be used (never while bus-off: that is a state)."""

    def status(self) -> BusStatus:
        """How the bus is now."""

    async def send(self, frame: Frame, timeout: float) -> Frame:
        """Sends a frame and returns it, with its time, when the bus took it.

        Where an interface does not tell, this is when it took the frame. Frames are sent in the order of
        the calls.

        Raises:
            DriverError: `timeout` if nobody acknowledged it in time (it may still go out, and the text says
                so), `disconnected`, `device-error` where the bus cannot carry it or listens only.
        """

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        """Sends frames of one identifier in turn, one each `period` seconds, the first at once.

        Raises:
            DriverError: as `send`, as far as it can be told at once.
        """

    def close(self) -> None:
        """Lets the bus go, and everything periodic with it. Safe to call at any time, also twice."""


def make_bus(connection: Connection) -> Bus:
    """The bus behind a connection, not yet open."""
    if connection.interface == "socketcan":
        from protocols.can.buses.socketcan import SocketCan

        return SocketCan(connection)
    from protocols.can.buses.pythoncan import PythonCan

    return PythonCan(connection)
