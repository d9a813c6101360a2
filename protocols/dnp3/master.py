"""What a master does untold: its startup, its polls, and what an outstation's indications ask for.

One request is under way at a time, so one loop decides what is next: first what is to be done once (a
`Task`), then the poll that is due longest.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from protocols.base import DeviceState, DriverError, Quality, Sample, Sink
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.fragment import Fragment, Outstation, Reply
from protocols.dnp3.objects import Iin
from protocols.dnp3.plan import (
    Poll,
    Wanted,
    class_headers,
    integrity_poll,
    missing_in,
    polls_of,
    wanted_of,
)
from protocols.dnp3.refusals import refusal
from protocols.dnp3.timesync import synchronise
from protocols.schedule import Schedule

_READ, _WRITE, _ENABLE, _DISABLE = 0x01, 0x02, 0x14, 0x15
_CLEAR_RESTART = b"\x50\x01\x00\x07\x07\x00"  # group 80 variation 1: internal indication 7 becomes 0
_SILENT_POLLS = 2
"""Unanswered in a row, after which no value is known any more."""
_TIME_AGAIN_S = 60.0
"""From one attempt to set the outstation's clock to the next, however often it asks."""
_CLEARS = 3
"""Attempts to clear a restart, with no poll's answer between that says of none, after which it is left."""
_UNREAD = "unread"
_NAMED = 5
"""Points that a reason names; the rest are counted."""


class Task(enum.IntEnum):
    """What is done once, the most pressing first."""

    CLEAR_RESTART = 1
    TIME_SYNC = 2
    INTEGRITY = 3
    ENABLE_UNSOLICITED = 4


_TROUBLE: Final = {
    Iin.DEVICE_TROUBLE: "the outstation reports device trouble",
    Iin.CONFIGURATION_CORRUPT: "the outstation reports that its configuration is corrupt",
}


class _Due(msgspec.Struct):
    poll: Poll
    schedule: Schedule


