"""The driver: asks what `plan` says, writes what `TextPoint.command` says, and takes what comes unasked."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from protocols.base import DeviceState, DriverError, Quality, Sample, Shared, Sink, Value
from protocols.schedule import Schedule
from protocols.text.calls import carry_out
from protocols.text.config import TextDevice
from protocols.text.framing import NOTHING, Reply, Want
from protocols.text.instrument import Instrument
from protocols.text.plan import Poll, Query, polls_of, queries_of
from protocols.text.point import TextPoint, compiled

_DEGRADED_AFTER = 2  # cycles in a row without any answer


class _Asked:
    """One query, and the values of its last answer as long as it stays the same."""

    def __init__(self, query: Query, reports: Sequence[TextPoint]) -> None:
        self.query = query
        self.want = (
            Want(line=True, unasked=self._unasked)
            if query.block_limit is None
            else Want(block=query.block_limit, unasked=self._unasked)
        )
        self._reports = reports
        self._last: str | bytes | None = None
        self._values: dict[str, Value] = {}
        self._bad: dict[str, Quality] = {}

    def _unasked(self, line: str) -> bool:
        """Whether a line is a report; one that the query's pattern fits too is the answer."""
        if not any(point.reported(line) is not None for point in self._reports):
            return False
        return not any(point.matches(line) for point in self.query.points)

    def take(self, reply: Reply, time_ns: int) -> Sample:
        """The points' values of an answer."""
        said: str | bytes = reply.text if reply.block is None else reply.block
        if said != self._last:
            self._values, self._bad = {}, {}
            for point in self.query.points:
                value = point.take(said) if isinstance(said, str) else point.take_block(said)
                if isinstance(value, Quality):
                    self._bad[point.name] = value
                else:
                    self._values[point.name] = value
            self._last = said
        return Sample(time_ns, self._values, self._bad)

    def failed(self, quality: Quality) -> Sample:
        """A sample of the points without a value."""
        return Sample(time.time_ns(), {}, {point.name: quality for point in self.query.points})


