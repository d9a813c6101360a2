"""A store that lives as long as the process; only the epoch is kept on disk."""

import asyncio
import fcntl
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from agent.clock import Timeline, now_ns
from agent.store.base import AuditEntry, Journal, JournalEntry, Lane, Loss, Outbox, OutboxStats, Outgoing
from protocols.amqp.flavours import Address

JOURNAL_RETENTION_S = 24 * 3600.0
ENTRY_OVERHEAD = 512
"""Bytes that a journal entry costs beside its key and result."""
MESSAGE_OVERHEAD = 512
"""Bytes a waiting message costs beside its data; it counts in the bounds."""


class _Channel:
    def __init__(self) -> None:
        self.waiting: deque[Outgoing] = deque()
        self.filled = asyncio.Event()


class MemoryOutbox:
    """A bounded outbox: over `max_bytes` or `max_age` seconds the oldest telemetry goes, then events."""

    def __init__(self, max_bytes: int, max_age: float, timeline: Timeline | None = None) -> None:
        self._timeline = timeline or Timeline()
        self.on_channel: Callable[[Address], None] = lambda _: None
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._channels: dict[Address, _Channel] = {}
        self._lanes: dict[Lane, OrderedDict[int, tuple[float, Outgoing]]] = {
            lane: OrderedDict() for lane in Lane
        }
        self._bytes = 0
        self._in_flight: set[int] = set()
        self._losses: dict[tuple[str, str], Loss] = {}
        self._emptied = asyncio.Event()
        self._emptied.set()

    def put(self, message: Outgoing) -> None:
        """Takes a message and makes room for it if need be."""
        new = message.channel not in self._channels
        channel = self._channels.setdefault(message.channel, _Channel())
        channel.waiting.append(message)
        channel.filled.set()
        self._lanes[message.lane][id(message)] = (time.monotonic(), message)
        self._bytes += len(message.data) + MESSAGE_OVERHEAD
        self._emptied.clear()
        self._make_room()
        if new:
            self.on_channel(message.channel)

    def take(self, channel: Address) -> Outgoing | None:
        """The oldest message that waits in this channel, now in flight."""
        line = self._channels[channel]
        while line.waiting:
            message = line.waiting.popleft()
            if message.expires is None or message.expires > self._timeline.now():
                self._in_flight.add(id(message))
                return message
            self.give_up(message, "expired")
        line.filled.clear()
        return None

    async def wait(self, channel: Address) -> None:
        """Returns when something may wait in this channel."""
        await self._channels[channel].filled.wait()

    def give_up(self, message: Outgoing, reason: str) -> None:
        """Forgets a message that nobody will get, and counts it as a loss."""
        self.done(message)
        loss = self._losses.get((message.source, reason))
        if loss is None:
            self._losses[message.source, reason] = Loss(
                message.source,
                reason,
                1,
                message.sequence,
                message.sequence,
                message.time_ns,
                message.time_ns,
            )
        else:
            loss.count += 1
            loss.first, loss.last = min(loss.first, message.sequence), max(loss.last, message.sequence)
            loss.first_time_ns = min(loss.first_time_ns, message.time_ns)
            loss.last_time_ns = max(loss.last_time_ns, message.time_ns)

    def done(self, message: Outgoing) -> None:
        """Forgets a message."""
        if self._lanes[message.lane].pop(id(message), None) is not None:
            self._bytes -= len(message.data) + MESSAGE_OVERHEAD
        if not any(self._lanes.values()):
            self._emptied.set()

    def retry(self, messages: Sequence[Outgoing]) -> None:
        """Puts messages back to the front of their channels, in the order given."""
        for message in reversed(messages):
            self._in_flight.discard(id(message))
            channel = self._channels[message.channel]
            channel.waiting.appendleft(message)
            channel.filled.set()

    def postpone(self, message: Outgoing) -> None:
        """Puts a message to the back of its channel."""
        self._in_flight.discard(id(message))
        channel = self._channels[message.channel]
        channel.waiting.append(message)
        channel.filled.set()

    def bury(self, message: Outgoing, reason: str) -> None:
        """Forgets a message that the broker refused."""
        if message.lane is Lane.RESULT:
            self.done(message)
        else:
            self.give_up(message, reason)

    def losses(self) -> Sequence[Loss]:
        """What was given up and not yet said."""
        return list(self._losses.values())

    def said(self, losses: Sequence[Loss]) -> None:
        """Forgets losses."""
        for loss in losses:
            del self._losses[loss.source, loss.reason]

    def stats(self) -> OutboxStats:
        """What waits now."""
        heads = [next(iter(lane.values()))[0] for lane in self._lanes.values() if lane]
        age = time.monotonic() - min(heads) if heads else 0.0
        return OutboxStats(sum(map(len, self._lanes.values())), self._bytes, round(age, 3))

    async def empty(self) -> None:
        """Returns when nothing waits and nothing is in flight."""
        await self._emptied.wait()

    def _make_room(self) -> None:
        """Results never go; what is in flight stays until its outcome is known."""
        horizon = time.monotonic() - self._max_age
        for lane in (self._lanes[Lane.TELEMETRY], self._lanes[Lane.EVENT]):
            while victim := next(
                (entry for entry in lane.values() if id(entry[1]) not in self._in_flight), None
            ):
                since, message = victim
                over = self._bytes > self._max_bytes
                if not over and since >= horizon:
                    break
                self._channels[message.channel].waiting.remove(message)
                self.give_up(message, "outbox-full" if over else "too-old")


