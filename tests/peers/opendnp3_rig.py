"""Our driver and opendnp3's outstation on one line, and opendnp3's master and our simulated outstation."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from opendnp3_peer import Line, Peer, free_port, peer, serial_pair
from scripted import Heard, running

from protocols.base import DriverError, Sample
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.driver import Dnp3Driver

OUTSTATION, MASTER = 10, 1
PATIENCE_S = 30.0
TRANSPORTS = ("tcp", "listen", "tls", "serial")
"""Kinds of lines; `listen` is TCP where the outstation calls."""


class Files(NamedTuple):
    """A certificate for loopback, used by both ends of TLS, and the authority that signed it."""

    ca: str
    cert: str
    key: str


class Both(NamedTuple):
    """One line as each end has it: a profile's `connection`, and what opendnp3 is told."""

    ours: dict[str, Any]
    theirs: Line


class Lines:
    """Lines between us and opendnp3, of one kind."""

    def __init__(self, transport: str, files: Files, folder: Path) -> None:
        self._transport = transport
        self._files = files
        self._folder = folder

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Both]:
        """A line whose master is ours: it connects, unless the kind is `listen`."""
        if self._transport == "serial":
            async with serial_pair(self._folder) as (ours, theirs):
                baudrate = 115200
                yield Both(
                    {"transport": "serial", "port": ours, "baudrate": baudrate},
                    {"transport": "serial", "port": theirs, "baudrate": baudrate},
                )
            return
        end: dict[str, Any] = {"transport": "tcp", "host": "127.0.0.1", "port": free_port()}
        if self._transport == "tls":
            end |= {"transport": "tls", **self._files._asdict()}
        roles = ("listen", "connect") if self._transport == "listen" else ("connect", "listen")
        yield Both({**end, "role": roles[0]}, {**end, "role": roles[1]})


class Pair(NamedTuple):
    """Our driver, connected and running, and the outstation behind it."""

    driver: Dnp3Driver
    heard: Heard
    outstation: Peer

    async def call(self, method: str, **args: Any) -> Any:
        return await self.driver.call(method, args)

    async def until_value(self, point: str, value: Any) -> Sample:
        """Waits for a sample in which a point has a value."""
        found: list[Sample] = []

        def came() -> bool:
            found[:] = [one for one in self.heard.samples if one.values.get(point) == value]
            return bool(found)

        try:
            await self.heard.until(came)
        except TimeoutError:
            said = [one.values.get(point, one.bad.get(point)) for one in self.heard.samples]
            raise AssertionError(
                f"{point} was never {value!r} but {said[-8:]}; {self.heard.states}"
            ) from None
        return found[0]

    async def until(self, true: Callable[[], object], what: str) -> None:
        """Waits for something to be true of what the driver said."""
        try:
            await self.heard.until(true)
        except TimeoutError:
            heard = self.heard
            text = f"waited for {what}; {heard.states}, {heard.losses}, {heard.samples[-3:]}"
            raise AssertionError(text) from None


def device(connection: Mapping[str, Any], points: Mapping[str, Any], **fields: Any) -> Dnp3Device:
    """Polls nothing by itself but what the start asks for, unless told otherwise."""
    never = {"class_1": "never", "class_2": "never", "class_3": "never", "integrity": "never"}
    whole = {
        "protocol": "dnp3",
        "connection": connection,
        "outstation": OUTSTATION,
        "master": MASTER,
        "points": points,
        "polls": never,
        "timeout": 10.0,
        "connect_timeout": 10.0,
    }
    return Dnp3Device.model_validate(whole | fields).named("bay")


async def connect(driver: Dnp3Driver) -> None:
    """Connects, again and again as the agent does, until the outstation is there."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await driver.connect()
        except DriverError:
            if time.monotonic() > end:
                raise


class Rig:
    """Makes pairs on lines of one kind."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    @contextlib.asynccontextmanager
    async def pair(
        self, points: Mapping[str, Any], outstation: Mapping[str, Any] | None = None, **fields: Any
    ) -> AsyncIterator[Pair]:
        """Both ends, after everything was read once."""
        told = {"outstation": OUTSTATION, "master": MASTER} | dict(outstation or {})
        async with self.lines.line() as line, peer("outstation", line.theirs, **told) as far:
            driver = Dnp3Driver(device(line.ours, points, **fields), {})
            try:
                await connect(driver)
                async with running(driver) as heard:
                    pair = Pair(driver, heard, far)
                    await pair.until(lambda: _names(heard) >= set(points), "the first integrity poll")
                    yield pair
            finally:
                await driver.close()


def _names(heard: Heard) -> set[str]:
    return {name for sample in heard.samples for name in (*sample.values, *sample.bad)}
