"""The transaction layer: one open line, the devices on it, and whose command is next.

One command is under way at a time. Bytes come by the connection's callbacks and go into the reply that is
waited for; what comes unasked goes to the devices' reports. After anything that leaves an answer outstanding
the line is left silent, and what comes meanwhile is dropped: an answer that is late is nobody's.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from protocols.base import DriverError, Shared
from protocols.text.config import TextDevice
from protocols.text.framing import Framing, Garbled, Reply, Want
from protocols.text.opening import open_line
from protocols.text.plan import disagreement, key_of, name_of
from protocols.units import format_duration

_SILENT_TIMEOUTS = 3  # in a row without one byte received: a network connection is taken for dead
_LONGEST_NOISE = 10  # times the silence that is waited for: then the line is given up
_CLOSING = 1.0  # seconds for a peer to answer a close
_LOOK = 0.005  # seconds between looks whether a line that was begun unasked has its end
_BITS = 10  # of a character on a serial line

_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""So that half a minute's end of a network is noticed where lines only come unasked."""


class Listener(Protocol):
    """A device on the line."""

    device: TextDevice
    framing: Framing
    dropped: Counter[str]
    """Lines that were not taken, by reason."""
    stale: bool
    """An answer of it may still be under way."""

    def heard(self, text: str, time_ns: int) -> bool:
        """Takes a line that came unasked; False: it is none of its reports."""


