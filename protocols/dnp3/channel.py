"""An open line with outstations behind it, which take turns: one exchange at a time."""

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import cast

from protocols.base import DriverError, Shared
from protocols.dnp3.config import Connection, Dnp3Device, Serial, Tls
from protocols.dnp3.fragment import NotSent
from protocols.dnp3.link import FrameReader
from protocols.dnp3.plan import channel_key, name_of
from protocols.dnp3.station import Station
from protocols.listener import Listener
from protocols.transport import connect, listen, open_serial
from protocols.units import format_duration

_SILENT_TIMEOUTS = 3  # in a row without one octet received: a network connection is taken for dead
_FIRST_REST = 2  # timeouts in a row after which an outstation on a shared channel is left alone for a while
_LONGEST_REST = 10  # times its timeout: a dead outstation takes at most a tenth of the channel's time
_CLOSING = 1.0  # seconds for a peer to answer a close


class _Link(asyncio.Protocol):
    """One connection of a channel. What an old one still says is not taken for the new one's."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._channel.opened(self)

    def data_received(self, data: bytes) -> None:
        self._channel.received(self, data)

    def pause_writing(self) -> None:
        # Requests and confirmations are small: so much is unsent only where replies to a flood are not read.
        # Later, because this is called from within `write`.
        asyncio.get_running_loop().call_soon(self._channel.unread, self)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the connection was lost: {exc}" if exc else "the outstation closed the connection"
        self._channel.gone(self, reason)


class Channel:
    """One connection or serial port. Made by `join`; closed when its last station leaves."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.connection = connection
        self._folder = folder
        self.name = name_of(connection)
        self.stations: dict[int, Station] = {}
        self._loop = asyncio.get_running_loop()
        self.turn = asyncio.Lock()
        """Held over each exchange; who waits for it gets it in the order of asking."""
        self._opening = asyncio.Lock()
        self._server: Listener | None = None
        self._called = asyncio.Event()
        self._link: _Link | None = None
        self._reader = FrameReader()
        self._why_closed = f"{self.name} is not connected"
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._silent = 0

    def enter(self, device: Dnp3Device) -> Station:
        """A station for an outstation on this channel.

        Raises:
            DriverError: another device is this outstation.
        """
        if device.outstation in self.stations:
            text = f"outstation {device.outstation} of {self.name} is in use by another device"
            raise DriverError("disconnected", text)
        station = self.stations[device.outstation] = Station(self, device)
        if self._link is not None:
            station.connected()
        return station

    async def leave(self, station: Station) -> None:
        """Takes a station off the channel, and closes it after the last one."""
        del self.stations[station.address]
        station.disconnected(f"{station.name}: the device was closed")
        if self.stations:
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._link is not None:
            transport, lost = self._link.transport, self._lost
            transport.close()
            try:
                await asyncio.wait([lost], timeout=_CLOSING)
            finally:
                transport.abort()  # where the peer does not finish the shutdown

    async def open(self, connect_timeout: float, *, for_ever: bool = False) -> None:
        """Opens the channel, if it is not open already; a listening end waits to be called.

        `for_ever`: it waits without limit.

        Raises:
            DriverError: it cannot be opened; the text says why.
        """
        async with self._opening:
            if self._link is not None:
                return
            if isinstance(self.connection, Serial):
                open_serial(self.connection, _Link(self), extra="dnp3")
                return
            host, port = self.connection.host, self.connection.port
            tls = self.connection if isinstance(self.connection, Tls) else None
            if self.connection.role == "connect":
                await connect(host, port, connect_timeout, _Link(self), tls, self._folder)
                return
            if self._server is None:
                self._server = await listen(host, port, lambda: _Link(self), tls, self._folder)
        try:
            async with asyncio.timeout(None if for_ever else connect_timeout):
                await self._called.wait()
        except TimeoutError:
            text = f"the outstation has not called {self.name} in {format_duration(connect_timeout)}"
            raise DriverError("timeout", text) from None

    @property
    def is_open(self) -> bool:
        """Requests can be sent."""
        return self._link is not None

    async def lost(self) -> str:
        """Waits until the channel is lost, and says why."""
        if self._link is None:
            return self._why_closed
        return await asyncio.shield(self._lost)

    # Requests.

    def send(self, station: Station, octets: bytes) -> None:
        """Sends octets of a station.

        Raises:
            NotSent: the channel is not open.
        """
        if self._link is None:
            raise NotSent("disconnected", self._why_closed)
        if self.stations.get(station.address) is not station:
            raise NotSent("disconnected", f"{station.name}: the device was closed")
        self._link.transport.write(octets)

    def unanswered(self, station: Station, *, link_lost: bool = False) -> None:
        """A station did not answer in time: gives the connection up, or lets the station rest.

        `link_lost`: what it did not answer was whether it lives.
        """
        if not isinstance(self.connection, Serial):
            self._silent += 1
        # An outstation that is asked seldom must not lose its channel for the silence of one that is dead.
        dead = not any(one.answers for one in self.stations.values())
        if dead and (link_lost or self._silent >= _SILENT_TIMEOUTS):
            self._drop("it does not answer any more")
        elif station.failures >= _FIRST_REST and len(self.stations) > 1:
            station.rest(min(2 ** (station.failures - 1), _LONGEST_REST) * station.timeout)

    # What the connection says.

    def opened(self, link: _Link) -> None:
        """Takes a new connection; a call replaces the one before, which its outstation has forgotten."""
        if not self.stations or not self._welcome(link):
            link.transport.abort()
            return
        self._drop("the outstation has called again")
        self._link = link
        self._called.set()
        self._reader = FrameReader()
        self._lost = self._loop.create_future()
        self._silent = 0
        for station in self.stations.values():
            station.connected()

    def _welcome(self, link: _Link) -> bool:
        if isinstance(self.connection, Serial):
            return True
        allowed = self.connection.accept_from
        caller = link.transport.get_extra_info("peername")
        if not allowed or (caller is not None and str(ipaddress.ip_address(caller[0])) in allowed):
            return True
        self._count("caller not in accept_from", 1)
        return False

    def _count(self, reason: str, times: int) -> None:
        """Counts what names no outstation, for each of them."""
        for station in self.stations.values():
            station.dropped[reason] += times

    def received(self, link: _Link, data: bytes) -> None:
        """Takes octets from a connection."""
        if link is not self._link:
            return
        self._silent = 0
        time_ns = time.time_ns()
        frames = self._reader.feed(data)
        if self._reader.dropped:
            for reason, times in self._reader.dropped.items():
                self._count(reason, times)
            self._reader.dropped.clear()
        for frame in frames:
            station = self.stations.get(frame.source)
            if station is None:
                self._count("unknown source", 1)
            elif reply := station.take(frame, time_ns):
                link.transport.write(reply)

    def gone(self, link: _Link, reason: str) -> None:
        """Fails all that is under way: the connection is no more."""
        if link is not self._link:
            return
        self._link = None
        self._called.clear()
        self._why_closed = f"{self.name}: {reason}"
        for station in self.stations.values():
            station.disconnected(self._why_closed)
        self._lost.set_result(self._why_closed)

    def unread(self, link: _Link) -> None:
        """Gives a connection up whose peer sends and does not read: what waits for it would grow for ever."""
        if link is self._link:
            self._drop("the outstation does not read what is sent to it")

    def _drop(self, reason: str) -> None:
        link = self._link
        if link is not None:
            self.gone(link, f"the connection was given up: {reason}")
            link.transport.abort()


def join(device: Dnp3Device, shared: Shared) -> Station:
    """A station for a device, on the channel that it shares with others or on a new one.

    Raises:
        DriverError: the channel is in use with other settings.
    """
    key = channel_key(device.connection)
    channel = shared.get(key)
    if channel is None:
        channel = shared[key] = Channel(device.connection, device.folder)
    assert isinstance(channel, Channel)
    if channel.connection != device.connection:
        text = f"{channel.name} is in use by another device with other settings"
        raise DriverError("disconnected", text)
    return channel.enter(device)


async def part(station: Station, shared: Shared) -> None:
    """Takes a station off its channel, and forgets the channel after the last one."""
    channel = station.channel
    if list(channel.stations.values()) == [station]:
        del shared[channel_key(channel.connection)]
    await channel.leave(station)
