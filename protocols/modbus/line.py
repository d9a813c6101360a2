"""The transaction layer: one open line, the stations behind it, and whose request is next.

A line is a state machine on the event loop's callbacks, without tasks of its own: requests come in by
`Station.exchange`, bytes by the connection, and both end in `_pump`, which sends what may be sent.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import cast

from protocols.base import DriverError, Shared
from protocols.modbus.config import Connection, ModbusDevice, Rtu
from protocols.modbus.framing import Frame, FramingError
from protocols.modbus.station import Answer, Batch, Request, Station
from protocols.modbus.transport import name_of, open_transport
from protocols.modbus.wire import Wire, wire_for
from protocols.units import format_duration

_SILENT_TIMEOUTS = 3  # in a row without one byte received: a network connection is taken for dead
_FIRST_REST = 2  # timeouts in a row after which a station on a shared line is left alone for a while
_LONGEST_REST = 10  # times its timeout: a dead station takes at most a tenth of the line's time
_UNREACHED = (b"\x0a", b"\x0b")  # what a gateway says in place of a unit it does not reach
_LONGEST_NOISE = 0.5  # seconds for which a line that is never still holds requests back
_CLOSING = 1.0  # seconds for a peer to answer a close


class _Link(asyncio.Protocol):
    """One connection of a line. What an old one still says is not taken for the new one's."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._socket = transport.get_extra_info("socket")
        self._line.opened(self)

    def acknowledge(self) -> None:
        """Has the kernel acknowledge at once what came.

        A server with Nagle's algorithm holds its next answer back until then, 40 ms by default: with several
        requests under way nothing that we send carries the acknowledgement.
        """
        if self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def data_received(self, data: bytes) -> None:
        self._line.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the connection was lost: {exc}" if exc else "the peer closed the connection"
        self._line.gone(self, reason)


