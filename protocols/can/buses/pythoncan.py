"""Every bus that is not SocketCAN's: python-can drives the interface, in two threads of the bus's own.

The same in every respect as the SocketCAN bus, as far as an interface allows:

- Own frames come back marked OWN. Where the interface tells that the bus took one, that is when; elsewhere
  (slcan, and other adapters on serial ports) when the interface took it, with the host's stamp.
- Filters work here, not in python-can: there they would hold back error frames and own frames too.
- Periodic frames are sent by the thread that sends: python-can's own tasks are one thread each, send while
  others do, die of the first error and send in a burst what they were late for.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from protocols.base import DriverError
from protocols.can.bus import BusState, BusStatus, Filter, Listener, Periodic
from protocols.can.buses.bcm import LONGEST_S, MAX_FRAMES
from protocols.can.buses.errors import Controller
from protocols.can.buses.layout import why_unsendable
from protocols.can.buses.pythoncan_inbox import Inbox
from protocols.can.buses.pythoncan_interfaces import echoes, interface_of, open_error
from protocols.can.buses.pythoncan_threads import Job, Session, Turns
from protocols.can.config import Connection
from protocols.can.frame import FDF, Frame, format_id

_log = structlog.get_logger("can")

_FRAME_COST: Final = 256
"""Bytes that a waiting frame takes, roughly: `receive_buffer` bounds these too."""

_END_S: Final = 0.9
_PERIODIC_TIMEOUT_S: Final = 1.0
_SHORTEST_S: Final = 100e-6


class PythonCan:
    """One bus behind one of python-can's interfaces: a `protocols.can.bus.Bus`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: Session | None = None
        self._listener: Listener | None = None
        self._gone: asyncio.Future[str] | None = None
        self._jobs: set[Job] = set()
        self._inbox: Inbox | None = None
        self._linux_errors = interface_of(connection).linux_errors
        self._turns: set[Turns] = set()
        self._controller = Controller()
        self._dropped = 0

    async def open(self, listener: Listener, filters: Sequence[Filter] | None) -> None:
        """Opens the interface and begins to listen.

        Raises:
            DriverError: `disconnected` (no such device, no library for it, no permission), or `device-error`
                (no such interface, settings that it does not take).
        """
        self.close()
        try:
            import can  # noqa: F401  # it is imported in the thread that opens: here for its absence
        except ImportError as error:
            text = f"{self._connection} needs the package python-can; install hilgate[can]"
            raise DriverError("disconnected", text) from error
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        gone: asyncio.Future[str] = loop.create_future()

        def done(error: Exception | None) -> None:
            if not opened.done() and error is None:
                opened.set_result(None)
            elif not opened.done() and error is not None:
                opened.set_exception(open_error(self._connection, error))

        def tell(what: Callable[..., None], *args: Any) -> None:
            try:
                loop.call_soon_threadsafe(what, *args)
            except RuntimeError:
                _log.debug("told nobody: the loop is closed", bus=str(self._connection))

        inbox = Inbox(
            max(1, self._connection.receive_buffer // _FRAME_COST),
            lambda: tell(self._deliver, inbox),
        )
        self._listener, self._gone, self._inbox = listener, gone, inbox
        self._controller, self._dropped = Controller(), 0
        self._session = Session(
            self._connection,
            filters,
            inbox,
            tell,
            opened=done,
            gone=lambda reason: self._lost(gone, reason),
            failed=_fail,
            state=lambda state: self._changed(gone, state),
        )
        try:
            await opened
        except BaseException:
            self.close()
            raise
        if self._connection.listen_only and interface_of(self._connection).silent is None:
            _log.warning(
                "the interface cannot listen only: it acknowledges frames", bus=str(self._connection)
            )

    def listen(self, filters: Sequence[Filter] | None) -> None:
        """Other filters from now on."""
        if self._session is not None:
            self._session.listen(filters)

    async def lost(self) -> str:
        """Returns why, once the bus can no longer be used."""
        if self._gone is None:
            return f"{self._connection} is not open"
        return await asyncio.shield(self._gone)

    def status(self) -> BusStatus:
        """How the bus is now. The bit rates are those that were asked for."""
        if self._session is None:
            return BusStatus()
        return BusStatus(
            state=self._controller.state,
            tx_errors=self._controller.tx_errors,
            rx_errors=self._controller.rx_errors,
            restarts=self._controller.restarts,
            bitrate=self._connection.bitrate,
            data_bitrate=self._connection.data_bitrate,
            dropped=self._dropped,
        )

    async def send(self, frame: Frame, timeout: float) -> Frame:
        """Sends a frame; returns it, with its time, when the bus (or else the interface) took it.

        Raises:
            DriverError: `timeout`, with whether it may still go out; `disconnected`; `device-error`.
        """
        self.check([frame])
        session = self._usable()
        job = Job(frame, timeout, asyncio.get_running_loop().create_future())
        assert job.taken is not None
        self._jobs.add(job)
        session.put(job)
        try:
            async with asyncio.timeout(timeout):
                return await job.taken
        except TimeoutError:
            raise DriverError("timeout", self._late(job)) from None
        finally:
            job.give_up()
            self._jobs.discard(job)

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        """Sends frames of one identifier in turn, one each `period` seconds, the first at once.

        A turn that the interface does not take is skipped; one that it is late for too.

        Raises:
            DriverError: as `send`, as far as it can be told at once.
        """
        if not 1 <= len(frames) <= MAX_FRAMES:
            raise DriverError("device-error", f"1 to {MAX_FRAMES} frames are sent in turn, not {len(frames)}")
        if not (math.isfinite(period) and _SHORTEST_S <= period <= LONGEST_S):
            raise DriverError("device-error", f"a period is from 100 us to 400 days; got {period:g} s")
        name = format_id(frames[0].can_id)
        if any(_kind(frame) != _kind(frames[0]) for frame in frames):
            raise DriverError(
                "device-error", f"frames that are sent in turn are all of one identifier: {name}"
            )
        self.check(frames)
        session = self._usable()
        if any(_kind(turns.frames[0]) == _kind(frames[0]) for turns in self._turns):
            text = f"{name} is sent periodically already: update that, or stop it first"
            raise DriverError("device-error", text)
        turns = Turns(frames, period, _PERIODIC_TIMEOUT_S)
        session.put(turns)
        self._turns.add(turns)
        return _Repeated(self, turns)

    def repeats(self, turns: Turns) -> bool:
        """Whether these are still sent."""
        return turns in self._turns

    def no_longer(self, turns: Turns) -> None:
        """Stops sending these."""
        turns.stopped = True
        self._turns.discard(turns)

    def close(self) -> None:
        """Ends both threads, within a second, and everything periodic. Safe at any time, also twice."""
        session, self._session = self._session, None
        if session is None:
            return
        if not session.end(_END_S):
            _log.warning("the interface still holds a thread of the bus", bus=str(self._connection))
        assert self._gone is not None
        self._lost(self._gone, f"{self._connection} was closed")
        self._gone = None

    # -- what the threads tell ------------------------------------------------------------------

    def _deliver(self, inbox: Inbox) -> None:
        batch, more = inbox.take()
        if batch is None:
            return
        if inbox is self._inbox and self._session is not None and self._listener is not None:
            if batch.frames:
                self._listener.frames(batch.frames)
            if batch.lost:
                self._dropped += batch.lost
                self._listener.dropped(batch.lost)
            for frame in batch.errors if self._linux_errors else ():
                if self._controller.take(frame):
                    self._listener.status(self.status())
        for job, frame in batch.taken:
            if job.taken is not None and not job.taken.done():
                job.taken.set_result(frame)
        if more:
            asyncio.get_running_loop().call_soon(self._deliver, inbox)

    def _changed(self, gone: "asyncio.Future[str]", state: BusState) -> None:
        if gone is self._gone and not gone.done() and state is not self._controller.state:
            self._controller.state = state
            if self._listener is not None:
                self._listener.status(self.status())

    def _lost(self, gone: "asyncio.Future[str]", reason: str) -> None:
        if gone is not self._gone or gone.done():
            return
        gone.set_result(reason)
        self._turns.clear()
        for job in self._jobs:
            _fail(job, DriverError("disconnected", f"{self._connection}: {reason}"))

    # -------------------------------------------------------------------------------------------

    def check(self, frames: Sequence[Frame]) -> None:
        """Whether the bus carries such frames.

        Raises:
            DriverError: `device-error`.
        """
        if self._connection.listen_only:
            raise DriverError("device-error", f"{self._connection} is listen-only by the profile")
        for frame in frames:
            if why := why_unsendable(frame, self._connection.fd):
                raise DriverError("device-error", why)

    def _usable(self) -> Session:
        if self._session is None or self._gone is None:
            raise DriverError("disconnected", f"{self._connection} is not open")
        if self._gone.done():
            raise DriverError("disconnected", f"{self._connection}: {self._gone.result()}")
        return self._session

    def _late(self, job: Job) -> str:
        name, where = format_id(job.frame.can_id), self._connection
        if job.give_up():
            return f"{name} was not sent: {where} did not come to it within {job.timeout:g} s"
        if not echoes(where):
            return f"{where} did not take {name} within {job.timeout:g} s; it may still go out"
        return (
            f"nobody acknowledged {name} within {job.timeout:g} s; it may still go out"
            f" (bus state: {self._controller.state.value})"
        )


class _Repeated:
    """Frames that are sent in turn until stopped."""

    def __init__(self, bus: PythonCan, turns: Turns) -> None:
        self._bus = bus
        self._turns = turns

    def update(self, frames: Sequence[Frame]) -> None:
        """Other content from the next turn on; which frame's turn it is stays.

        Raises:
            DriverError: `device-error` if these are not as many frames of the same identifier, the bus does
                not carry them, or it was stopped.
        """
        old = self._turns.frames
        if not self._bus.repeats(self._turns):
            raise DriverError("device-error", "this is no longer sent periodically")
        if len(frames) != len(old) or any(_kind(frame) != _kind(old[0]) for frame in frames):
            name = format_id(old[0].can_id)
            text = f"periodic frames keep their number and identifier: {len(old)} of {name}"
            raise DriverError("device-error", text)
        self._bus.check(frames)
        self._turns.frames = tuple(frames)

    def stop(self) -> None:
        """Ends it; safe to call twice."""
        self._bus.no_longer(self._turns)


def _kind(frame: Frame) -> tuple[int, int]:
    return frame.can_id, frame.flags & FDF


def _fail(job: Job, error: DriverError) -> None:
    if job.taken is not None and not job.taken.done():
        job.taken.set_exception(error)
