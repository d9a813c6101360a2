"""One queue: priorities, consumers with credit, redelivery. No I/O: what it sends goes to a port."""

import enum
import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from sim.broker.addresses import Refusal
from sim.broker.message import Message

Clock = Callable[[], float]
"""Seconds of a clock that never steps back."""


class Fate(enum.Enum):
    """How a delivery ended, for the message."""

    DONE = enum.auto()
    RETURNED = enum.auto()
    """Back to its old place in the queue, as if it had not been delivered."""
    FAILED = enum.auto()
    """Back, and counted; too often, and it is dead."""
    DEAD = enum.auto()


class ConsumerPort(Protocol):
    """What a consumer's link does for the queue."""

    @property
    def credit(self) -> int:
        """How many messages the consumer takes now; each `deliver` takes one off."""

    def deliver(self, entry: "Entry") -> None:
        """Sends the entry's message; its fate comes back by `Queue.settle`."""

    def end(self, reason: Refusal) -> None:
        """Ends the link, because the queue is gone or another link took its place."""


class QueueEvents(Protocol):
    """What a queue tells its owner."""

    def dead_letter(self, queue: "Queue", message: Message) -> None:
        """A message was given up: rejected, or delivered too often."""

    def expired(self) -> None:
        """A message's time ran out before a consumer took it."""

    def has_room(self) -> None:
        """A queue that was full is no longer."""


class Entry:
    """One message in one queue. `failures` counts deliveries that came to nothing."""

    __slots__ = ("failures", "holder", "message", "number", "queue")

    def __init__(self, queue: "Queue", number: int, message: Message) -> None:
        self.queue = queue
        self.number = number
        self.message = message
        self.failures = 0
        self.holder: Consumer | None = None


class Consumer:
    """One consumer of one queue."""

    def __init__(self, port: ConsumerPort, settled: bool = False) -> None:
        self.port = port
        self.settled = settled
        """Messages go out settled: gone once sent."""
        self.held: OrderedDict[Entry, None] = OrderedDict()


class Queue:
    """Messages in order of priority, then of arrival, each held by at most one consumer at a time.

    A queue is *full* at `max_bytes`: producers get no more credit until half of it is free. What comes
    on credit given before is still taken, up to twice the bound (`overfull`).
    After `max_deliveries` failed ones a message is dead; None: it is tried for ever.
    """

    def __init__(
        self, name: str, events: QueueEvents, clock: Clock, max_bytes: int, max_deliveries: int | None
    ) -> None:
        self.name = name
        self.bytes = 0
        self.consumers: dict[Consumer, None] = {}
        self._events = events
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_deliveries = max_deliveries
        self._waiting: list[tuple[int, int, Entry]] = []
        self._ready: OrderedDict[Consumer, None] = OrderedDict()
        self._numbers = 0
        self._full = False
        self._held = 0

    @property
    def messages(self) -> int:
        """Messages that wait or are with a consumer."""
        return len(self._waiting) + self._held

    @property
    def unsettled(self) -> int:
        """Messages that are with a consumer."""
        return self._held

    @property
    def full(self) -> bool:
        """No more credit to producers for now."""
        return self._full

    @property
    def overfull(self) -> bool:
        """Not one message more is taken."""
        return self.bytes >= 2 * self._max_bytes

    def put(self, message: Message) -> None:
        """Takes a message, and passes it on at once where a consumer has credit."""
        self._numbers += 1
        self.bytes += len(message.data)
        self._full = self._full or self.bytes >= self._max_bytes
        self._wait(Entry(self, self._numbers, message))
        self._dispatch()

    def attach(self, consumer: Consumer) -> None:
        """Adds a consumer; it gets messages once it has credit."""
        self.consumers[consumer] = None
        self.wake(consumer)

    def detach(self, consumer: Consumer, failed: bool) -> None:
        """Removes a consumer and takes back what it held, in the old order.

        `failed`: its connection was lost, so each of these counts as a failed delivery; a consumer that
        said goodbye just gives them back.
        """
        if consumer not in self.consumers:
            return
        del self.consumers[consumer]
        self._ready.pop(consumer, None)
        for entry in list(consumer.held):
            self._end(consumer, entry, Fate.FAILED if failed else Fate.RETURNED)
        self._dispatch()

    def wake(self, consumer: Consumer) -> None:
        """Notes that a consumer's credit may have changed."""
        if consumer.port.credit > 0 and consumer in self.consumers:
            self._ready[consumer] = None
            self._dispatch()

    def settle(self, consumer: Consumer, entry: Entry, fate: Fate) -> None:
        """Ends one delivery. Does nothing for one that has ended, as when its consumer was detached."""
        if entry.holder is consumer:
            self._end(consumer, entry, fate)
            self._dispatch()

    def expire(self) -> None:
        """Drops waiting messages whose time is over."""
        now = self._clock()
        live = [item for item in self._waiting if item[2].message.expires > now]
        if len(live) == len(self._waiting):
            return
        over = [item[2] for item in self._waiting if item[2].message.expires <= now]
        heapq.heapify(live)
        self._waiting = live
        for entry in over:
            self._drop_expired(entry)

    def close(self, reason: Refusal) -> None:
        """Drops every message and ends every consumer."""
        consumers, self.consumers = self.consumers, {}
        self._ready.clear()
        self._waiting.clear()
        self._held = self.bytes = 0
        was_full, self._full = self._full, False
        for consumer in consumers:
            for entry in consumer.held:
                entry.holder = None
            consumer.held.clear()
            consumer.port.end(reason)
        if was_full:
            self._events.has_room()

    def _end(self, consumer: Consumer, entry: Entry, fate: Fate) -> None:
        entry.holder = None
        del consumer.held[entry]
        self._held -= 1
        if fate is Fate.FAILED:
            entry.failures += 1
            if self._max_deliveries is not None and entry.failures >= self._max_deliveries:
                fate = Fate.DEAD
        if fate in (Fate.RETURNED, Fate.FAILED):
            self._wait(entry)
            return
        self._forget(entry)
        if fate is Fate.DEAD:
            self._events.dead_letter(self, entry.message)

    def _wait(self, entry: Entry) -> None:
        heapq.heappush(self._waiting, (-entry.message.rank, entry.number, entry))

    def _dispatch(self) -> None:
        while self._waiting and self._ready:
            consumer, _ = self._ready.popitem(last=False)
            if consumer.port.credit <= 0:
                continue  # it was ready once: the peer or the socket has taken its credit away since
            entry = heapq.heappop(self._waiting)[2]
            if entry.message.expires <= self._clock():
                self._drop_expired(entry)
            else:
                self._hand(entry, consumer)
            self._ready[consumer] = None

    def _hand(self, entry: Entry, consumer: Consumer) -> None:
        entry.holder = consumer
        consumer.held[entry] = None
        self._held += 1
        consumer.port.deliver(entry)
        if consumer.settled and entry.holder is consumer:
            self._end(consumer, entry, Fate.DONE)

    def _drop_expired(self, entry: Entry) -> None:
        self._forget(entry)
        self._events.expired()

    def _forget(self, entry: Entry) -> None:
        self.bytes -= len(entry.message.data)
        if self._full and self.bytes <= self._max_bytes // 2:
            self._full = False
            self._events.has_room()