class Line:
    """One connection or serial port. Made by `join`; closed when its last station leaves."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.connection = connection
        self._folder = folder
        self.name = name_of(connection)
        self.stations: list[Station] = []
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._opening = asyncio.Lock()
        self._locks: dict[int, asyncio.Lock] = {}
        self._wire: Wire = wire_for(connection)
        self._link: _Link | None = None
        self._why_closed = f"{self.name} is not connected"
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._ring: deque[Station] = deque()
        self._flight: dict[int, Request] = {}
        self._depth = 1
        self._quiet_until = 0.0
        self._noise_since = 0.0
        self._silent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wake: asyncio.TimerHandle | None = None

    def lock(self, unit: int) -> asyncio.Lock:
        """Held over each write to the unit, so that none comes between a read-modify-write's two halves."""
        return self._locks.setdefault(unit, asyncio.Lock())

    def enter(self, device: ModbusDevice) -> Station:
        """A station for a device on this line."""
        station = Station(self, device)
        self.stations.append(station)
        self._set_depth()
        return station

    async def leave(self, station: Station) -> None:
        """Takes a station off the line, and closes it after the last one."""
        self.stations.remove(station)
        self._fail([station], "the device was closed")
        if self.stations:
            self._set_depth()
        elif self._link is not None:
            transport, lost = self._link.transport, self._lost
            transport.close()
            try:
                await asyncio.wait([lost], timeout=_CLOSING)
            finally:
                transport.abort()  # where the peer does not finish the shutdown

    async def open(self, connect_timeout: float, pause: float) -> None:
        """Opens the line, if it is not open already; `pause` seconds pass before the first request.

        Raises:
            DriverError: it cannot be opened; the text says why.
        """
        async with self._opening:
            if self._link is None:
                await open_transport(self.connection, connect_timeout, _Link(self), self._folder)
                self._quiet_until = self.now() + pause

    @property
    def is_open(self) -> bool:
        """Requests can be sent."""
        return self._link is not None

    async def lost(self) -> str:
        """Waits until the line is lost, and says why."""
        if self._link is None:
            return self._why_closed
        return await asyncio.shield(self._lost)

    # Requests.

    def batch(self, count: int) -> Batch:
        """A batch for requests that are about to be queued.

        Raises:
            DriverError: the line is not open.
        """
        if self._link is None:
            raise DriverError("disconnected", self._why_closed)
        return Batch(count, self._loop.create_future())

    def enqueue(self, station: Station) -> None:
        """Gives a station with queued requests its turn."""
        if station not in self._ring:
            self._ring.append(station)
        self._pump()

    def _pump(self) -> None:
        """Sends one request of each station in turn, as long as the line takes more."""
        if self._link is None or not self._ring or len(self._flight) >= self._depth:
            return
        now = self.now()
        if self._quiet_until > now:
            self._pump_at(self._quiet_until)
            return
        frames: list[bytes] = []
        ring, flight = self._ring, self._flight
        waiting = 0
        while waiting < len(ring) and len(flight) < self._depth:
            station = ring.popleft()
            if not station.queue:
                continue
            if station.not_before > now:
                ring.append(station)
                waiting += 1
                continue
            frames.append(self._begin(station, station.queue.popleft(), now))
            waiting = 0
            if station.queue:
                ring.append(station)
        if frames:
            self._link.transport.write(b"".join(frames) if len(frames) > 1 else frames[0])
        if waiting and waiting == len(ring):
            self._pump_at(min(station.not_before for station in ring))

    def _begin(self, station: Station, request: Request, now: float) -> bytes:
        key, frame = self._wire.begin(station.unit, request.pdu)
        request.deadline = now + station.timeout + self._wire.duration(frame, request.pdu)
        self._flight[key] = request
        if station.pause:
            station.not_before = now + station.pause
        if self._timer is None:
            self._timer = self._loop.call_at(request.deadline, self._expire)
        return frame

    def _pump_at(self, when: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_at(when, self._pump)

    def _set_depth(self) -> None:
        self._depth = 1 if self._wire.serial else min(station.depth for station in self.stations)

    # What the connection says.

    def opened(self, link: _Link) -> None:
        """Takes a new connection."""
        self._link = link
        self._wire = wire_for(self.connection)
        self._lost = self._loop.create_future()
        self._quiet_until = 0.0
        self._silent = 0
        for station in self.stations:
            station.failures, station.not_before, station.rest_until = 0, 0.0, 0.0
            station.answers = False

    def received(self, link: _Link, data: bytes) -> None:
        """Takes bytes from a connection."""
        if link is not self._link:
            return
        self._silent = 0
        try:
            frames = self._wire.feed(data)
        except FramingError as error:
            self._drop(str(error))
            return
        time_ns = time.time_ns()
        for frame in frames:
            request = self._flight.pop(frame.transaction, None)
            if request is not None:
                self._answered(frame, request, time_ns)
        if self._wire.serial:
            self._wait_for_silence()
        elif self._flight:
            link.acknowledge()
        self._pump()

    def _answered(self, frame: Frame, request: Request, time_ns: int) -> None:
        station = request.station
        self._wire.end(frame.transaction, answered=True)
        if station.pause:
            station.not_before = self.now() + station.pause
        if frame.unit != station.unit:
            text = f"unit {frame.unit} answered where unit {station.unit} of {self.name} was asked"
            request.batch.take(request.place, Answer(time_ns, error=DriverError("device-error", text)))
            return
        request.batch.take(request.place, Answer(time_ns, frame.pdu))
        if frame.pdu[0] & 0x80 and frame.pdu[1:] in _UNREACHED:
            text = f"unit {station.unit} did not answer the gateway {self.name} just before"
            self._unreached(station, Answer(time_ns, error=DriverError("timeout", text)))
            return
        station.answers = True
        station.failures = 0
        station.rest_until = 0.0

    def _wait_for_silence(self) -> None:
        now = self.now()
        if now > self._quiet_until:
            self._noise_since = now
        still = min(now, self._noise_since + _LONGEST_NOISE) + self._wire.silence
        self._quiet_until = max(self._quiet_until, still)

    def _expire(self) -> None:
        """Fails what is overdue. One timer serves all requests: it is set again for the next deadline."""
        self._timer = None
        now = self.now()
        overdue = [key for key, request in self._flight.items() if request.deadline <= now]
        usable = True
        for key in overdue:
            request = self._flight.pop(key)
            usable &= self._wire.end(key, answered=False)
            self._timed_out(request, now)
        if overdue and not isinstance(self.connection, Rtu):
            self._silent += 1
            # A station that is asked seldom must not lose its line for the silence of one that is dead.
            dead = not any(station.answers for station in self.stations)
            if (dead and self._silent >= _SILENT_TIMEOUTS) or not usable:
                self._drop("it does not answer any more")
                return
        if self._flight:
            self._timer = self._loop.call_at(min(r.deadline for r in self._flight.values()), self._expire)
        self._pump()

    def _timed_out(self, request: Request, now: float) -> None:
        station = request.station
        if self._wire.serial:
            # Without transactions an answer that is late would be taken for the next one's, so the station
            # is left alone for as long again, while the line drains.
            self._wait_for_silence()
            station.not_before = now + station.timeout
        if request.retries and not request.batch.done.cancelled():
            request.retries -= 1
            station.queue.appendleft(request)
            if station not in self._ring:
                self._ring.append(station)
            return
        text = f"unit {station.unit} of {self.name} did not answer in {format_duration(station.timeout)}"
        failed = Answer(time.time_ns(), error=DriverError("timeout", text))
        request.batch.take(request.place, failed)
        self._unreached(station, failed)

    def _unreached(self, station: Station, failed: Answer) -> None:
        """Fails what is queued behind a request that did not reach its unit, which may need a rest."""
        station.fail(failed, urgent_too=False)
        station.answers = False
        station.failures += 1
        if station.failures >= _FIRST_REST and len(self.stations) > 1:
            times = min(2 ** (station.failures - 1), _LONGEST_REST)
            station.rest_until = self.now() + times * station.timeout

    def gone(self, link: _Link, reason: str) -> None:
        """Fails all that is under way: the connection is no more."""
        if link is not self._link:
            return
        self._link = None
        for timer in (self._timer, self._wake):
            if timer is not None:
                timer.cancel()
        self._timer = self._wake = None
        under_way = list(self._flight.values())
        self._flight.clear()
        failed = self._failure(reason)
        for request in under_way:
            request.batch.take(request.place, failed)
        self._fail(self.stations, reason)
        self._why_closed = f"{self.name}: {reason}"
        self._lost.set_result(self._why_closed)

    def _drop(self, reason: str) -> None:
        link = self._link
        if link is not None:
            self.gone(link, f"the connection was given up: {reason}")
            link.transport.abort()

    def _failure(self, reason: str) -> Answer:
        return Answer(time.time_ns(), error=DriverError("disconnected", f"{self.name}: {reason}"))

    def _fail(self, stations: Sequence[Station], reason: str) -> None:
        failed = self._failure(reason)
        for station in stations:
            station.fail(failed, urgent_too=True)


def _key(connection: Connection) -> Hashable:
    return ("modbus", name_of(connection))


def _agree(one: Connection, other: Connection) -> bool:
    """Whether two connections of one line differ in the unit alone."""
    return one.model_copy(update={"unit": other.unit}) == other


def conflicts(devices: Mapping[str, ModbusDevice]) -> Mapping[str, str]:
    """Devices on a line that an earlier one uses with other settings. Pure."""
    first: dict[Hashable, str] = {}
    found = {}
    for name, device in devices.items():
        other = first.setdefault(_key(device.connection), name)
        if not _agree(devices[other].connection, device.connection):
            line = name_of(device.connection)
            found[name] = (
                f"device {other!r} uses {line} with other settings; on one line all but unit are equal"
            )
    return found


def join(device: ModbusDevice, shared: Shared) -> Station:
    """A station for a device, on the line that it shares with others or on a new one.

    Raises:
        DriverError: the line is in use with other settings.
    """
    key = _key(device.connection)
    line = shared.get(key)
    if line is None:
        line = shared[key] = Line(device.connection, device.folder)
    assert isinstance(line, Line)
    if not _agree(line.connection, device.connection):
        raise DriverError("disconnected", f"{line.name} is in use by another device with other settings")
    return line.enter(device)


async def part(station: Station, shared: Shared) -> None:
    """Takes a station off its line, and forgets the line after the last one."""
    line = station.line
    if line.stations == [station]:
        del shared[_key(line.connection)]
    await line.leave(station)
