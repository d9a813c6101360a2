"""The CAN driver: I/O only. What frames mean comes from `router`, what is sent from `transmit`."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

from protocols.base import DeviceState, DriverError, Sample, Sink, Value
from protocols.can.bus import BusState, BusStatus, Filter, Periodic, make_bus
from protocols.can.calls import Calls
from protocols.can.config import CanDevice
from protocols.can.figures import Figures
from protocols.can.filters import between, exactly
from protocols.can.frame import Frame
from protocols.can.recordings.recording import Recording
from protocols.can.router import Route, Router
from protocols.can.transmit import Transmitter
from protocols.can.view import FramesView

_TROUBLE = {
    BusState.PASSIVE: "the controller is error passive: check bit rate, termination and wiring",
    BusState.BUS_OFF: "the controller is bus-off: it takes no part in the bus until it is restarted",
    BusState.STOPPED: "the controller is stopped",
}
_TICK_S = 0.001
_LOOK_S = 1.0
"""How often the controller is looked at: not every change of its state is told."""


class CanDriver:
    """One CAN bus: a `Listener` of its bus, and an `Exchange` for conversations on it."""

    def __init__(self, device: CanDevice) -> None:
        self._device = device
        self._bus = make_bus(device.connection)
        self._router = Router(device)
        self._transmitter = Transmitter(device, self._router, self)
        self._figures = Figures(device, self._bus)
        self._calls = Calls(device.connection, device.timeout, self)
        self._subscribers: dict[int, list[Callable[[Frame], None]]] = {}
        self._awaited: set[asyncio.Future[Frame]] = set()
        self._sink: Sink | None = None
        self._view: FramesView | None = None
        self._silent = False
        self._recording = Recording(device, self._recording_changed, self._lose)

    # -- Listener -------------------------------------------------------------------------------

    def frames(self, batch: Sequence[Frame]) -> None:
        """Takes frames from the bus."""
        if self._view is not None:
            self._view.take(batch)
        if self._recording.active:
            self._recording.frames(batch)
        if self._router.routes:
            self._router.take(batch, asyncio.get_running_loop().time(), self._report)
            if self._silent:
                self._end_silence()
        if self._figures.wants_load:
            self._figures.count(batch)
        if self._subscribers:
            for frame in batch:
                for callback in tuple(self._subscribers.get(frame.can_id, ())):
                    callback(frame)

    def dropped(self, count: int) -> None:
        """Counts frames that the kernel or the interface had no room for."""
        self._lose(count, "receive-overflow")

    def status(self, status: BusStatus) -> None:
        """Takes a change of the controller's state."""
        if self._sink is not None:
            self._judge(self._sink)
            if self._figures.points:
                self._report(self._figures.sample())

    def _lose(self, count: int, reason: str) -> None:
        if self._sink is not None:
            self._sink.lost(count, reason)

    def _report(self, sample: Sample) -> None:
        if self._sink is not None:
            self._sink.sample(sample)

    # -- Exchange -------------------------------------------------------------------------------

    def subscribe(self, can_id: int, callback: Callable[[Frame], None]) -> Callable[[], None]:
        """Calls back for each data frame with this identifier; returns what ends it."""
        if can_id not in self._subscribers:
            self._subscribers[can_id] = []
            self._listen_for(can_id)
        self._subscribers[can_id].append(callback)

        def unsubscribe() -> None:
            callbacks = self._subscribers[can_id]
            callbacks.remove(callback)
            if not callbacks:
                del self._subscribers[can_id]
                self._listen_for(can_id)

        return unsubscribe

    def _listen_for(self, can_id: int) -> None:
        if can_id not in self._router.routes:  # else it passes anyway
            self._bus.listen(self._filters())

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        """Sends a frame; returns it as the bus took it.

        Raises:
            DriverError: as `Bus.send`.
        """
        return await self._bus.send(frame, timeout or self._device.timeout)

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        """Sends frames in turn, one each `period` seconds, until stopped or the bus is lost.

        Raises:
            DriverError: as `Bus.periodic`.
        """
        return self._bus.periodic(frames, period)

    def _filters(self) -> Sequence[Filter] | None:
        """What has to pass; None for everything."""
        view = self._device.frames
        if self._figures.wants_load or self._recording.active or (view is not None and not view.ids):
            return None
        filters = [exactly(can_id) for can_id in (*self._router.routes, *self._subscribers)]
        for first, last in () if view is None else view.ids:
            filters += between(first, last)
        return filters

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Opens the bus and begins to listen.

        Raises:
            DriverError: no such interface, it is down, or it is not set as the profile says.
        """
        await self._bus.open(self, self._filters())
        loop = asyncio.get_running_loop()
        self._router.restart(loop.time())
        self._transmitter.stop()
        self._figures.restart()

    async def run(self, sink: Sink) -> None:
        """Passes on what comes, until cancelled.

        Raises:
            DriverError: the bus was lost.
        """
        self._sink = sink
        if self._device.frames is not None:
            self._view = FramesView(self._device.frames, self._device.batch, sink.frames, sink.lost)
        self._silent = False
        if self._device.record.always and not self._recording.active:
            await self._record_always()
        self._judge(sink)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(), name=f"{self._device.name}: watch bus")
                for name, work in self._work(sink):
                    group.create_task(work, name=f"{self._device.name}: {name}")
        except* DriverError as lost:
            reason = str(lost.exceptions[0])
        finally:
            if self._view is not None:
                self._view.flush()
            self._view = self._sink = None
        raise DriverError("disconnected", reason)

    def _work(self, sink: Sink) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        routes = self._router.routes.values()
        if any(route.timeout is not None for route in routes):
            yield "watch for stale points", self._watch(sink)
        yield "look at the controller", self._look(sink)
        for period in {route.report for route in routes if isinstance(route.report, float)}:
            yield f"report each {period}s", self._report_each(period)
        if self._figures.points:
            yield "report the bus", self._report_bus()

    async def _until_lost(self) -> None:
        raise DriverError("disconnected", await self._bus.lost())

    def _watched(self) -> list[Route]:
        return [route for route in self._router.routes.values() if route.timeout is not None]

    async def _watch(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        watched = self._watched()
        while True:
            now = loop.time()
            stale = [route.expire(now, self._report) for route in watched]
            if all(stale) and not self._silent:
                self._silent = True
                self._judge(sink)
            # One that is stale may come again at once, and is then due no sooner than after its timeout.
            due = min(
                now + (route.timeout or 0.0) if is_stale else route.due
                for route, is_stale in zip(watched, stale, strict=True)
            )
            await asyncio.sleep(max(_TICK_S, due - now))

    def _end_silence(self) -> None:
        if not all(route.stale for route in self._watched()):
            self._silent = False
            if self._sink is not None:
                self._judge(self._sink)

    async def _look(self, sink: Sink) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._judge(sink)

    async def _report_each(self, period: float) -> None:
        loop = asyncio.get_running_loop()
        routes = [route for route in self._router.routes.values() if route.report == period]
        due = loop.time()
        while True:
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())
            for route in routes:
                route.report_newest(self._report)

    async def _report_bus(self) -> None:
        while True:
            self._report(self._figures.sample())
            await asyncio.sleep(self._device.poll)

    def _judge(self, sink: Sink) -> None:
        """Says how the bus is by its controller and by what comes."""
        status = self._bus.status()
        reason = _TROUBLE.get(status.state, "")
        if not reason and self._silent:
            reason = "no message of the profile comes any more"
        reason = reason or self._recording.trouble
        sink.state(DeviceState.DEGRADED if reason else DeviceState.ONLINE, reason)

    # -- commands -------------------------------------------------------------------------------

    async def read(self, points: Sequence[str]) -> Sample:
        """What the bus last carried; messages that were not seen yet are waited for.

        Raises:
            DriverError: not one point has a value.
        """
        figures = [name for name in points if name in self._figures.points]
        signals = [name for name in points if name not in self._figures.points]
        await self._await({self._router.of_point[name].message.can_id for name in signals})
        sample = self._router.values(signals) if signals else self._figures.sample(figures)
        if figures and signals:
            measured = self._figures.sample(figures)
            sample = Sample(
                sample.time_ns, {**sample.values, **measured.values}, {**sample.bad, **measured.bad}
            )
        if not sample.values:
            raise DriverError("timeout", self._why_nothing(signals))
        return sample

    def _why_nothing(self, signals: Sequence[str]) -> str:
        routes = [self._router.of_point[name] for name in signals]
        if routes and all(route.sent and route.payload is None for route in routes):
            names = ", ".join(signals)
            return f"nobody has sent {names} on {self._device.connection} since it was opened"
        return f"none of these messages is on {self._device.connection} now"

    async def _await(self, identifiers: Iterable[int]) -> None:
        """Waits for messages that were never seen, as long as the bus may take."""
        routes = (self._router.routes[can_id] for can_id in identifiers)
        missing = [route.message.can_id for route in routes if route.payload is None and not route.sent]
        if not missing:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._device.timeout):
                await asyncio.gather(*(self.next_frame(can_id) for can_id in missing))

    async def next_frame(self, can_id: int, wanted: Callable[[Frame], bool] = lambda frame: True) -> Frame:
        """The next data frame of this identifier that is wanted.

        Raises:
            DriverError: `disconnected`; the bus was let go meanwhile.
        """
        found: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        def look(frame: Frame) -> None:
            if not found.done() and wanted(frame):
                found.set_result(frame)

        unsubscribe = self.subscribe(can_id, look)
        self._awaited.add(found)
        try:
            return await found
        finally:
            self._awaited.remove(found)
            unsubscribe()

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes signals: one frame for each message that they are in.

        Raises:
            DriverError: not all were written; its `written` holds those that were.
        """
        written = await self._transmitter.write(values)
        return Sample(time.time_ns(), written)

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of `PROTOCOL.methods`.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the bus did not take it, or nobody answered.
        """
        return await self._calls.carry_out(method, args)

    def bus_load(self) -> float | None:
        """The share of the bus's time that frames took since it was last asked for; None: not known."""
        return self._figures.ratio()

    def described(self) -> Mapping[str, Any]:
        """The figures of the bus, for `call status`."""
        return self._figures.described() | {"recording": self._recording.active}

    async def record(self, start: bool, form: str | None) -> Mapping[str, Any]:
        """Begins or ends a recording; says its files.

        Raises:
            Refused: one runs already, or none does.
            DriverError: its file cannot be made.
        """
        return await (self._recording.start(form) if start else self._recording.stop())

    async def _record_always(self) -> None:
        try:
            await self._recording.start()
        except DriverError as error:
            # The bus is worth more than its recording: the device's state says what is wrong.
            self._recording.trouble = str(error)

    def _recording_changed(self) -> None:
        self._bus.listen(self._filters())
        if self._sink is not None:
            self._judge(self._sink)

    def rest(self) -> None:
        """Stops the frames that `call periodic` had sent again and again; those of points go on."""
        self._calls.stop()

    async def close(self) -> None:
        """Lets the bus go, with everything periodic and the recording."""
        self._calls.stop()
        self._transmitter.stop()
        self._bus.close()
        for found in self._awaited:
            if not found.done():
                text = f"{self._device.connection} was lost or closed meanwhile"
                found.set_exception(DriverError("disconnected", text))
        await self._recording.close()
