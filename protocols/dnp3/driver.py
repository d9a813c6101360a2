"""The DNP3 driver: the glue between an outstation's association, its master, its points and its commands."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from protocols.base import DriverError, Sample, Shared, Sink, Value
from protocols.dnp3.calls import carry_out
from protocols.dnp3.channel import join, part
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.fragment import Fragment
from protocols.dnp3.master import Master
from protocols.dnp3.operate import write
from protocols.dnp3.plan import name_of, ranges_of
from protocols.dnp3.readings import Readings
from protocols.dnp3.refusals import refusal
from protocols.dnp3.station import Station

_READ = 0x01
_LATE_S = 1.0
"""Seconds after which the outstation may wait for a confirmation no more, and send the events again."""
_HELD = 10_000
"""Samples of events that came before `run`, kept for it: they are confirmed once it has them."""


class Dnp3Driver:
    """One outstation, alone on its channel or one of several."""

    def __init__(self, device: Dnp3Device, shared: Shared) -> None:
        self._device = device
        self._shared = shared
        self._name = f"outstation {device.outstation} at {name_of(device.connection)}"
        self._readings = Readings(device)
        self._station: Station | None = None
        self._master: Master | None = None
        self._sink: Sink | None = None
        self._runs = asyncio.Event()
        self._held: list[Sample] = []
        self._unheld = 0
        self._said_uncalled = False

    def _linked(self) -> tuple[Station, Master]:
        if self._station is None or self._master is None:
            raise DriverError("disconnected", f"{self._name} is not connected")
        return self._station, self._master

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Opens the channel, unless another outstation's driver has, and sees whether this one answers.

        A listening end that nobody called in time says so, and at the next attempt waits until it is called.

        Raises:
            DriverError: the channel cannot be opened, or the outstation does not answer.
        """
        device = self._device
        if self._station is None:
            self._station = join(device, self._shared)
            self._station.deliver = self._take
            self._station.kept = self._kept
        # Said once: a channel that was closed until the next attempt would turn callers away.
        for_ever, self._said_uncalled = self._said_uncalled, False
        try:
            await self._station.channel.open(device.connect_timeout, for_ever=for_ever)
        except DriverError as error:
            self._said_uncalled = error.code == "timeout"
            raise
        self._readings.connection_lost()
        self._master = Master(device, self._station, self._readings.connection_lost)
        try:
            await self._master.begin()
        except DriverError as error:
            if error.code != "timeout":
                raise
            hint = f"are {device.outstation} and {device.master} the link addresses of outstation and master?"
            raise DriverError("timeout", f"{error}; {hint}") from error

    async def run(self, sink: Sink) -> None:
        """Polls and takes what is reported, until cancelled.

        Raises:
            DriverError: the channel was lost.
        """
        _, master = self._linked()
        self._sink = sink
        try:
            self._hand_over(sink)
            self._runs.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(), name=f"{self._device.name}: watch channel")
                group.create_task(master.run(sink), name=f"{self._device.name}: master")
        except* DriverError as lost:
            reason = str(lost.exceptions[0])
        finally:
            self._sink = None
            self._runs.clear()
        raise DriverError("disconnected", reason)

    async def _until_lost(self) -> None:
        station, _ = self._linked()
        raise DriverError("disconnected", await station.channel.lost())

    async def _kept(self) -> None:
        """Returns when the outstation may forget the events that were taken: they are in the store."""
        now = asyncio.get_running_loop().time
        began = now()
        while self._sink is None:
            await self._runs.wait()
        await self._sink.kept()
        if now() - began > _LATE_S:
            self._readings.connection_lost()

    def _take(self, fragment: Fragment) -> None:
        """Takes a response fragment."""
        for sample in self._readings.take(fragment):
            if self._sink is not None:
                self._sink.sample(sample)
            elif len(self._held) < _HELD:
                self._held.append(sample)
            else:
                self._unheld += 1
        if self._master is not None:
            self._master.saw(fragment, self._readings.undecoded)

    def _hand_over(self, sink: Sink) -> None:
        for sample in self._held:
            sink.sample(sample)
        if self._unheld:
            sink.lost(self._unheld, "receive-overflow")
        self._held, self._unheld = [], 0

    def rest(self) -> None:
        """Nothing that a master sets going goes on by itself: pulses end in the outstation."""

    async def close(self) -> None:
        """Leaves the channel, which closes after its last outstation."""
        station, self._station, self._master = self._station, None, None
        if station is not None:
            await part(station, self._shared)

    # -- commands -------------------------------------------------------------------------------

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads present values now.

        Raises:
            DriverError: not one point could be read.
        """
        station, _ = self._linked()
        ranges = ranges_of([self._device.points[name] for name in points])
        reply = await station.ask(_READ, b"".join(one.header() for one in ranges))
        refused = refusal(reply.iin)
        sample = self._readings.answer(reply.blocks, points, reply.time_ns, refused=bool(refused))
        if not sample.values and len(sample.bad) == len(points) and (refused or not reply.blocks):
            why = refused or reply.problem or "the response was empty"
            raise DriverError("device-error", f"{self._name} did not give {', '.join(points)}: {why}")
        return sample

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Operates outputs, and says what they were set to. A control whose answer is lost is not repeated.

        Raises:
            DriverError: not all were operated, or a feedback point did not follow.
        """
        station, _ = self._linked()
        return await write(self._device, station, values, self.read)

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of `PROTOCOL.methods`.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the outstation said no or did not answer.
        """
        station, master = self._linked()
        return await carry_out(method, args, self._device, station, master)
