"""Modbus devices that do what a test's script says, byte for byte, and drivers to meet them."""

import asyncio
import contextlib
import os
import ssl
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from protocols.base import DeviceState, Driver, Quality, Sample, Value
from protocols.modbus import pdu
from protocols.modbus.config import ModbusDevice
from protocols.modbus.driver import ModbusDriver
from protocols.modbus.framing import Frame, MbapFramer, RtuRequestFramer, mbap, rtu

PATIENCE_S = 20.0
TIMEOUT_S = 0.4  # long enough for a busy machine, short enough to wait for
UNIT = 7
POINTS: dict[str, Any] = {
    "a": {"table": "holding", "address": 0},
    "b": {"table": "holding", "address": 100},
}


class Peer:
    """One connection as the device sees it."""

    def __init__(self, reader: asyncio.StreamReader, write: Callable[[bytes], object], rtu_: bool) -> None:
        self._reader = reader
        self._framer = RtuRequestFramer() if rtu_ else MbapFramer()
        self._frames: list[Frame] = []
        self._rtu = rtu_
        self.send = write

    async def request(self) -> Frame:
        """The next request; ends the script when the driver has gone."""
        while not self._frames:
            data = await self._reader.read(4096)
            if not data:
                raise Gone
            self._frames = list(self._framer.feed(data))
        return self._frames.pop(0)

    async def ignore(self) -> None:
        """Reads on and says nothing."""
        while await self._reader.read(4096):
            pass

    def frame(self, request: Frame, body: bytes) -> bytes:
        """A frame that answers a request."""
        return rtu(request.unit, body) if self._rtu else mbap(request.transaction, request.unit, body)

    def answer(self, request: Frame) -> None:
        """Answers a read with registers that hold their own addresses."""
        self.send(self.frame(request, right_answer(request.pdu)))

    async def answer_next(self, count: int = 1) -> None:
        """Answers so many requests as a device should."""
        for _ in range(count):
            self.answer(await self.request())


class Gone(Exception):
    """The driver closed the connection."""


def right_answer(request: bytes) -> bytes:
    """Each register holds its own address."""
    read = pdu.parse(request)
    assert isinstance(read, pdu.Read)
    data = b"".join((read.start + n & 0xFFFF).to_bytes(2) for n in range(read.count))
    return pdu.read_answer(read.function, data)


Script = Callable[[Peer], Awaitable[None]]


async def always_right(peer: Peer) -> None:
    """Each register holds its own address, whatever is asked."""
    while True:
        await peer.answer_next()


def recorded(seen: list[bytes], lacking: tuple[int, ...] = ()) -> Any:
    """A device that takes every request it does not lack, and keeps them."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request.pdu)
            function = request.pdu[0]
            if function in lacking:
                peer.send(peer.frame(request, pdu.exception_answer(function, 1)))
            elif function in (1, 2, 3, 4):
                peer.answer(request)
            else:
                peer.send(peer.frame(request, pdu.write_answer(request.pdu)))

    return script


@contextlib.asynccontextmanager
async def tcp_device(
    script: Script, *, rtu_frames: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Runs a script for each connection; gives the `connection` of a profile."""
    failures: list[BaseException] = []
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await script(Peer(reader, writer.write, rtu_frames))
        except (Gone, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001  # told to the test below
            failures.append(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    transport = "tls" if tls else "rtu-tcp" if rtu_frames else "tcp"
    async with server:
        yield {"transport": transport, "host": host, "port": port, "unit": UNIT}
        late = {task for task in serving if not task.done()}
        if late:
            _, late = await asyncio.wait(late, timeout=PATIENCE_S)
        assert not late, "the driver left a connection open"
    if failures:
        raise failures[0]


@contextlib.asynccontextmanager
async def serial_device(script: Script) -> AsyncIterator[dict[str, Any]]:
    """Runs a script behind a pseudo terminal."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    os.set_blocking(ours, False)
    loop.add_reader(ours, lambda: reader.feed_data(os.read(ours, 4096)))
    task = asyncio.ensure_future(script(Peer(reader, lambda data: os.write(ours, data), True)))
    try:
        yield {"transport": "rtu", "port": os.ttyname(theirs), "unit": UNIT, "baudrate": 115200}
        if task.done():
            task.result()
    finally:
        loop.remove_reader(ours)
        task.cancel()
        await asyncio.wait([task])
        os.close(ours)
        os.close(theirs)


def device(connection: Mapping[str, Any], **fields: Any) -> ModbusDevice:
    """A device with two holding registers, unless said otherwise."""
    whole = {"protocol": "modbus", "connection": connection, "address_base": 0, "points": POINTS}
    return ModbusDevice.model_validate(whole | {"timeout": TIMEOUT_S, "gap": 0} | fields).named("plc")


@contextlib.asynccontextmanager
async def connected(
    connection: Mapping[str, Any], shared: dict[Any, Any] | None = None, **fields: Any
) -> AsyncIterator[ModbusDriver]:
    """A driver that has connected; whatever happens, it ends in time and is closed."""
    driver = ModbusDriver(device(connection, **fields), {} if shared is None else shared)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await driver.connect()
            yield driver
    finally:
        await driver.close()


class Heard:
    """A sink that keeps what it is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.run: asyncio.Task[None]
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.missed_cycles = 0
        self.bodies: list[tuple[bytes, int]] = []
        self.losses: list[tuple[int, str]] = []
        self._news = asyncio.Event()

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._news.set()

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append((state, reason))
        self._news.set()

    async def kept(self) -> None:
        pass

    def missed(self, cycles: int, period: float) -> None:
        self.missed_cycles += cycles
        self._news.set()

    def frames(self, body: bytes, time_ns: int) -> None:
        self.bodies.append((body, time_ns))
        self._news.set()

    def lost(self, count: int, reason: str) -> None:
        self.losses.append((count, reason))
        self._news.set()

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._news.clear()
                await self._news.wait()


def said(samples: Sequence[Sample]) -> tuple[dict[str, Value], dict[str, Quality]]:
    """All values and qualities of samples that do not contradict each other, however they were divided."""
    values: dict[str, Value] = {}
    bad: dict[str, Quality] = {}
    for sample in samples:
        values.update(sample.values)
        bad.update(sample.bad)
    for sample in samples:
        assert sample.values.items() <= values.items()
        assert not sample.values.keys() & bad.keys()
    return values, bad


@contextlib.asynccontextmanager
async def running(driver: Driver, sink: Heard | None = None) -> AsyncIterator[Heard]:
    """What a driver's `run` says, while it runs."""
    heard = sink or Heard()
    heard.run = asyncio.create_task(driver.run(heard))
    try:
        yield heard
    finally:
        heard.run.cancel()
        await asyncio.wait([heard.run])