class TextDriver:
    """One instrument, alone on its line or one of several."""

    def __init__(self, device: TextDevice, shared: Shared) -> None:
        self._device = device
        self._instrument = Instrument(device, shared, self._heard)
        self._reports = [point for point in device.points.values() if point.report is not None]
        self._reported: dict[str, tuple[int, Value | Quality]] = {}
        self._sink: Sink | None = None
        self._unanswered = 0

    async def connect(self) -> None:
        """Opens the line, unless another device has, finds out what the instrument is and sends `init`.

        Raises:
            DriverError: the line cannot be opened; the instrument does not answer, or is another.
        """
        self._unanswered = 0
        self._reported.clear()
        await self._instrument.open()
        polls = polls_of(self._device)
        if polls and self._device.identify is None:
            await self._ask(self._asked(polls[0].queries[0]))

    async def run(self, sink: Sink) -> None:
        """Polls, each rate on its own schedule, and gives what comes unasked, until cancelled.

        Raises:
            DriverError: the line was lost.
        """
        self._sink = sink
        for name, (time_ns, value) in self._reported.items():
            sink.sample(_sample(time_ns, {name: value}))  # what came since connecting
        if not polls_of(self._device):
            sink.state(DeviceState.ONLINE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(), name=f"{self._device.name}: watch line")
                for poll in polls_of(self._device):
                    group.create_task(
                        self._poll(poll, sink), name=f"{self._device.name}: poll {poll.period}s"
                    )
        except* DriverError as lost:
            reason = str(lost.exceptions[0])
        finally:
            self._sink = None
        raise DriverError("disconnected", reason)

    async def _until_lost(self) -> None:
        raise DriverError("disconnected", await self._instrument.line.lost())

    async def _poll(self, poll: Poll, sink: Sink) -> None:
        line = self._instrument.line
        asked = [self._asked(query) for query in poll.queries]
        schedule = Schedule(poll.period, line.now())
        while True:
            await asyncio.sleep(schedule.due - line.now())
            if missed := schedule.begin(line.now()):
                sink.missed(missed, poll.period)
            answered, error = False, None
            for one in asked:
                if self._instrument.resting or (error is not None and self._instrument.silent):
                    sink.sample(one.failed(Quality.TIMEOUT))
                    continue
                try:
                    sink.sample(await self._ask(one))
                    answered = True
                except DriverError as failed:
                    answered |= failed.code == "device-error"
                    error = failed
                    sink.sample(one.failed(failed.quality))
            self._judge(answered, error, sink)

    def _judge(self, answered: bool, error: DriverError | None, sink: Sink) -> None:
        if answered:
            if self._unanswered >= _DEGRADED_AFTER:
                sink.state(DeviceState.ONLINE)
            self._unanswered = 0
        elif error is not None:
            self._unanswered += 1
            if self._unanswered == _DEGRADED_AFTER:
                sink.state(DeviceState.DEGRADED, str(error))

    def _asked(self, query: Query) -> _Asked:
        return _Asked(query, self._reports)

    async def _ask(self, asked: _Asked) -> Sample:
        async with self._instrument.turn():
            reply, time_ns = await self._instrument.ask(asked.query.command, asked.want, asked.query.timeout)
        return asked.take(reply, time_ns)

    def _heard(self, line: str, time_ns: int) -> bool:
        """Takes a line that came unasked; False: it is none of the points' reports."""
        found = {}
        for point in self._reports:
            value = point.reported(line)
            if value is not None:
                found[point.name] = value
        if not found:
            return False
        for name, value in found.items():
            self._reported[name] = time_ns, value
        if self._sink is not None:
            self._sink.sample(_sample(time_ns, found))
        return True

    async def read(self, points: Sequence[str]) -> Sample:
        """Asks for points now. Of a point that only comes unasked it gives what came last, which is `stale`
        before the first. The time is the oldest of the values'.

        Raises:
            DriverError: not one point could be read.
        """
        chosen = [self._device.points[name] for name in points]
        samples: list[Sample] = []
        failure: DriverError | None = None
        for query in queries_of(self._device, chosen):
            asked = self._asked(query)
            try:
                samples.append(await self._ask(asked))
            except DriverError as error:
                failure = error
                samples.append(asked.failed(error.quality))
        unasked = {point.name for point in chosen if point.query is None}
        if unasked:
            self._instrument.line  # noqa: B018  # raises where there is no line
            never = time.time_ns(), Quality.STALE
            samples += [
                _sample(at, {name: value})
                for name in unasked
                for at, value in [self._reported.get(name, never)]
            ]
        if failure is not None and not any(sample.values for sample in samples):
            raise failure
        values = {name: value for sample in samples for name, value in sample.values.items()}
        bad = {name: quality for sample in samples for name, quality in sample.bad.items()}
        times = [sample.time_ns for sample in samples if sample.values] or [
            sample.time_ns for sample in samples
        ]
        return Sample(min(times, default=time.time_ns()), values, bad)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes values in their order, asks for errors after each, and says what they are after rounding.

        A command whose answer is lost is not repeated.

        Raises:
            DriverError: not all were written; its `written` holds those that were.
        """
        written: dict[str, Value] = {}
        commands = [(self._device.points[name], value) for name, value in values.items()]
        told = [(point, point.command(value), point.meaning(value)) for point, value in commands]
        for point, (command, block), meaning in told:
            try:
                await self._write(point, command, block)
            except DriverError as error:
                raise DriverError(error.code, str(error), written) from error
            written[point.name] = meaning
        return Sample(time.time_ns(), written)

    async def _write(self, point: TextPoint, command: str, block: bytes | None) -> None:
        instrument = self._instrument
        want = NOTHING if point.answer is None else Want(line=True, unasked=self._asked_unasked)
        async with instrument.turn():
            if instrument.stale:
                await instrument.synchronise()
            try:
                reply = await instrument.tell(command, block, want, point.timeout)
                if point.answer is not None and not compiled(point.answer).fullmatch(reply.text):
                    said = reply.text[:200]
                    text = f"{instrument.name} says to {point.name}: {said!r}, and not {point.answer!r}"
                    raise DriverError("device-error", text)
                if point.check_errors:
                    await instrument.check(point.name)
            except DriverError as error:
                if error.code == "device-error" and not instrument.stale:
                    raise
                text = f"{error}; whether {point.name} was written is not known"
                raise DriverError(error.code, text) from error

    def _asked_unasked(self, line: str) -> bool:
        return any(point.reported(line) is not None for point in self._reports)

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of `PROTOCOL.methods`.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the instrument said no or did not answer.
        """
        return await carry_out(method, args, self._instrument)

    def rest(self) -> None:
        """Nothing of a text instrument goes on by itself."""

    async def close(self) -> None:
        """Leaves the line, which closes after its last device."""
        await self._instrument.close()


def _sample(time_ns: int, found: Mapping[str, Value | Quality]) -> Sample:
    values = {name: value for name, value in found.items() if not isinstance(value, Quality)}
    bad = {name: value for name, value in found.items() if isinstance(value, Quality)}
    return Sample(time_ns, values, bad)
