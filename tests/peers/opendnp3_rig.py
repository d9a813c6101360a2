"""Our driver and opendnp3's outstation on one line, and opendnp3's master and our simulated outstation."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from opendnp3_peer import Line, Peer, free_port, peer, serial_pair
from scripted import Heard, running

from protocols.base import DriverError, Sample
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.driver import Dnp3Driver
from sim.dnp3.line import Line as SimulatedLine
from sim.dnp3.lines import serving
from sim.dnp3.outstation import SimulatedOutstation

T = TypeVar("T")

OUTSTATION, MASTER = 10, 1
PATIENCE_S = 30.0
TRANSPORTS = ("tcp", "listen", "tls", "serial")
"""Kinds of lines; `listen` is TCP where the outstation calls."""

NOISELESS: dict[str, Any] = {"unsolicited": []}
"""A device of which nothing is reported unless asked for."""


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
        told = {"outstation": OUTSTATION, "master": MASTER, **(outstation or {})}
        # opendnp3 may pass over a request that crosses its unsolicited response: none, where none is wanted.
        told.setdefault("unsolicited", fields.get("unsolicited") != [])
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


class Watched(NamedTuple):
    """Our simulated outstation, and opendnp3's master that has read it once."""

    master: Peer
    outstation: SimulatedOutstation
    line: SimulatedLine
    clock: "Clock"

    async def until(self, true: Callable[[], T], what: str) -> T:
        """Waits for something to be true of the outstation."""
        end = time.monotonic() + PATIENCE_S
        while not (result := true()):
            assert time.monotonic() < end, f"waited for {what}; opendnp3 said last: {self.master.said[-6:]}"
            await asyncio.sleep(0.01)
        return result


class Clock:
    """UTC in milliseconds, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


class SimulatedRig:
    """Makes pairs of a simulated outstation and opendnp3's master, on lines of one kind."""

    def __init__(self, transport: str) -> None:
        self._transport = transport

    def _connection(self) -> dict[str, Any]:
        if self._transport == "serial":
            return {"transport": "serial", "port": "/dev/ttyUSB0", "baudrate": 115200}
        transport = "tls" if self._transport == "tls" else "tcp"
        connection = {"transport": transport, "host": "outstation.example", "port": 20000}
        if self._transport == "tls":
            connection["cert"] = "agent.pem"
        if self._transport == "listen":
            connection["role"] = "listen"
        return connection

    @contextlib.asynccontextmanager
    async def pair(
        self, points: Mapping[str, Any], master: Mapping[str, Any] | None = None, **fields: Any
    ) -> AsyncIterator[Watched]:
        """Both ends, after the master's start, unless its `waits` is false."""
        told = {"outstation": OUTSTATION, "master": MASTER} | dict(master or {})
        waits = told.pop("waits", True)
        fields.setdefault("simulation", {}).setdefault("need_time", False)
        configured = device(self._connection(), points, **fields)
        clock = Clock()
        async with serving({"bay": configured}, clock) as served:
            line = _told(served.devices["bay"])
            async with peer("master", line, **told) as asking:
                if waits:
                    await asking.until_said("task", type="ENABLE_UNSOLICITED", result="SUCCESS")
                yield Watched(asking, served.outstations["bay"], served.lines["bay"], clock)


def _told(configured: Dnp3Device) -> Line:
    """The line as opendnp3's master is told."""
    connection = configured.connection
    if connection.transport == "serial":
        return {"transport": "serial", "port": connection.port, "baudrate": connection.baudrate}
    line = {"transport": connection.transport, "role": connection.role, "host": "127.0.0.1"}
    if connection.transport == "tls":
        files = {"ca": connection.ca, "cert": connection.cert, "key": connection.cert}
        return {**line, **files, "port": connection.port}
    return {**line, "port": connection.port}