class MemoryJournal:
    """Commands and their results for 24 h; over `max_bytes` the oldest finished ones go first."""

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.since_ns = now_ns()
        self._entries: OrderedDict[str, JournalEntry] = OrderedDict()
        self._finished: deque[tuple[float, str, int]] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes

    async def find(self, key: str) -> JournalEntry | None:
        """The entry of a message-id."""
        return self._entries.get(key)

    async def unfinished(self) -> Sequence[JournalEntry]:
        """None: nothing is left of an earlier run."""
        return []

    def begin(self, entry: JournalEntry) -> None:
        """Notes a command before it is carried out."""
        self._entries[entry.key] = entry

    def finish(self, entry: JournalEntry) -> None:
        """Notes a command's result and forgets what is over age or over the bound."""
        assert entry.result is not None
        self._entries[entry.key] = entry
        now, size = time.monotonic(), len(entry.key) + len(entry.result) + ENTRY_OVERHEAD
        self._finished.append((now, entry.key, size))
        self._bytes += size
        while self._bytes > self._max_bytes or self._finished[0][0] < now - JOURNAL_RETENTION_S:
            _, oldest, freed = self._finished.popleft()
            self._bytes -= freed
            self._entries.pop(oldest, None)


class MemoryStore:
    """Outbox, journal and counters in memory; the epoch in `directory/epoch`.

    Without a directory, and in a new one, the epoch is the second of the start: a bench whose directory was
    lost does not fall behind what it said before.

    Raises:
        OSError: the directory cannot be written, or another agent uses it.
    """

    def __init__(self, directory: Path | None, max_bytes: int, max_age: float) -> None:
        self._lock = None if directory is None else _lock(directory)
        self.epoch = int(time.time()) if directory is None else _next_epoch(directory)
        self.timeline = Timeline()
        self.outbox: Outbox = MemoryOutbox(max_bytes, max_age, self.timeline)
        self.journal: Journal = MemoryJournal()
        self.trouble = ""
        self.on_trouble: Callable[[], None] = lambda: None
        self._counters: dict[str, int] = {}
        self._values: dict[str, bytes] = {}

    def remember(self, name: str, value: bytes | None) -> None:
        """Keeps a small value under a name."""
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value

    def recall(self, name: str) -> bytes | None:
        """The value last remembered under a name."""
        return self._values.get(name)

    def audit(self, entry: AuditEntry) -> None:
        """Keeps nothing."""

    def together(self) -> AbstractContextManager[None]:
        """Everything is kept at once anyway."""
        return nullcontext()

    async def stored(self) -> None:
        """Nothing is ever on its way."""

    def next_sequence(self, counter: str) -> int:
        """The next number of a counter, from 1."""
        number = self._counters[counter] = self._counters.get(counter, 0) + 1
        return number

    def close(self) -> None:
        """Leaves the directory to the next agent."""
        if self._lock is not None:
            self._lock.close()


def _lock(directory: Path) -> IO[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    file = (directory / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise OSError(error.errno, "another agent uses this store directory", str(directory)) from None
    return file


def _next_epoch(directory: Path) -> int:
    path = directory / "epoch"
    try:
        epoch = int(path.read_text()) + 1
    except (FileNotFoundError, ValueError):
        epoch = int(time.time())
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(f"{epoch}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return epoch
