"""Instruments that do what a test's script says, byte for byte, and drivers to meet them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from protocols.base import DeviceState, DriverError, Quality, Sample, Value
from protocols.text.config import TextDevice
from protocols.text.driver import TextDriver
from protocols.units import WRITTEN

PATIENCE_S = 30.0
IDENTITY = "ACME,PSU 60,0042,1.0"
SCPI: dict[str, Any] = {"identify": {"query": "*IDN?"}, "errors": {"query": "SYST:ERR?"}}
"""What most of these tests say of their instrument."""


class Gone(Exception):
    """The driver closed its end."""


class Peer:
    """One connection as the instrument sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._end = end
        self.heard: list[str] = []

    async def command(self) -> str:
        """The next command; ends the script when the driver has gone."""
        try:
            line = await self._reader.readuntil(self._end)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None
        text = line[: -len(self._end)].decode("latin-1")
        self.heard.append(text)
        return text

    def say(self, *texts: str) -> None:
        """Says lines."""
        for text in texts:
            self.send(text.encode("latin-1") + b"\n")

    def send(self, data: bytes) -> None:
        """Says bytes."""
        self._writer.write(data)

    def hang_up(self) -> None:
        """Closes the connection."""
        self._writer.close()

    async def expect(self, *steps: tuple[str, str | None]) -> None:
        """Commands in this order, each with what is said to it."""
        for wanted, said in steps:
            got = await self.command()
            assert got == wanted, f"{got!r} came, {wanted!r} was expected"
            if said is not None:
                self.say(said)

    async def introduce(self) -> None:
        """Answers what a driver with `SCPI` asks at connecting."""
        await self.expect(("*IDN?", IDENTITY), ("*IDN?", IDENTITY), ("SYST:ERR?", '0,"No error"'))

    async def serve(self, answers: Mapping[str, str | None]) -> None:
        """Answers from now on, as a table says."""
        while True:
            said = answers[await self.command()]
            if said is not None:
                self.say(said)


Script = Callable[[Peer], Awaitable[None]]


class Recorder:
    """A sink that keeps all it gets."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.cycles_missed = 0

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append((state, reason))

    def frames(self, body: bytes, time_ns: int) -> None:
        raise AssertionError("a text instrument has no frames")

    def missed(self, cycles: int, period: float) -> None:
        self.cycles_missed += cycles

    def lost(self, count: int, reason: str) -> None:
        raise AssertionError("nothing is lost here")

    async def kept(self) -> None:
        return

    def all_of(self, point: str) -> list[Value | Quality]:
        """What became of a point, in order."""
        both = [{**sample.values, **sample.bad} for sample in self.samples]
        return [one[point] for one in both if point in one]


@contextlib.asynccontextmanager
async def peer(script: Script, end: bytes = b"\n") -> AsyncIterator[dict[str, Any]]:
    """Runs the script for each connection, and raises what fails in it; gives a profile's `connection`."""
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer, end))
            while await reader.read(4096):
                pass
        except (Gone, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001  # raised again where the test sees it
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield {"transport": "tcp", "host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failures:
        raise failures[0]


def device(
    connection: Mapping[str, Any], points: Mapping[str, Any] | None = None, **fields: Any
) -> TextDevice:
    """A device of the name psu; by default of one point, `volts`, with the query VOLT?."""
    whole = {
        "protocol": "text",
        "connection": connection,
        "points": {"volts": {"query": "VOLT?"}} if points is None else points,
    }
    return TextDevice.model_validate(whole | fields, context=WRITTEN).named("psu")


@contextlib.asynccontextmanager
async def connected(made: TextDevice, shared: Any = None) -> AsyncIterator[TextDriver]:
    """A driver that has connected, and is closed afterwards."""
    driver = TextDriver(made, {} if shared is None else shared)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await driver.connect()
            yield driver
    finally:
        await driver.close()


@contextlib.asynccontextmanager
async def running(driver: TextDriver) -> AsyncIterator[Recorder]:
    """What a driver gives while it runs; that it was lost is no failure."""
    sink = Recorder()

    async def run() -> None:
        with contextlib.suppress(DriverError):
            await driver.run(sink)

    task = asyncio.create_task(run())
    try:
        yield sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