class Master:
    """Keeps one outstation polled over one connection; each connection has one of its own."""

    def __init__(self, device: Dnp3Device, outstation: Outstation, doubt: Callable[[], None]) -> None:
        """`doubt` is called when a response stays away: what it confirmed may come again."""
        self._device = device
        self._outstation = outstation
        self._doubt = doubt
        self._integrity = integrity_poll(device, 0.0)
        self._todo: set[Task] = {Task.INTEGRITY}
        self._enabling: set[int] = set()
        """Classes whose events are still to be had unasked."""
        self._enable()
        self._later: set[Task] = set()
        """What was not answered: it is tried again after the next poll that is."""
        self._wake = asyncio.Event()
        self._sink: Sink | None = None
        self._overflowed = False
        self._overflows = 0
        self._unread = 0
        self._reading_all = False
        self._restart_stays = False
        self._clears = 0
        self._time_again = 0.0
        self._unanswered = 0
        self._reasons: dict[str, str] = {}
        self._wanted: dict[str, Wanted] = {}
        self._said: tuple[DeviceState, str] | None = None

    # -- what comes in --------------------------------------------------------------------------

    def saw(self, fragment: Fragment, trouble: str = "") -> None:
        """Notes what a response's internal indications ask for (IEEE 1815-2012, 4.2.2.6).

        `trouble`: what of it could not be taken, and why; said until the next integrity poll.
        """
        iin = fragment.iin
        if not iin & Iin.DEVICE_RESTART:
            self._restart_stays = False
            self._judge("restart", "")
        elif not self._restart_stays and Task.CLEAR_RESTART not in self._todo:
            self._add(Task.CLEAR_RESTART, Task.INTEGRITY)
            self._enable()  # a restart forgets what was enabled
        if not iin & Iin.NEED_TIME:  # what set its clock meanwhile need not have been us
            self._judge("time", "")
        elif self._device.time_sync != "never" and _now() >= self._time_again:
            self._add(Task.TIME_SYNC)
        if iin & Iin.EVENT_BUFFER_OVERFLOW and not self._overflowed:
            self._overflows += 1
            self._add(Task.INTEGRITY)
        self._overflowed = bool(iin & Iin.EVENT_BUFFER_OVERFLOW)
        for bit, text in _TROUBLE.items():
            self._judge(text, text if iin & bit else "")
        if trouble and fragment.report:
            self._unread += 1
            if not self._reading_all:  # what was behind it may have been a change
                self._add(Task.INTEGRITY)
            self._judge(_UNREAD, f"part of a response could not be taken: {trouble}")
        self._say()

    def disabling(self, classes: Sequence[int]) -> None:
        """A call switches these classes' unsolicited responses off, which the start is not to undo."""
        self._enabling.difference_update(classes)

    def _enable(self) -> None:
        if self._device.unsolicited:
            self._enabling.update(self._device.unsolicited)
            self._todo.add(Task.ENABLE_UNSOLICITED)

    def _add(self, *tasks: Task) -> None:
        self._todo.update(tasks)
        self._wake.set()

    def _judge(self, about: str, trouble: str) -> None:
        if trouble:
            self._reasons[about] = trouble
        else:
            self._reasons.pop(about, None)

    def _say(self) -> None:
        """Tells the sink what changed: losses, and whether something is wrong."""
        if self._sink is None:
            return
        if self._overflows:
            self._sink.lost(self._overflows, "event-buffer-overflow")
            self._overflows = 0
        if self._unread:
            self._sink.lost(self._unread, "unreadable-response")
            self._unread = 0
        reason = "; ".join(self._reasons.values())
        said = (DeviceState.DEGRADED if reason else DeviceState.ONLINE, reason)
        if said != self._said:
            self._said = said
            self._sink.state(*said)

    # -- life -----------------------------------------------------------------------------------

    async def begin(self) -> None:
        """The first request: that nothing is reported unasked until everything was read once.

        An outstation without unsolicited responses refuses it, which is as good. It is asked twice at most:
        one that has just reported something may pass over what crossed its report.

        Raises:
            DriverError: the outstation does not answer.
        """
        try:
            await self._outstation.ask(_DISABLE, class_headers((1, 2, 3)))
        except DriverError as error:
            if error.code != "timeout":
                raise
            await self._outstation.ask(_DISABLE, class_headers((1, 2, 3)))

    async def run(self, sink: Sink) -> None:
        """Does what is to be done and polls, until cancelled.

        Raises:
            DriverError: the connection was lost.
        """
        self._sink = sink
        self._say()
        polls: list[_Due] | None = None
        while True:
            if self._todo:
                await self._carry_out(min(self._todo))
                continue
            if polls is None:
                polls = self._schedule()
            due = min(polls, key=lambda one: one.schedule.due, default=None)
            if due is None or due.schedule.due > _now():
                await self._rest_until(due)
                continue
            missed = due.schedule.begin(_now())
            if missed and due.poll.points:  # events that were not asked for in time are not lost
                sink.missed(missed, due.poll.period)
            await self._poll(due.poll)

    def _schedule(self) -> list[_Due]:
        """Polls from now on; the startup has just read all that the integrity poll and the classes would."""
        now = _now()
        dues = []
        for poll in polls_of(self._device):
            own_rate = poll.points and not poll.integrity
            dues.append(_Due(poll, Schedule(poll.period, now if own_rate else now + poll.period)))
        return dues

    async def _rest_until(self, due: _Due | None) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout_at(due.schedule.due if due else None):
                await self._wake.wait()
        except TimeoutError:
            pass

    # -- what is done once ----------------------------------------------------------------------

    async def _carry_out(self, task: Task) -> None:
        self._todo.discard(task)
        match task:
            case Task.INTEGRITY:
                await self._poll(self._integrity)
            case Task.TIME_SYNC:
                await self._set_time()
            case Task.CLEAR_RESTART:
                reply = await self._tried(task, _WRITE, _CLEAR_RESTART)
                self._clears += 1
                if self._clears > _CLEARS or (reply is not None and reply.iin & Iin.DEVICE_RESTART):
                    self._restart_stays = True  # else it would be cleared for ever
                    self._todo.discard(task)
                    self._later.discard(task)
                    self._judge("restart", "the outstation does not let its restart indication be cleared")
            case Task.ENABLE_UNSOLICITED:
                classes, self._enabling = self._enabling, set()
                if classes and await self._tried(task, _ENABLE, class_headers(sorted(classes))) is None:
                    self._enabling |= classes
        self._say()

    async def _tried(self, task: Task, function: int, body: bytes) -> Reply | None:
        """The outstation's reply; after a timeout None, and the task comes again after the next answer."""
        try:
            return await self._outstation.ask(function, body)
        except DriverError as error:
            if error.code == "disconnected":
                raise
            self._silent(error, ())
            self._later.add(task)
            self._todo.add(Task.INTEGRITY)  # see whether it answers at all: else this would be asked for ever
            return None

    async def _set_time(self) -> None:
        self._time_again = _now() + _TIME_AGAIN_S
        trouble = ""
        try:
            await synchronise(self._outstation, self._device.time_sync, _wall_ms)
        except DriverError as error:
            if error.code == "disconnected":
                raise
            trouble = f"the outstation's clock could not be set: {error}"
        self._judge("time", trouble)

    # -- polls ----------------------------------------------------------------------------------

    async def integrity(self) -> Reply:
        """Polls everything now.

        Raises:
            DriverError: as `Outstation.ask`.
        """
        return await self._outstation.ask(_READ, self._integrity.body, report=True)

    async def classes(self, classes: Sequence[int]) -> Reply:
        """Polls the events of these classes now.

        Raises:
            DriverError: as `Outstation.ask`.
        """
        return await self._outstation.ask(_READ, class_headers(classes), report=True)

    async def _poll(self, poll: Poll) -> None:
        if poll.integrity:
            self._judge(_UNREAD, "")
        self._reading_all = poll.integrity
        try:
            reply = await self._outstation.ask(_READ, poll.body, report=True)
        except DriverError as error:
            if error.code == "disconnected":
                raise
            self._silent(error, poll.points)
            if poll.integrity:
                self._todo.add(Task.INTEGRITY)
        else:
            self._answered(poll, reply)
        finally:
            self._reading_all = False
        self._say()

    def _silent(self, error: DriverError, points: tuple[str, ...]) -> None:
        """A request was not answered: what is not known any more is bad, first its points, then all."""
        self._unanswered += 1
        self._doubt()
        if self._unanswered == _SILENT_POLLS:
            self._judge("silence", str(error))
            points = self._integrity.points
        if points and self._unanswered <= _SILENT_POLLS:
            self._report_bad(points, Quality.TIMEOUT)

    def _answered(self, poll: Poll, reply: Reply) -> None:
        if self._unanswered and not poll.integrity:
            self._todo.add(Task.INTEGRITY)  # values were said to be unknown: they are read again
        self._unanswered = 0
        self._todo |= self._later
        self._later.clear()
        if not reply.iin & Iin.DEVICE_RESTART:
            self._clears = 0
        self._judge("silence", "")
        trouble = ""
        if missing := missing_in(reply, self._wanted_by(poll)):
            self._report_bad(missing, Quality.BAD_CONFIG)
            trouble = self._lacks(poll, missing)
        elif refused := refusal(reply.iin):
            trouble = f"the outstation refused the {poll.what}: {refused}"
        self._judge(poll.what, trouble)

    def _wanted_by(self, poll: Poll) -> Wanted:
        if poll.what not in self._wanted:
            self._wanted[poll.what] = wanted_of(self._device, poll)
        return self._wanted[poll.what]

    def _lacks(self, poll: Poll, missing: tuple[str, ...]) -> str:
        named = ", ".join(missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        how = "; it may leave points out of class 0: give them a poll of their own" if poll.integrity else ""
        return f"the outstation did not give {named}{more}{how}"

    def _report_bad(self, points: tuple[str, ...], quality: Quality) -> None:
        assert self._sink is not None
        self._sink.sample(Sample(time.time_ns(), {}, dict.fromkeys(points, quality)))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
