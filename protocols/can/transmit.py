"""Writes signals: which frame they make with the other signals of their message, and how it goes out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from protocols.base import DriverError, Value
from protocols.can.bus import Periodic
from protocols.can.config import CanDevice
from protocols.can.frame import BRS, FDF, OWN, Frame, format_id
from protocols.can.router import Route, Router
from protocols.can.signals.packer import Packer


class Sending(Protocol):
    """How frames get onto the bus."""

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        """Sends a frame; returns it as the bus took it."""

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        """Sends frames in turn until stopped."""

    async def next_frame(self, can_id: int, wanted: Callable[[Frame], bool]) -> Frame:
        """The next data frame of this identifier that is wanted."""


async def until_taken(bus: Sending, frames: Sequence[Frame], go: Callable[[], None], timeout: float) -> None:
    """Does what sends one of these frames, and returns once the bus took it.

    Raises:
        DriverError: what `go` raised, or `timeout` where the bus took none in so many seconds.
    """
    payloads = {frame.data for frame in frames}

    def is_ours(frame: Frame) -> bool:
        return bool(frame.flags & OWN) and frame.data in payloads

    taken = asyncio.create_task(bus.next_frame(frames[0].can_id, is_ours))
    try:
        await asyncio.sleep(0)  # so that it watches before anything is sent
        go()
        async with asyncio.timeout(timeout):
            await taken
    except TimeoutError as error:
        name = format_id(frames[0].can_id)
        text = f"the bus did not take {name} within {timeout:g} s: does anybody acknowledge it?"
        raise DriverError("timeout", text) from error
    finally:
        taken.cancel()


class _Outgoing:
    """One message that is written: how it is packed, and what of it goes on by itself."""

    def __init__(self, route: Route, device: CanDevice) -> None:
        self.route = route
        self.lock = asyncio.Lock()
        self.settings = device.settings_of(route.message.name)
        self.cycle = self.settings.cycle or route.message.cycle
        self.packer = Packer(route.message, device)
        self.periodic: Periodic | None = None
        self.flags = 0
        if route.message.fd:
            self.flags = FDF | (BRS if device.connection.data_bitrate else 0)

    def frames(self, values: Mapping[str, Value]) -> list[Frame]:
        """The frame with these points written, or all that follow from it where a counter runs."""
        can_id = self.route.message.can_id
        if self.settings.send == "cyclic":
            payloads = self.packer.round(self.route.payload, values)
        else:
            payloads = [self.packer.next(self.route.payload, values)]
        return [Frame(0, can_id, payload, self.flags) for payload in payloads]

    def go_on(self, bus: Sending, frames: Sequence[Frame]) -> None:
        """Sends these frames in turn from now on, instead of those before."""
        assert self.cycle is not None  # the profile was checked for it
        if self.periodic is None:
            self.periodic = bus.periodic(frames, self.cycle)
        else:
            self.periodic.update(frames)

    def stop(self) -> None:
        """Sends nothing any more by itself."""
        if self.periodic is not None:
            self.periodic.stop()
            self.periodic = None


class Transmitter:
    """All messages that points are written in."""

    def __init__(self, device: CanDevice, router: Router, bus: Sending) -> None:
        self._device = device
        self._bus = bus
        self._outgoing = {
            route.message.name: _Outgoing(route, device) for route in router.routes.values() if route.sent
        }

    async def write(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Writes points, one frame for each message; returns what they then are.

        Raises:
            DriverError: not all were written; its `written` holds those that were.
        """
        written: dict[str, Value] = {}
        for message, group in self._grouped(values).items():
            outgoing = self._outgoing[message]
            async with outgoing.lock:
                try:
                    await self._write(outgoing, group)
                except DriverError as error:
                    raise DriverError(error.code, str(error), written) from error
            for name, value in group.items():
                written[name] = self._device.points[name].meaning(value)
        return written

    def _grouped(self, values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
        groups: dict[str, dict[str, Value]] = {}
        for name, value in values.items():
            message, _ = self._device.points[name].bound
            groups.setdefault(message.name, {})[name] = value
        return groups

    async def _write(self, outgoing: _Outgoing, values: Mapping[str, Value]) -> None:
        frames = outgoing.frames(values)
        if outgoing.settings.send == "write":
            await self._bus.send(frames[0])
            return
        started = outgoing.periodic is None
        timeout = self._device.timeout + (outgoing.cycle or 0.0)
        try:
            await until_taken(self._bus, frames, lambda: outgoing.go_on(self._bus, frames), timeout)
        except DriverError as error:
            if not started:
                raise DriverError(error.code, f"{error}; it is still sent each cycle") from error
            outgoing.stop()
            raise

    def stop(self) -> None:
        """Sends nothing any more by itself; with the next write it begins again."""
        for outgoing in self._outgoing.values():
            outgoing.stop()
