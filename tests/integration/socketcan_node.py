"""What tests of the SocketCAN bus share: a listener, and another node by the standard library."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from protocols.can.bus import BusStatus, Filter, make_bus
from protocols.can.buses.layout import CLASSIC, FD
from protocols.can.buses.socketcan import SocketCan
from protocols.can.config import Connection
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, REMOTE, Frame


class Ear:
    """A listener that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Frame | int] = []
        self.states: list[BusStatus] = []

    def frames(self, batch: Sequence[Frame]) -> None:
        self.told += batch

    def dropped(self, count: int) -> None:
        self.told.append(count)

    def status(self, status: BusStatus) -> None:
        self.states.append(status)

    @property
    def heard(self) -> list[Frame]:
        return [one for one in self.told if isinstance(one, Frame)]

    @property
    def lost(self) -> int:
        return sum(one for one in self.told if isinstance(one, int))

    @property
    def contents(self) -> list[tuple[int, bytes, int]]:
        return [(frame.can_id, frame.data, frame.flags) for frame in self.heard]


@contextlib.asynccontextmanager
async def opened(
    channel: str, filters: Sequence[Filter] | None = None, **connection: Any
) -> AsyncIterator[tuple[SocketCan, Ear]]:
    bus = make_bus(Connection(channel=channel, **connection))
    assert isinstance(bus, SocketCan)
    ear = Ear()
    await bus.open(ear, filters)
    try:
        yield bus, ear
    finally:
        bus.close()


@contextlib.contextmanager
def another_node(channel: str) -> Iterator[socket.socket]:
    """A raw socket of the standard library on the same bus."""
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as sock:
        sock.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        sock.settimeout(30)
        sock.bind((channel,))
        yield sock


def hear(node: socket.socket) -> tuple[int, bytes, int]:
    """The next frame at the other node, as what `Frame` has of it but for its time."""
    data = node.recv(FD.size)
    if len(data) == FD.size:
        can_id, size, flags, payload = FD.unpack(data)
        return can_id, payload[:size], flags & (BRS | ESI) | FDF
    can_id, size, _, payload = CLASSIC.unpack(data)
    return can_id, payload[:size], 0


def run(*command: str) -> str:
    """What a command of the system prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def without_administration(code: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code without the right to administer the network."""
    limits = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    here = Path(__file__).parents[2]
    return subprocess.run(
        [*limits, sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False
    )


def error(classes: int, *data: int) -> bytes:
    """An error frame as a controller's driver would tell it; looped to all who listen to errors."""
    return CLASSIC.pack(ERROR | classes, 8, 0, bytes(data))


def told_of(ear: Ear, count: int) -> bool:
    """Whether so many frames were heard or lost."""
    return len(ear.heard) + ear.lost == count


def numbered(count: int, can_id: int = 0x100) -> list[bytes]:
    return [CLASSIC.pack(can_id, 4, 0, n.to_bytes(4)) for n in range(count)]


ALL_KINDS = [
    Frame(0, 0x123, b"\x01\x02\x03"),
    Frame(0, 0x18DAF110 | EXTENDED, b"12345678"),
    Frame(0, 0x7FF, b""),
    Frame(0, 0x0 | EXTENDED, b"x"),
    Frame(0, 0x321 | REMOTE, bytes(5)),
    Frame(0, 0x1ABCDEF0 | EXTENDED | REMOTE, b""),
    Frame(0, 0x111, bytes(range(64)), FDF | BRS),
    Frame(0, 0x112 | EXTENDED, b"", FDF),
    Frame(0, 0x113, bytes(12), FDF | ESI),
]
