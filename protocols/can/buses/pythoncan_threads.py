"""The two threads of a bus of python-can: one that reads, one that sends. They end when they are told to."""

import asyncio
import collections
import contextlib
import heapq
import itertools
import os
import queue
import termios
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from protocols.base import DriverError
from protocols.can.bus import BusState, Filter
from protocols.can.buses.pythoncan_inbox import Inbox
from protocols.can.buses.pythoncan_interfaces import arguments, causes, echoes, interface_of, reason_of
from protocols.can.buses.pythoncan_messages import Stamps, frame_of, message_of
from protocols.can.buses.pythoncan_multicast import ReceiveQueue
from protocols.can.config import Connection
from protocols.can.filters import passes
from protocols.can.frame import ERROR, FDF, OWN, Frame, format_id

if TYPE_CHECKING:
    import can

_log = structlog.get_logger("can")

POLL_S: Final = 0.05
"""How long a thread waits for a frame before it looks whether it is to end."""

_MALFORMED_MOST: Final = 100
_LATE_ECHO_S: Final = 60.0
_LOOK_EACH_S: Final = 0.1
_REMEMBERED: Final = 4096
_LAST_WORD_S: Final = 0.2


class Job:
    """A frame on its way to the bus, and who waits for it: nobody, where it is periodic."""

    def __init__(self, frame: Frame, timeout: float, taken: "asyncio.Future[Frame] | None" = None) -> None:
        self.frame = frame
        self.timeout = timeout
        self.taken = taken
        self.began: float | None = None
        self._given_up = False
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Whether it is still wanted; after this it can no longer be held back."""
        with self._lock:
            if self._given_up:
                return False
            self.began = time.monotonic()
            return True

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for the bus to take it."""
        return self.taken is not None and not self._given_up

    def give_up(self) -> bool:
        """Whether it was still here: then it is never sent."""
        with self._lock:
            self._given_up = True
            return self.began is None


