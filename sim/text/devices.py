"""The lines that simulated instruments answer on: TCP listeners on loopback, and ptys for serial ports.

A port behind RFC 2217 is simulated as a TCP listener: its Telnet is the serial server's.
"""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from protocols.text.blocks import BlockError, definite, head
from protocols.text.checksums import ChecksumError
from protocols.text.config import Rfc2217, Serial, Tcp, TextDevice
from protocols.text.plan import key_of
from sim.text.instrument import SimulatedInstrument
from sim.tls import HOST

_LONGEST = 1024 * 1024
"""Bytes of a command: what is longer is dropped."""
_LOOK = 0.05
"""Seconds between looks whether an instrument has something to report."""


@asynccontextmanager
async def simulated(devices: Mapping[str, TextDevice]) -> AsyncIterator[Mapping[str, TextDevice]]:
    """Runs all devices, those on one line together, and gives them with connections to what runs.

    Raises (on entering):
        OSError: no port or pty could be had.
        pydantic.ValidationError: a `sim` section is wrong, or an answer does not follow from its pattern.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    lines: dict[Any, dict[str, TextDevice]] = {}
    for name, device in devices.items():
        lines.setdefault(key_of(device.connection), {})[name] = device
    moved: dict[str, TextDevice] = {}
    async with AsyncExitStack() as stack:
        for members in lines.values():
            # In a thread, because behaviours may read files.
            wires = await asyncio.to_thread(
                lambda given: [_Wire(one, lambda: loop.time() - begin) for one in given], [*members.values()]
            )
            serial = isinstance(next(iter(members.values())).connection, Serial)
            update = await stack.enter_async_context(_pty(wires) if serial else _listener(wires))
            for name, device in members.items():
                connection = device.connection
                if isinstance(connection, Rfc2217):
                    connection = Tcp(transport="tcp", host=HOST)
                connection = connection.model_copy(update=update)
                moved[name] = device.model_copy(update={"connection": connection})
        yield {name: moved[name] for name in devices}


class _Wire:
    """One instrument as its lines are: with prefix, checksum and terminator."""

    def __init__(self, device: TextDevice, now: Callable[[], float]) -> None:
        self.device = device
        self.instrument = SimulatedInstrument(device, now)
        self.end = (device.write_terminator or device.terminator).encode()
        self._blocks = any(point.block is not None and point.writable for point in device.points.values())
        checksum = device.checksum
        self._sums_commands = checksum is not None and checksum.on != "answers"
        self._sums_answers = checksum is not None and checksum.on != "commands"

    def cut(self, buffer: bytearray) -> bytes | None:
        """Takes a command off the buffer, with its terminator; None while there is none."""
        start = 0
        if self._blocks and (place := buffer.find(b"#")) >= 0 and buffer.find(self.end, 0, place) < 0:
            try:
                found = head(buffer[place:], _LONGEST)
            except BlockError:
                found = None
            if found is not None and found.length is not None:
                start = place + found.start + found.length
        place = buffer.find(self.end, start)
        if place < 0:
            if len(buffer) > 2 * _LONGEST:
                buffer.clear()
            return None
        line = bytes(buffer[: place + len(self.end)])
        del buffer[: place + len(self.end)]
        return line

    def answer(self, line: bytes) -> bytes | None:
        """What the instrument sends back for a command; None: it is for another one."""
        device = self.device
        text, block = self._read(line[: -len(self.end)])
        if text is None or not text.startswith(device.prefix):
            return None
        sent = line if device.echo else b""
        said = self.instrument.answer(text[len(device.prefix) :], block)
        if isinstance(said, bytes):
            sent += definite(said) + device.terminator.encode()
        elif said is not None:
            sent += self.line(said)
        return sent + (device.prompt or "").encode(device.encoding)

    def _read(self, line: bytes) -> tuple[str | None, bytes | None]:
        """A command's text, and the block that is a NUL in it."""
        block = None
        place = line.find(b"#")
        if self._blocks and place >= 0:
            try:
                found = head(line[place:], _LONGEST)
            except BlockError:
                found = None
            if found is not None and found.length is not None:
                start, end = place + found.start, place + found.start + found.length
                line, block = line[:place] + b"\0" + line[end:], line[start:end]
        try:
            if self._sums_commands and self.device.checksum is not None:
                line = self.device.checksum.strip(line)
            return line.decode(self.device.encoding), block
        except (ChecksumError, UnicodeDecodeError):
            return None, None  # what a line spoils is not answered

    def line(self, text: str) -> bytes:
        """A line that the instrument says."""
        body = (self.device.answer_prefix + text).encode(self.device.encoding, "replace")
        if self._sums_answers and self.device.checksum is not None:
            body = self.device.checksum.add(body)
        return body + self.device.terminator.encode()

    def reports(self) -> bytes:
        """What the instrument has to say unasked."""
        return b"".join(self.line(text) for text in self.instrument.reports())