class _Link(asyncio.Protocol):
    """One connection of a line. What an old one still says is not taken for the new one's."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        if (connection := transport.get_extra_info("socket")) is not None:
            for level, option, value in _KEEP_ALIVE:
                connection.setsockopt(level, option, value)
        self._line.opened(self)

    def data_received(self, data: bytes) -> None:
        self._line.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the connection was lost: {exc}" if exc else "the peer closed the connection"
        self._line.gone(self, reason)


class Line:
    """One connection or serial port. Made by `join`; closed when its last device leaves."""

    def __init__(self, device: TextDevice) -> None:
        self.device = device
        self.name = name_of(device.connection)
        self.members: list[Listener] = []
        self.turn = asyncio.Lock()
        """Held by whoever has the line for one or several commands."""
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._opening = asyncio.Lock()
        self._link: _Link | None = None
        self._why_closed = f"{self.name} is not connected"
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._buffer = bytearray()
        self._reply: Reply | None = None
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._ending: asyncio.TimerHandle | None = None
        self._silence = 0.0
        self._hushed = False
        self._quiet_until = 0.0
        self._not_before = 0.0
        self._silent = 0
        self.heard_ns = 0

    async def open(self, connect_timeout: float) -> None:
        """Opens the line, if it is not open already.

        Raises:
            DriverError: it cannot be opened; the text says why.
        """
        async with self._opening:
            if self._link is None:
                await open_line(self.device.connection, connect_timeout, _Link(self))

    async def leave(self, member: Listener) -> None:
        """Takes a device off the line, and closes it after the last one."""
        self.members.remove(member)
        if self.members or self._link is None:
            return
        transport, lost = self._link.transport, self._lost
        transport.close()
        try:
            await asyncio.wait([lost], timeout=_CLOSING)
        finally:
            transport.abort()  # where the peer does not finish the shutdown

    async def lost(self) -> str:
        """Waits until the line is lost, and says why."""
        if self._link is None:
            return self._why_closed
        return await asyncio.shield(self._lost)

    @property
    def is_open(self) -> bool:
        """Commands can be sent."""
        return self._link is not None

    # Commands.

    async def exchange(self, member: Listener, sent: bytes, want: Want, timeout: float) -> tuple[Reply, int]:
        """Sends a command and waits for what it is answered with; gives that, and when it came (UTC, ns).

        The caller holds `turn`. Unless the whole answer came, the member is stale afterwards.

        Raises:
            DriverError: `timeout`, `disconnected`, or `device-error`: what came cannot be the answer.
        """
        await self._quiet()
        link = self._open_link()
        reply = Reply(member.framing, sent, want)
        link.transport.write(sent)
        self._not_before = self.now() + member.device.pause
        if reply.complete:
            return reply, time.time_ns()
        with self._waiting(reply, member):
            try:
                async with asyncio.timeout(timeout + self._wire_time(sent)):
                    await self._done
            except TimeoutError:
                self._no_answer(member, sent, timeout)
            except Garbled as error:
                raise DriverError("device-error", f"{self.name}: {error}") from None
            finally:
                self._not_before = self.now() + member.device.pause
        return reply, self.heard_ns

    @contextmanager
    def _waiting(self, reply: Reply, member: Listener) -> Iterator[None]:
        """Bytes go to this reply. However it ends without being whole, an answer may still come."""
        self._reply, self._done = reply, self._loop.create_future()
        self._silence = member.device.silence
        try:
            yield
        except BaseException:
            member.stale = True
            self.hush(member.device.silence)
            raise
        finally:
            self._reply = None
            self._cancel_ending()
            for line in reply.aside:
                self._unasked(line, "not-the-answer")

    def _no_answer(self, member: Listener, sent: bytes, timeout: float) -> None:
        self._silent += 1
        if self._silent >= _SILENT_TIMEOUTS and self.device.connection.transport != "serial":
            self.drop("it does not answer any more")
        asked = sent[: -len(member.framing.write_terminator)]
        text = f"{self.name} did not answer {asked[:60].decode('latin-1')!r} in {format_duration(timeout)}"
        raise DriverError("timeout", text) from None

    async def clear(self, member: Listener, sent: bytes) -> None:
        """Sends bytes that have no answer, and leaves the line silent after them; the caller holds `turn`.

        Raises:
            DriverError: the line is not open, or never still.
        """
        await self._quiet()
        self._open_link().transport.write(sent)
        self.hush(member.device.silence)

    def hush(self, silence: float) -> None:
        """Leaves the line alone until so many seconds have passed without a byte."""
        self._silence = silence
        self._hushed = True
        self._quiet_until = self.now() + silence

    async def _quiet(self) -> None:
        """Waits until a command may be sent: nothing is under way on the line, or begun unasked."""
        began = self.now()
        while True:
            self._open_link()
            now = self.now()
            wait = max(self._quiet_until, self._not_before) - now
            if wait > 0 and now - began > _LONGEST_NOISE * max(self._silence, self.device.pause):
                self.drop("it is never silent, so that no answer can be told from what comes unasked")
                continue
            if wait <= 0:
                if not self._buffer:
                    break
                if self._hushed:
                    self._count("unfinished")
                    self._buffer.clear()
                    break
                wait = _LOOK  # a line has begun unasked: its rest is not to be taken for the answer
                if now - began > self.device.silence:
                    self.hush(self.device.silence)
            await asyncio.sleep(wait)
        self._hushed = False

    def _wire_time(self, sent: bytes) -> float:
        baudrate = getattr(self.device.connection, "baudrate", None)
        return 0.0 if baudrate is None else len(sent) * _BITS / baudrate

    def _open_link(self) -> _Link:
        if self._link is None:
            raise DriverError("disconnected", self._why_closed)
        return self._link

    # What the connection says.

    def opened(self, link: _Link) -> None:
        """Takes a new connection."""
        self._link = link
        self._lost = self._loop.create_future()
        self._buffer.clear()
        self._quiet_until = self._not_before = 0.0
        self._hushed = False
        self._silent = 0

    def received(self, link: _Link, data: bytes) -> None:
        """Takes bytes from a connection."""
        if link is not self._link:
            return
        self._silent = 0
        self.heard_ns = time.time_ns()
        self._buffer += data
        if self._hushed and self._quiet_until > self.now():
            self._quiet_until = self.now() + self._silence
        self._cancel_ending()
        if (reply := self._reply) is not None and not self._done.done():
            try:
                if reply.take(self._buffer):
                    self._done.set_result(None)
                elif reply.open_ended:
                    self._ending = self._loop.call_later(self._silence, self._ended, reply)
            except Garbled as error:
                self._done.set_exception(error)
        if self._reply is None or self._done.done():
            self._idle()

    def _ended(self, reply: Reply) -> None:
        if reply is self._reply and not self._done.done():
            reply.end(self._buffer)
            self._done.set_result(None)

    def _cancel_ending(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _idle(self) -> None:
        """Takes lines that nobody asked for: reports, and answers that are late."""
        if not self.members:
            self._buffer.clear()
            return
        framing = self.members[0].framing
        while True:
            try:
                line = framing.cut(self._buffer)
            except Garbled:
                self._count("too-long")
                return
            if line is None:
                if framing.prompt is not None and self._buffer.startswith(framing.prompt):
                    del self._buffer[: len(framing.prompt)]
                    continue
                if not self._buffer.strip(b"\r\n"):
                    self._buffer.clear()  # the rest of an end of line that is longer than the terminator
                return
            try:
                text = framing.text(line)
            except Garbled:
                self._count("garbled")
                continue
            if text:
                self._unasked(text, "late" if self._quiet_until > self.now() else "unexpected")

    def _unasked(self, text: str, reason: str) -> None:
        for member in self.members:
            own = member.framing.own(text)
            if own is not None and member.heard(own, self.heard_ns):
                return
        self._count(reason)
        if reason == "unexpected":
            # An answer too many: from here on each might be taken for the next command's.
            for member in self.members:
                member.stale = True

    def _count(self, reason: str) -> None:
        for member in self.members:
            member.dropped[reason] += 1

    def gone(self, link: _Link, reason: str) -> None:
        """Fails what is under way: the connection is no more."""
        if link is not self._link:
            return
        self._link = None
        self._cancel_ending()
        self._why_closed = f"{self.name}: {reason}"
        if not self._done.done():
            self._done.set_exception(DriverError("disconnected", self._why_closed))
            self._done.exception()  # nobody may be waiting
        self._lost.set_result(self._why_closed)

    def drop(self, reason: str) -> None:
        """Gives the connection up."""
        link = self._link
        if link is not None:
            self.gone(link, f"the connection was given up: {reason}")
            link.transport.abort()


def join(member: Listener, shared: Shared) -> Line:
    """The line of a device, which it shares with others or has for itself.

    Raises:
        DriverError: the line is in use in another way.
    """
    device = member.device
    key = key_of(device.connection)
    line = shared.get(key)
    if line is None:
        line = shared[key] = Line(device)
    assert isinstance(line, Line)
    for other in line.members:
        if (why := disagreement(other.device, device)) is not None:
            raise DriverError("disconnected", f"{line.name} is in use by another device {why}")
    line.members.append(member)
    return line


async def part(line: Line, member: Listener, shared: Shared) -> None:
    """Takes a device off its line, and forgets the line after the last one."""
    if line.members == [member]:
        del shared[key_of(line.device.connection)]
    await line.leave(member)
