"""A bus where the kernel has no CAN: datagrams of `struct can_frame` over UDP on loopback.

The socket gives the same stamps and the same drop counter as one of SocketCAN, so the receive path is the one
that a bench runs; what is missing is the kernel's CAN stack below it. Run as a process, `hilgate` with such
buses in the place of SocketCAN's: `python -m benchmarks.can_stand_in run PROFILE ...`; the number at the end
of a channel's name is its port.
"""

import asyncio
import socket
import sys
from collections.abc import Sequence

from protocols.can import bus as can_bus
from protocols.can.bus import BusState, BusStatus, Filter, Listener, Periodic
from protocols.can.buses.receive import BATCH, Receiver
from protocols.can.config import Connection
from protocols.can.frame import Frame

BUFFER = 16 * 1024 * 1024
_SO_RCVBUFFORCE = 33
_BATCHES = 8


def receiving_socket(port: int = 0, buffer: int = BUFFER) -> socket.socket:
    """A socket that waits for frames on a port of loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.bind(("127.0.0.1", port))
    return sock


class StandIn:
    """A `Bus` that only listens."""

    def __init__(self, connection: Connection) -> None:
        self._port = int(str(connection.channel).rpartition("-")[2])
        self._receiver: Receiver | None = None
        self._listener: Listener | None = None
        self._lost: asyncio.Future[str] | None = None

    async def open(self, listener: Listener, filters: Sequence[Filter] | None) -> None:
        self._socket = receiving_socket(self._port)
        self._receiver, self._listener = Receiver(self._socket), listener
        self._told = 0
        self._lost = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        assert self._receiver is not None
        assert self._listener is not None
        for _ in range(_BATCHES):
            frames = self._receiver.read()
            if frames:
                self._listener.frames(frames)
            if self._receiver.dropped != self._told:
                self._listener.dropped(self._receiver.dropped - self._told)
                self._told = self._receiver.dropped
            if len(frames) < BATCH:
                break

    def listen(self, filters: Sequence[Filter] | None) -> None:
        """All pass."""

    async def lost(self) -> str:
        assert self._lost is not None
        return await self._lost

    def status(self) -> BusStatus:
        return BusStatus(BusState.ACTIVE)

    async def send(self, frame: Frame, timeout: float) -> Frame:
        raise NotImplementedError

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        raise NotImplementedError

    def close(self) -> None:
        if self._receiver is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._receiver = None


def main() -> None:
    """Runs the agent with stand-ins, and without the extra `convert`, which no bench host has."""
    sys.modules["asammdf"] = None  # type: ignore[assignment]  # how Python says: not installed
    can_bus.make_bus = StandIn
    from agent.cli import main as hilgate

    sys.argv[0] = "hilgate"
    hilgate()


if __name__ == "__main__":
    main()