class _Conversation:
    """Commands in, answers out, in order, on one connection."""

    def __init__(self, wires: Sequence[_Wire]) -> None:
        self._wires = wires
        self._buffer = bytearray()

    def answers(self, data: bytes) -> Iterator[bytes]:
        """What is sent back for the commands that these bytes complete."""
        self._buffer += data
        while (line := self._wires[0].cut(self._buffer)) is not None:
            for wire in self._wires:
                if (answer := wire.answer(line)) is not None:
                    yield answer
                    break


class _Connection(asyncio.Protocol):
    """One client of a TCP listener."""

    def __init__(self, wires: Sequence[_Wire], open_ones: set["_Connection"]) -> None:
        self._conversation = _Conversation(wires)
        self._open = open_ones
        self.transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        for answer in self._conversation.answers(data):
            self.transport.write(answer)

    # A client that does not read its answers is not read from either.

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self.closed.set_result(None)


@asynccontextmanager
async def _reporting(wires: Sequence[_Wire], say: Callable[[bytes], None]) -> AsyncIterator[None]:
    """Says what the instruments report by themselves, while inside."""

    async def look() -> None:
        while True:
            await asyncio.sleep(_LOOK)
            for wire in wires:
                if line := wire.reports():
                    say(line)

    reports = any(point.report for wire in wires for point in wire.device.points.values())
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look(), name="simulated reports") if reports else None
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()


@asynccontextmanager
async def _listener(wires: Sequence[_Wire]) -> AsyncIterator[Mapping[str, Any]]:
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()

    def say(line: bytes) -> None:
        for connection in connections:
            connection.transport.write(line)

    # Started inside `try`: create_server loses what it has opened if it is cancelled while it starts.
    server = await loop.create_server(lambda: _Connection(wires, connections), HOST, 0, start_serving=False)
    try:
        await server.start_serving()
        async with _reporting(wires, say):
            yield {"host": HOST, "port": server.sockets[0].getsockname()[1]}
    finally:
        server.close()
        ends = [connection.closed for connection in connections]
        for connection in list(connections):
            connection.transport.abort()
        await asyncio.gather(*ends)


@asynccontextmanager
async def _pty(wires: Sequence[_Wire]) -> AsyncIterator[Mapping[str, Any]]:
    conversation = _Conversation(wires)
    loop = asyncio.get_running_loop()
    ours, theirs = os.openpty()

    def say(data: bytes) -> None:
        try:
            os.write(ours, data)
        except BlockingIOError:
            pass  # nobody reads: on a serial line without flow control the bytes are lost

    def readable() -> None:
        for answer in conversation.answers(os.read(ours, 4096)):
            say(answer)

    try:
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        loop.add_reader(ours, readable)
        # `theirs` stays open, so that clients may come and go.
        async with _reporting(wires, say):
            yield {"port": os.ttyname(theirs), "parity": "none", "bytesize": 8}  # a pty knows no parity
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