class Turns:
    """Frames that are sent in turn, one each period; `frames` may be replaced at any time."""

    def __init__(self, frames: Sequence[Frame], period: float, timeout: float) -> None:
        self.frames = tuple(frames)
        self.period = period
        self.timeout = timeout
        self.stopped = False
        self._count = 0

    def next(self) -> Job:
        """The one whose turn it is."""
        frames = self.frames
        job = Job(frames[self._count % len(frames)], self.timeout)
        self._count += 1
        return job

    def due_after(self, due: float) -> float:
        """When the next turn is: turns that time ran out for are skipped, the rhythm stays."""
        late = max(0.0, time.monotonic() - due)
        return due + self.period * (1 + late // self.period)


class Echoes:
    """Own frames that were sent and did not come back yet.

    Equal ones come back in the order of sending. Others may overtake: a controller with several send buffers
    sends the lowest identifier first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: collections.deque[Job] = collections.deque()

    def expect(self, job: Job) -> None:
        """Waits for a frame that is about to be sent."""
        oldest = time.monotonic() - _LATE_ECHO_S
        with self._lock:
            while self._awaited and (self._awaited[0].began or 0.0) < oldest:
                self._awaited.popleft()
            self._awaited.append(job)

    def forget(self, job: Job) -> None:
        """No longer waits for one that could not be sent."""
        with self._lock:
            if job in self._awaited:
                self._awaited.remove(job)

    def forget_given_up(self) -> None:
        """No longer waits for those nobody waits for: echoes were lost, theirs perhaps."""
        with self._lock:
            self._awaited = collections.deque(job for job in self._awaited if job.is_awaited)

    def match(self, frame: Frame) -> Job | None:
        """The oldest job that this frame is the echo of."""
        with self._lock:
            for job in self._awaited:
                sent = job.frame
                if sent.can_id == frame.can_id and sent.data == frame.data:
                    if (sent.flags ^ frame.flags) & FDF:
                        continue  # BRS and ESI are the controller's to change
                    self._awaited.remove(job)
                    return job
        return None


class Session:
    """A bus from its opening to its end. `tell` calls the other four on the loop, from whichever thread."""

    def __init__(
        self,
        connection: Connection,
        filters: Sequence[Filter] | None,
        inbox: Inbox,
        tell: Callable[..., None],
        opened: Callable[[Exception | None], None],
        gone: Callable[[str], None],
        failed: Callable[[Job, DriverError], None],
        state: Callable[[BusState], None],
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._tell, self._opened, self._gone, self._failed, self._state = tell, opened, gone, failed, state
        self._kind = interface_of(connection)
        self._echoing = echoes(connection)
        self._echoes = Echoes()
        self._stamps = Stamps(str(connection))
        self._stop = threading.Event()
        self._lost = False
        self._malformed = 0
        self._jobs: queue.SimpleQueue[Job | Turns | None] = queue.SimpleQueue()
        self.listen(filters)
        name = f"can {connection}"
        self._reader = threading.Thread(target=self._run, name=f"{name}: read", daemon=True)
        self._sender = threading.Thread(target=self._send_all, name=f"{name}: send", daemon=True)
        self._bus: can.BusABC | None = None
        self._reader.start()

    # -- called on the loop ---------------------------------------------------------------------

    def listen(self, filters: Sequence[Filter] | None) -> None:
        """Lets frames pass that pass one of the filters; error frames and own frames always do."""
        self._filters = filters, dict[int, bool]()

    def put(self, job: Job | Turns) -> None:
        """Sends a frame when its turn has come, or frames again and again."""
        self._jobs.put(job)

    def end(self, patience: float) -> bool:
        """Ends both threads and closes the bus; says whether that is done within `patience` seconds."""
        self._stop.set()
        self._jobs.put(None)
        self._reader.join(patience / 4)
        port = getattr(self._bus, "serialPortOrig", None)
        if port is not None and self._sender.is_alive():
            port.cancel_write()  # it blocks, for the port takes nothing any more
        self._reader.join(patience * 3 / 4)
        return not self._reader.is_alive()

    # -- the thread that reads ------------------------------------------------------------------

    def _run(self) -> None:
        import can

        try:
            where = self._connection
            # Files with settings of other programs on this machine are left alone.
            bus = can.Bus(where.channel, where.interface, ignore_config=True, **arguments(where))
        except Exception as error:  # noqa: BLE001  # backends raise what they like; it is said to who opens
            self._tell(self._opened, error)
            return
        self._bus = bus
        self._tell(self._opened, None)
        self._sender.start()
        try:
            self._read(bus)
        finally:
            self._stop.set()
            self._jobs.put(None)
            self._sender.join()
            self._shut(bus)

    def _shut(self, bus: "can.BusABC") -> None:
        port = getattr(bus, "serialPortOrig", None)
        with contextlib.suppress(OSError, termios.error):
            if port is not None:
                port.write_timeout = _LAST_WORD_S
        try:
            bus.shutdown()
        except Exception as error:  # noqa: BLE001  # an adapter that is gone cannot be told to stop
            _log.debug("interface not told to stop", bus=str(self._connection), reason=reason_of(error))
            if port is not None:
                port.close()

    def _read(self, bus: "can.BusABC") -> None:
        if self._connection.interface == "udp_multicast":
            kernel = ReceiveQueue(bus.fileno(), self._connection.receive_buffer)
            with contextlib.closing(kernel):
                self._read_on(bus, kernel)
        else:
            self._read_on(bus, None)

    def _read_on(self, bus: "can.BusABC", kernel: ReceiveQueue | None) -> None:
        looked = -_LOOK_EACH_S
        while not self._stop.is_set():
            try:
                message = bus.recv(POLL_S)
                if message is not None:
                    self._received(message)
                    self._malformed = 0
            except Exception as error:  # noqa: BLE001  # backends raise what they like; told as a loss or the end
                self._not_received(bus, error)
            else:
                now = time.monotonic()
                if message is None and self._unplugged():
                    self._end_of(f"{self._connection.channel} is gone: was the adapter unplugged?")
                elif now - looked >= _LOOK_EACH_S:
                    looked = now
                    self._look(bus)
                    if kernel is not None and (count := kernel.dropped()):
                        self._inbox.lose(count)
                        self._echoes.forget_given_up()

    def _received(self, message: "can.Message") -> None:
        frame = frame_of(message, self._stamps.of(message), self._kind.linux_errors)
        if frame.can_id & ERROR:
            self._inbox.put(frame)
            return
        if frame.flags & FDF and not self._connection.fd:
            return
        job = self._echoes.match(frame) if self._echoing else None
        if job is not None or not message.is_rx:
            self._inbox.put(frame._replace(flags=frame.flags | OWN), job)
        elif self._passes(frame.can_id):
            self._inbox.put(frame)

    def _passes(self, can_id: int) -> bool:
        filters, known = self._filters
        if filters is None:
            return True
        known_to_pass = known.get(can_id)
        if known_to_pass is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            known_to_pass = known[can_id] = passes(filters, can_id)
        return known_to_pass

    def _not_received(self, bus: "can.BusABC", error: Exception) -> None:
        """One thing that could not be read is lost; what the system or the library says is the end."""
        import can

        chain = list(causes(error))
        if any(isinstance(cause, OSError) for cause in chain) or isinstance(chain[-1], can.CanError):
            self._end_of(reason_of(error))
            return
        if self._connection.interface == "slcan" and isinstance(chain[-1], UnicodeDecodeError):
            # Else what it could not decode stays in its buffer; what waits behind it goes too.
            bus.flush()  # type: ignore[attr-defined]  # of slcan
        self._malformed += 1
        self._inbox.lose()
        _log.debug("not a frame", bus=str(self._connection), reason=reason_of(error))
        if self._malformed >= _MALFORMED_MOST:
            self._end_of(f"nothing that comes is a frame (of the last: {reason_of(error)})")

    def _unplugged(self) -> bool:
        """Some of the serial interfaces swallow the error of a port that is gone."""
        channel = self._connection.channel
        return isinstance(channel, str) and channel.startswith("/dev/") and not os.path.exists(channel)

    def _look(self, bus: "can.BusABC") -> None:
        import can

        if not self._kind.tells_state:
            return
        states = {
            can.BusState.ACTIVE: BusState.ACTIVE,
            can.BusState.PASSIVE: BusState.PASSIVE,
            can.BusState.ERROR: BusState.BUS_OFF,
        }
        self._tell(self._state, states.get(bus.state, BusState.UNKNOWN))

    def _end_of(self, reason: str) -> None:
        if not self._lost and not self._stop.is_set():
            self._lost = True
            self._tell(self._gone, reason)
        self._stop.set()

    # -- the thread that sends ------------------------------------------------------------------

    def _send_all(self) -> None:
        bus = self._bus
        assert bus is not None
        turns: list[tuple[float, int, Turns]] = []
        order = itertools.count()
        while not self._stop.is_set():
            wait: float | None = None
            if turns:
                wait = turns[0][0] - time.monotonic()
                if wait <= 0:
                    due, place, turn = heapq.heappop(turns)
                    if not turn.stopped:
                        self._transmit(bus, turn.next())
                        heapq.heappush(turns, (turn.due_after(due), place, turn))
                    wait = 0.0
            try:
                job = self._jobs.get(block=wait != 0.0, timeout=wait)
            except queue.Empty:
                continue
            if isinstance(job, Turns):
                heapq.heappush(turns, (time.monotonic(), next(order), job))
            elif job is not None:
                self._transmit(bus, job)

    def _transmit(self, bus: "can.BusABC", job: Job) -> None:
        if not job.begin():
            return
        if self._echoing:
            self._echoes.expect(job)
        try:
            bus.send(message_of(job.frame), timeout=job.timeout)
        except Exception as error:  # noqa: BLE001  # backends raise what they like; told to who sends
            self._echoes.forget(job)
            self._not_sent(job, error)
            return
        if not self._echoing:
            frame = job.frame
            self._inbox.put(frame._replace(time_ns=time.time_ns(), flags=frame.flags | OWN), job)

    def _not_sent(self, job: Job, error: Exception) -> None:
        what = f"{self._connection} did not take {format_id(job.frame.can_id)}"
        if any(isinstance(cause, OSError) and not isinstance(cause, TimeoutError) for cause in causes(error)):
            # Also a serial port that took a part in time: what is sent next would be read with it.
            failure = DriverError("disconnected", f"{what}: {reason_of(error)}")
            self._end_of(reason_of(error))
        elif any(isinstance(cause, TimeoutError) for cause in causes(error)):
            failure = DriverError("timeout", f"{what} within {job.timeout:g} s")
        else:
            failure = DriverError("device-error", f"{what}: {reason_of(error)}")
        self._tell(self._failed, job, failure)
