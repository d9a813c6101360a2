"""The lines that simulated units answer on: TCP and TLS listeners on loopback, and ptys for serial ports."""

import asyncio
import os
import ssl
import tty
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, cast

from protocols.modbus.config import ModbusDevice
from protocols.modbus.framing import Frame, FramingError, MbapFramer, RtuRequestFramer, mbap, rtu
from sim.modbus.unit import SimulatedUnit
from sim.tls import HOST, certificates

_BROADCAST = 0
_SILENCE = 0.05
"""Seconds: far above 3.5 characters at any baud rate, and above what a busy host may stretch a write to."""

Units = Mapping[int, SimulatedUnit]


@asynccontextmanager
async def simulated(devices: Mapping[str, ModbusDevice]) -> AsyncIterator[Mapping[str, ModbusDevice]]:
    """Runs all devices, those on one line together, and gives them with connections to what runs.

    Raises (on entering):
        OSError: no port or pty could be had, or TLS is wanted and the package `trustme` is missing.
        pydantic.ValidationError: a `sim` section is wrong.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    moved: dict[str, ModbusDevice] = {}
    async with AsyncExitStack() as stack:
        for members in _lines(devices).values():
            # In a thread, because behaviours may read files.
            units = await asyncio.to_thread(_units, list(members.values()), lambda: loop.time() - begin)
            update = await stack.enter_async_context(_serve(next(iter(members.values())), units))
            for name, device in members.items():
                connection = device.connection.model_copy(update=update)
                moved[name] = device.model_copy(update={"connection": connection})
        yield {name: moved[name] for name in devices}


def _lines(devices: Mapping[str, ModbusDevice]) -> Mapping[tuple[Any, ...], dict[str, ModbusDevice]]:
    """Devices by the line that they share."""
    lines: dict[tuple[Any, ...], dict[str, ModbusDevice]] = {}
    for name, device in devices.items():
        where = device.connection
        key = (where.transport, None if where.transport == "rtu" else where.host, where.port)
        lines.setdefault(key, {})[name] = device
    return lines


def _units(devices: Sequence[ModbusDevice], now: Callable[[], float]) -> Units:
    members: dict[int, list[ModbusDevice]] = {}
    for device in devices:
        members.setdefault(device.connection.unit, []).append(device)
    return {unit: SimulatedUnit(described, now) for unit, described in members.items()}


def _answer(units: Units, frame: Frame) -> bytes | None:
    """The answer PDU; None of a unit that is not there, and to a broadcast, which every unit carries out."""
    if frame.unit in units:
        return units[frame.unit].answer(frame.pdu)
    if frame.unit == _BROADCAST:
        for unit in units.values():
            unit.answer(frame.pdu)
    return None


def _mbap_answer(frame: Frame, answer: bytes) -> bytes:
    return mbap(frame.transaction, frame.unit, answer)


def _rtu_answer(frame: Frame, answer: bytes) -> bytes:
    return rtu(frame.unit, answer)


class _Conversation:
    """Requests in, answers out, in order, on one connection."""

    def __init__(self, units: Units, over_rtu: bool) -> None:
        self._units = units
        self._framer: MbapFramer | RtuRequestFramer = RtuRequestFramer() if over_rtu else MbapFramer()
        self._frame_answer = _rtu_answer if over_rtu else _mbap_answer

    def answers(self, data: bytes) -> bytes:
        """The answers to the requests that these bytes complete.

        Raises:
            FramingError: the stream cannot be followed any further.
        """
        answers = ((frame, _answer(self._units, frame)) for frame in self._framer.feed(data))
        return b"".join(self._frame_answer(frame, answer) for frame, answer in answers if answer is not None)

    def silence(self) -> None:
        """The line was still, which on RTU ends a frame."""
        if isinstance(self._framer, RtuRequestFramer):
            self._framer.silence()


class _Connection(asyncio.Protocol):
    """One client of a TCP or TLS listener."""

    def __init__(self, conversation: _Conversation, open_ones: set["_Connection"]) -> None:
        self._conversation = conversation
        self._open = open_ones
        self._transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        try:
            self._transport.write(self._conversation.answers(data))
        except FramingError:
            self._transport.close()  # what a server does with a stream it has lost

    # A client that does not read its answers is not read from either.

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self.closed.set_result(None)

    def abort(self) -> None:
        self._transport.abort()


def _serve(device: ModbusDevice, units: Units) -> AbstractAsyncContextManager[Mapping[str, Any]]:
    """Serves a line such as this device's; gives what changes in the connections of its devices."""
    if device.connection.transport == "rtu":
        return _serial(units)
    return _listener(device, units)


@asynccontextmanager
async def _listener(device: ModbusDevice, units: Units) -> AsyncIterator[Mapping[str, Any]]:
    connections: set[_Connection] = set()
    over_rtu = device.connection.transport == "rtu-tcp"
    loop = asyncio.get_running_loop()
    with _security(device) as (context, update):
        # Started inside `try`: create_server loses what it has opened if it is cancelled while it starts.
        server = await loop.create_server(
            lambda: _Connection(_Conversation(units, over_rtu), connections),
            HOST,
            0,
            ssl=context,
            start_serving=False,
        )
        try:
            await server.start_serving()
            yield {"host": HOST, "port": server.sockets[0].getsockname()[1], **update}
        finally:
            server.close()
            ends = [connection.closed for connection in connections]
            for connection in list(connections):
                connection.abort()
            await asyncio.gather(*ends)


@contextmanager
def _security(device: ModbusDevice) -> Iterator[tuple[ssl.SSLContext | None, Mapping[str, Any]]]:
    """TLS where the profile has it; the client gets a certificate where its profile has one."""
    if device.connection.transport != "tls":
        yield None, {}
        return
    with certificates(device.name, mutual=device.connection.cert is not None) as made:
        yield made


@asynccontextmanager
async def _serial(units: Units) -> AsyncIterator[Mapping[str, Any]]:
    conversation = _Conversation(units, over_rtu=True)
    loop = asyncio.get_running_loop()
    ours, theirs = os.openpty()
    heard = loop.time()

    def readable() -> None:
        nonlocal heard
        if loop.time() - heard > _SILENCE:
            conversation.silence()
        heard = loop.time()
        answers = conversation.answers(os.read(ours, 4096))
        try:
            os.write(ours, answers)
        except BlockingIOError:
            pass  # nobody reads: on a serial line without flow control the bytes are lost

    try:
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        loop.add_reader(ours, readable)
        # `theirs` stays open, so that clients may come and go.
        yield {"port": os.ttyname(theirs), "parity": "none"}  # a pty knows no parity
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
