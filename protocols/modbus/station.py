"""A device's place on a line: the requests it waits to send, and how it keeps its pace. See `line`."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from protocols.base import DriverError
from protocols.modbus.config import ModbusDevice

if TYPE_CHECKING:
    from protocols.modbus.line import Line

_READS = (1, 2, 3, 4)


class Answer(msgspec.Struct, frozen=True):
    """What became of one request, and when: `time_ns` is UTC when the answer came in."""

    time_ns: int
    pdu: bytes = b""
    error: DriverError | None = None


class Batch:
    """Requests whose sender waits for all of them at once."""

    __slots__ = ("answers", "done", "left")

    def __init__(self, count: int, done: "asyncio.Future[None]") -> None:
        self.answers: list[Answer | None] = [None] * count
        self.left = count
        self.done = done

    def take(self, place: int, answer: Answer) -> None:
        """Notes the answer to one request; the last one wakes the sender."""
        self.answers[place] = answer
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Request:
    """One request, queued or under way. Only reads are asked again: a write could be carried out twice."""

    __slots__ = ("batch", "deadline", "pdu", "place", "retries", "station", "urgent")

    def __init__(self, station: "Station", pdu: bytes, batch: Batch, place: int, urgent: bool) -> None:
        self.station = station
        self.pdu = pdu
        self.batch = batch
        self.place = place
        self.urgent = urgent
        self.retries = station.retries if pdu[0] in _READS else 0
        self.deadline = 0.0


class Station:
    """One device's place on a line: its queue, its pace and whether it answers."""

    def __init__(self, line: "Line", device: ModbusDevice) -> None:
        self.line = line
        self.unit = device.connection.unit
        self.timeout = device.timeout
        self.retries = device.retries
        self.pause = device.pause_between_requests
        self.depth = device.depth
        self.queue: deque[Request] = deque()
        self.not_before = 0.0
        self.answers = False  # it answered its last request on this connection
        self.failures = 0
        self.rest_until = 0.0

    @property
    def resting(self) -> bool:
        """It did not answer lately and is left alone, so that others on the line keep their pace."""
        return self.rest_until > self.line.now()

    async def exchange(self, requests: Sequence[bytes], urgent: bool = False) -> list[Answer]:
        """Sends requests in order and gives their answers in the same order.

        Urgent ones overtake what is queued. When one is not answered in time, those of the station that
        are queued behind it and not urgent fail with it.

        Raises:
            DriverError: the line is not open.
        """
        batch = self.line.batch(len(requests))
        queued = [Request(self, pdu, batch, place, urgent) for place, pdu in enumerate(requests)]
        if urgent:
            self.queue.extendleft(reversed(queued))
        else:
            self.queue.extend(queued)
        self.line.enqueue(self)
        try:
            if batch.left:
                await batch.done
        except asyncio.CancelledError:
            self.queue = deque(request for request in self.queue if request.batch is not batch)
            raise
        return [answer for answer in batch.answers if answer is not None]

    def fail(self, failed: Answer, urgent_too: bool) -> None:
        """Answers what is queued with a failure."""
        queued, self.queue = self.queue, deque()
        for request in queued:
            if request.urgent and not urgent_too:
                self.queue.append(request)
            else:
                request.batch.take(request.place, failed)
