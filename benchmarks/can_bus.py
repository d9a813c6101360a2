"""CAN, a frame at a time: receiving and decoding, next to python-can's Notifier and cantools, in one run."""

import asyncio
import functools
import gc
import socket
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import can
import cantools.database
from can.interfaces.socketcan import SocketcanBus
from rich.console import Console
from rich.table import Table

from benchmarks.can_profile import DATABASE, database_file
from benchmarks.can_stand_in import receiving_socket
from protocols.can.buses.receive import Receiver
from protocols.can.frame import Frame
from protocols.can.pcap import Gatherer
from protocols.can.signals.database import load
from protocols.can.signals.decoder import compile_decoder

FRAMES = 5_000
ROUNDS = 15
_FRAME = struct.Struct("=IB3x8s")
_SO_TIMESTAMPNS = 35


class _Bus(SocketcanBus):
    """python-can's SocketCAN bus with another socket under it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.channel = "stand-in"
        self._task_id = 0
        self._bcm_sockets: dict[str, socket.socket] = {}
        self._is_filtered = True
        can.BusABC.__init__(self, channel="stand-in")

    def _apply_filters(self, filters: Any) -> None:
        """All pass."""


def _fill(sock: socket.socket, count: int) -> None:
    """Puts frames into the socket's buffer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(sock.getsockname())
        for n in range(count):
            sender.send(_FRAME.pack(0x100 + n % 64, 8, n.to_bytes(8, "little")))


def _timed(work: Callable[[], None]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return (time.process_time() - start) / FRAMES * 1e6


def _own_bare(sock: socket.socket) -> float:
    _fill(sock, FRAMES)
    receiver, got = Receiver(sock), 0

    def work() -> None:
        nonlocal got
        while got < FRAMES:
            got += len(receiver.read())

    return _timed(work)


def _on_loop(sock: socket.socket, begin: Callable[[Callable[[int], None]], Callable[[], None]]) -> float:
    """CPU of a loop until all frames were given to a listener."""

    async def run() -> float:
        gc.collect()
        start = time.process_time()
        done, got = asyncio.get_running_loop().create_future(), 0

        def take(count: int) -> None:
            nonlocal got
            got += count
            if got >= FRAMES and not done.done():
                done.set_result(None)

        end = begin(take)
        async with asyncio.timeout(30):
            await done
        took = time.process_time() - start
        end()
        return took / FRAMES * 1e6

    _fill(sock, FRAMES)
    return asyncio.run(run())


def _own_loop(sock: socket.socket) -> float:
    def begin(take: Callable[[int], None]) -> Callable[[], None]:
        receiver, loop = Receiver(sock), asyncio.get_running_loop()
        loop.add_reader(sock, lambda: take(len(receiver.read())))

        def end() -> None:
            loop.remove_reader(sock)

        return end

    return _on_loop(sock, begin)


def _notifier(sock: socket.socket) -> float:
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    bus = _Bus(sock.dup())

    def begin(take: Callable[[int], None]) -> Callable[[], None]:
        notifier = can.Notifier(bus, [lambda _: take(1)], loop=asyncio.get_running_loop())
        return functools.partial(notifier.stop, 0)

    took = _on_loop(sock, begin)
    bus.shutdown()
    return took


def _recv(sock: socket.socket) -> float:
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    bus = _Bus(sock.dup())
    _fill(sock, FRAMES)

    def work() -> None:
        for _ in range(FRAMES):
            assert bus.recv(0) is not None

    took = _timed(work)
    bus.shutdown()
    return took


def _best(measure: Callable[[socket.socket], float]) -> float:
    """Median over rounds, each with a fresh socket without options of others."""
    took = []
    for _ in range(ROUNDS):
        with receiving_socket() as sock:
            took.append(measure(sock))
    return statistics.median(took)


def _receive(console: Console) -> None:
    table = Table(title=f"receiving {FRAMES} frames that wait, with kernel stamps; UDP stands in for CAN")
    for column in ("", "us/frame (CPU)", "Notifier is"):
        table.add_column(column, justify="left" if not column else "right")
    notifier = _best(_notifier)
    rows = [
        ("python-can Notifier on asyncio", notifier),
        ("python-can bus.recv(0)", _best(_recv)),
        ("hilgate, recvmmsg alone", _best(_own_bare)),
        ("hilgate, on the loop", _best(_own_loop)),
    ]
    for name, took in rows:
        table.add_row(name, f"{took:.2f}", f"{notifier / took:.1f} times")
    console.print(table)


def _decode(console: Console) -> None:
    with database_file() as path:
        message = load([path]).messages["Wheels"]
        found = cantools.database.load_string(DATABASE, "dbc")
        assert isinstance(found, cantools.database.can.Database)
        theirs = found.get_message_by_name("Wheels")
    ours = compile_decoder(message, {name: name for name in message.signals})
    payloads = [(n * 0x9E3779B97F4A7C15 & (1 << 64) - 1).to_bytes(8, "little") for n in range(FRAMES)]

    def through(decode: Callable[[bytes], Any]) -> float:
        return statistics.median(_timed(lambda: _each(decode, payloads)) for _ in range(ROUNDS))

    own, cantools_us = through(ours), through(theirs.decode)
    gatherer = Gatherer(256 * 1024, lambda _body, _time: None)
    frames = [Frame(1_763_806_246_123_456_789 + n, 0x100, data) for n, data in enumerate(payloads)]
    packed = statistics.median(_timed(lambda: gatherer.extend(frames)) for _ in range(ROUNDS))
    table = Table(title=f"a frame with {len(message.signals)} signals, one of them with labels")
    for column in ("", "us/frame", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("cantools decode", f"{cantools_us:.2f}", "1")
    table.add_row("hilgate decode", f"{own:.2f}", f"{own / cantools_us:.2f}")
    table.add_row("hilgate, as a pcap record", f"{packed:.2f}", "")
    console.print(table)


def _each(work: Callable[[bytes], Any], payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        work(payload)


def main() -> None:
    """Measures and prints."""
    console = Console()
    _receive(console)
    _decode(console)
