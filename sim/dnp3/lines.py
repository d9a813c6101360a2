"""The lines that simulated outstations are on: TCP and TLS on loopback, called or calling, and ptys."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
import tty
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple, cast

from protocols.dnp3.config import Dnp3Device, Serial, Tcp, Tls
from sim.dnp3.line import Line
from sim.dnp3.outstation import SimulatedOutstation
from sim.dnp3.session import CONFIRM_TIMEOUT_S, Session
from sim.tls import HOST, certificates

_AGAIN_S: Final = 0.2
"""After this an outstation that calls, and was not answered, calls again."""
_UNREAD: Final = 65536
"""Octets that are kept while nobody reads a serial line; then they are lost, as on a real one."""


class Served(NamedTuple):
    """Simulated outstations that run, by the names of their devices."""

    devices: Mapping[str, Dnp3Device]
    """As they were given, with connections to what runs."""
    outstations: Mapping[str, SimulatedOutstation]
    lines: Mapping[str, Line]


@asynccontextmanager
async def simulated(devices: Mapping[str, Dnp3Device]) -> AsyncIterator[Mapping[str, Dnp3Device]]:
    """Runs all devices, those on one channel together, and gives them with connections to what runs.

    Raises (on entering):
        OSError: no port or pty could be had, or TLS is wanted and the package `trustme` is missing.
        pydantic.ValidationError: a `sim` section is wrong.
        ValueError: a point of flags begins with one that there is not.
    """
    async with serving(devices) as served:
        yield served.devices


@asynccontextmanager
async def serving(
    devices: Mapping[str, Dnp3Device],
    now: Callable[[], int] | None = None,
    confirm_timeout: float = CONFIRM_TIMEOUT_S,
) -> AsyncIterator[Served]:
    """As `simulated`, for tests: gives the outstations as well, to look at and to disturb.

    `now`: their clock, milliseconds UTC; `confirm_timeout`: seconds, always of real time.
    """
    clock = now or _clock()
    moved: dict[str, Dnp3Device] = {}
    sessions: dict[str, Session] = {}
    lines: dict[str, Line] = {}
    monotonic = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        for members in _channels(devices).values():
            for name, device in members.items():
                # In a thread, because behaviours may read files.
                outstation = await asyncio.to_thread(SimulatedOutstation, device, clock)
                sessions[name] = Session(outstation, monotonic, confirm_timeout)
            line = Line([sessions[name] for name in members])
            update = await stack.enter_async_context(_serve(next(iter(members.values())), line))
            await stack.enter_async_context(line.running())
            for name, device in members.items():
                connection = device.connection.model_copy(update=update)
                moved[name] = device.model_copy(update={"connection": connection})
                lines[name] = line
        yield Served(
            {name: moved[name] for name in devices},
            {name: sessions[name].outstation for name in devices},
            {name: lines[name] for name in devices},
        )


def _clock() -> Callable[[], int]:
    """UTC in milliseconds, which never steps."""
    begin = time.time_ns() - time.monotonic_ns()
    return lambda: (begin + time.monotonic_ns()) // 1_000_000


def _channels(devices: Mapping[str, Dnp3Device]) -> Mapping[tuple[Any, ...], dict[str, Dnp3Device]]:
    """Devices by the channel that they share."""
    channels: dict[tuple[Any, ...], dict[str, Dnp3Device]] = {}
    for name, device in devices.items():
        where = device.connection
        key = (where.transport, None if isinstance(where, Serial) else where.host, where.port)
        channels.setdefault(key, {})[name] = device
    return channels


def _serve(device: Dnp3Device, line: Line) -> AbstractAsyncContextManager[Mapping[str, Any]]:
    """Serves a channel such as this device's; gives what changes in the connections of its devices."""
    if isinstance(device.connection, Serial):
        return _serial(line)
    return (
        _calling(device.name, device.connection, line)
        if device.connection.role == "listen"
        else _listener(device.name, device.connection, line)
    )


class _Connection(asyncio.Protocol):
    """One connection of a line over TCP or TLS."""

    def __init__(self, line: Line, open_ones: set["_Connection"]) -> None:
        self._line = line
        self._open = open_ones
        self._transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._open.add(self)
        self._line.opened(self, self._transport.write, self._transport.close)

    def data_received(self, data: bytes) -> None:
        self._line.received(self, data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._line.closed(self)
        self.closed.set_result(None)

    def abort(self) -> None:
        self._transport.abort()


@asynccontextmanager
async def _connections() -> AsyncIterator[set[_Connection]]:
    """A set of connections that are all closed at the end."""
    connections: set[_Connection] = set()
    try:
        yield connections
    finally:
        ends = [connection.closed for connection in connections]
        for connection in list(connections):
            connection.abort()
        await asyncio.gather(*ends)


@asynccontextmanager
async def _listener(name: str, connection: Tcp | Tls, line: Line) -> AsyncIterator[Mapping[str, Any]]:
    loop = asyncio.get_running_loop()
    with _security(name, connection) as (context, update):
        async with _connections() as connections:
            # Started inside `try`: create_server loses what it has opened if it is cancelled while it starts.
            server = await loop.create_server(
                lambda: _Connection(line, connections), HOST, 0, ssl=context, start_serving=False
            )
            try:
                await server.start_serving()
                yield {"host": HOST, "port": server.sockets[0].getsockname()[1], **update}
            finally:
                server.close()


@asynccontextmanager
async def _calling(name: str, connection: Tcp | Tls, line: Line) -> AsyncIterator[Mapping[str, Any]]:
    """Calls the agent, again and again, at a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    with _security(name, connection) as (context, update):
        async with _connections() as connections:
            task = asyncio.create_task(_call(port, context, line, connections), name=f"{name} calls")
            try:
                yield {"host": HOST, "port": port, "accept_from": (), **update}
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _call(port: int, context: ssl.SSLContext | None, line: Line, connections: set[_Connection]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(OSError):  # nobody listens yet, or no more
            _, made = await loop.create_connection(
                lambda: _Connection(line, connections), HOST, port, ssl=context
            )
            await asyncio.shield(made.closed)
        await asyncio.sleep(_AGAIN_S)


@contextmanager
def _security(name: str, connection: Tcp | Tls) -> Iterator[tuple[ssl.SSLContext | None, Mapping[str, Any]]]:
    """TLS where the profile has it; the agent gets a certificate where its profile has one."""
    if isinstance(connection, Tcp):
        yield None, {}
        return
    calls = connection.role == "listen"
    with certificates(name, mutual=calls or connection.cert is not None, calls=calls) as made:
        yield made


@asynccontextmanager
async def _serial(line: Line) -> AsyncIterator[Mapping[str, Any]]:
    loop = asyncio.get_running_loop()
    ours, theirs = os.openpty()
    unsent = bytearray()

    def readable() -> None:
        line.received(line, os.read(ours, 4096))

    def write(data: bytes) -> None:
        if len(unsent) + len(data) <= _UNREAD:
            unsent.extend(data)
            flush()

    def flush() -> None:
        with contextlib.suppress(BlockingIOError):
            del unsent[: os.write(ours, unsent)]
        if unsent:
            loop.add_writer(ours, flush)
        else:
            loop.remove_writer(ours)

    try:
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        loop.add_reader(ours, readable)
        line.opened(line, write, lambda: None)
        # `theirs` stays open, so that clients may come and go.
        yield {"port": os.ttyname(theirs), "parity": "none"}  # a pty knows no parity
    finally:
        line.closed(line)
        loop.remove_reader(ours)
        loop.remove_writer(ours)
        os.close(ours)
        os.close(theirs)
