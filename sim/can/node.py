"""A simulated node with a bus of its own: what it sends crosses the bus as any other node's frames do."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from protocols.base import DriverError
from protocols.can.bus import Bus, BusStatus, Filter, make_bus
from protocols.can.config import CanDevice, Connection, Replay
from protocols.can.filters import exactly
from protocols.can.frame import ERROR, OWN, REMOTE, Frame, format_id
from sim.can.answers import Answers
from sim.can.schedule import Schedule
from sim.can.traffic import Traffic

_TIMEOUT_S = 1.0
"""How long the bus may take to take a frame."""
_AGAIN_S = 1.0
"""After this a node whose bus was lost opens it again."""


class Node:
    """Sends, answers and follows for the devices of one bus. Implements `protocols.can.bus.Listener`."""

    def __init__(self, connection: Connection, devices: Sequence[CanDevice], begin: float) -> None:
        """Makes it; reads files that behaviours play. `begin`: when the simulation began, in the loop's time.

        Raises:
            pydantic.ValidationError: a `sim` section is wrong.
        """
        self.tried = asyncio.Event()
        """Set once the node is on the bus, or has said why not."""
        self._connection = connection
        self._begin = begin
        self._traffic = Traffic(devices)
        switches = connection.data_bitrate is not None
        self._answers = Answers([answer for one in devices for answer in one.simulation.answers], switches)
        self._replays = [
            (one.folder / replay.file, replay)
            for one in devices
            if (replay := one.simulation.replay) is not None
        ]
        self._schedule = Schedule(begin, (), begin)
        self._wake: asyncio.Future[None]
        self._failed: asyncio.Future[None]
        self._untaken: set[int] = set()
        self._log = structlog.get_logger("sim").bind(
            devices=[one.name for one in devices], bus=str(connection)
        )

    # -- Listener -------------------------------------------------------------------------------

    def frames(self, batch: Sequence[Frame]) -> None:
        """Takes what others sent."""
        now = asyncio.get_running_loop().time()
        try:
            for frame in batch:
                if not frame.flags & OWN and not frame.can_id & ERROR:
                    self._take(frame, now)
        except Exception as error:  # noqa: BLE001  # raised by `_serve`: it is the node's end, not the bus's
            if not self._failed.done():
                self._failed.set_exception(error)

    def dropped(self, count: int) -> None:
        """Says that the node missed frames."""
        self._log.warning("simulated node was too slow for its bus", missed=count)

    def status(self, status: BusStatus) -> None:
        """The state of a simulated bus is nobody's concern."""

    def _take(self, frame: Frame, now: float) -> None:
        if frame.can_id & REMOTE:
            answer = self._traffic.current(frame.can_id & ~REMOTE, now - self._begin)
            if answer is not None:
                self._soon(now, answer)
            return
        self._traffic.follow(frame, now - self._begin)
        for delay, response in self._answers.to(frame):
            self._soon(now + delay, response)

    def _soon(self, due: float, frame: Frame) -> None:
        sooner = due < self._schedule.due
        self._schedule.once(due, frame)
        if sooner:
            _rouse(self._wake)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until cancelled. What fails is logged, and tried again."""
        while True:
            try:
                await self._serve()
            except* DriverError as lost:
                self._log.warning("simulated node is off its bus", reason=str(lost.exceptions[0]))
            except* Exception as failed:  # noqa: BLE001  # a simulated node never ends the agent
                self._log.error("simulated node failed", exc_info=failed)
            self.tried.set()
            await asyncio.sleep(_AGAIN_S)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._wake, self._failed = loop.create_future(), loop.create_future()
        self._schedule = Schedule(self._begin, self._traffic.jobs(), loop.time())
        bus = make_bus(self._connection)
        try:
            await bus.open(self, self._filters())
            self.tried.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(bus))
                group.create_task(self._until_failed())
                group.create_task(self._send_due(bus))
                for path, replay in self._replays:
                    group.create_task(self._replay(bus, path, replay))
        finally:
            bus.close()

    def _filters(self) -> Sequence[Filter]:
        """Lets requests and what is followed pass, and remote frames of what is sent."""
        data = {*self._answers.requests, *self._traffic.followed}
        return [exactly(can_id) for can_id in (*data, *(can_id | REMOTE for can_id in self._traffic.sent))]

    async def _until_lost(self, bus: Bus) -> None:
        raise DriverError("disconnected", await bus.lost())

    async def _until_failed(self) -> None:
        await self._failed

    async def _send_due(self, bus: Bus) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Together: waiting for one echo after the other costs a switch of threads for each.
            await asyncio.gather(*(self._send(bus, frame) for frame in self._schedule.take(loop.time())))
            self._wake = wake = loop.create_future()
            timer = loop.call_at(self._schedule.due, _rouse, wake) if self._schedule.due < math.inf else None
            try:
                await wake
            finally:
                if timer is not None:
                    timer.cancel()

    async def _send(self, bus: Bus, frame: Frame) -> None:
        """Sends a frame. That the bus does not take one is said once, until it takes the next of that id."""
        try:
            await bus.send(frame, _TIMEOUT_S)
        except DriverError as error:
            if error.code == "disconnected":
                raise
            if frame.can_id not in self._untaken:
                self._untaken.add(frame.can_id)
                self._log.warning("simulated node cannot send", id=format_id(frame.can_id), reason=str(error))
        else:
            if frame.can_id in self._untaken:
                self._untaken.remove(frame.can_id)
                self._log.info("simulated node sends again", id=format_id(frame.can_id))

    async def _replay(self, bus: Bus, path: Path, replay: Replay) -> None:
        async def send(frame: Frame) -> None:
            # What the recording has of a message takes the place of what the node would make up.
            self._schedule.muted.add(frame.can_id)
            await self._send(bus, frame)

        from protocols.can.recordings.logs import read
        from protocols.can.recordings.player import play

        try:
            await play(read(path), send, speed=replay.speed, loop=replay.loop)
        except (OSError, ValueError) as error:
            self._log.error("simulated node plays no recording", reason=str(error))
        else:
            self._log.info("recording was played", file=str(path))


def _rouse(wake: asyncio.Future[None]) -> None:
    if not wake.done():
        wake.set_result(None)


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[None]:
    """Runs a node; entering waits until it is on its bus, or has said why not."""
    task = asyncio.create_task(node.run(), name="simulated node")
    try:
        await node.tried.wait()
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
