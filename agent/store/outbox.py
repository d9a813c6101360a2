"""The outbox as the loop sees it: what waits in line, what is in flight, what is given up."""

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from agent import clock
from agent.clock import Timeline
from agent.store.base import Lane, Loss, OutboxStats, Outgoing
from agent.store.handover import Handover
from agent.store.message import Grave, size_of
from agent.store.opening import Found
from agent.store.unit import Report, Room
from protocols.amqp.flavours import Address

SLOW_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for the thread, beyond which the disk is too slow for telemetry."""


class _Line:
    """One channel: what may be taken."""

    def __init__(self) -> None:
        self.waiting: deque[Outgoing] = deque()
        self.filled = asyncio.Event()


class SqliteOutbox:
    """A bounded outbox: over `max_bytes` or `max_age` seconds the oldest telemetry goes, then events."""

    def __init__(self, handover: Handover, timeline: Timeline, max_bytes: int, max_age: float) -> None:
        self._handover = handover
        self._timeline = timeline
        self.max_bytes = max_bytes
        self._max_age = max_age
        self._on_channel: Callable[[Address], None] = lambda _: None
        self._lines: dict[Address, _Line] = {}
        self._held: dict[int, Outgoing] = {}
        """All that may be taken or is in flight."""
        self._messages = 0
        self._bytes = 0
        self._on_the_way = 0
        self._room = Room()
        self._losses: dict[int, Loss] = {}
        self._open: dict[tuple[str, str], int] = {}
        self._next_loss = 1
        self.lost: Counter[str] = Counter()
        """Messages given up since the agent started, by reason; one where nobody can say how many."""
        self._refills = 0
        """How often room was made and the thread has not yet given what waits behind."""
        self._emptied = asyncio.Event()
        self._emptied.set()

    def adopt(self, found: Found) -> None:
        """Takes over what an earlier run left."""
        for channel in found.spool.channels:
            self._line(channel)
        self._grow(found.spool.messages, found.spool.bytes)
        self._losses = found.losses
        self._next_loss = max(found.losses, default=0) + 1

    @property
    def on_channel(self) -> Callable[[Address], None]:
        """Called once for each channel; for those that exist, when it is set."""
        return self._on_channel

    @on_channel.setter
    def on_channel(self, callback: Callable[[Address], None]) -> None:
        self._on_channel = callback
        for channel in self._lines:
            callback(channel)

    # -- messages -------------------------------------------------------------------------------

    def put(self, message: Outgoing) -> None:
        """Takes a message, which `take` gives once it is stored."""
        puts = self._handover.unit.puts
        message.at = puts[-1].at if puts else self._timeline.now()  # what is put in one turn is of one age
        if message.channel not in self._lines:
            self._line(message.channel)
        if refusal := self._refusal(message):
            self._count_lost(message, refusal)
            return
        self._on_the_way += len(message.data)
        self._grow(1, size_of(message))
        puts.append(message)
        if len(puts) == 1:
            self._handover.changed()

    def take(self, channel: Address) -> Outgoing | None:
        """The oldest message that waits in this channel, now in flight."""
        line = self._lines[channel]
        now = self._timeline.now()
        while line.waiting:
            message = line.waiting.popleft()
            reason = self._why_stale(message, now)
            if not reason:
                return message
            self._lose(message, reason)
        line.filled.clear()
        return None

    async def wait(self, channel: Address) -> None:
        """Returns when something may wait in this channel."""
        self._handover.attach()
        await self._lines[channel].filled.wait()

    def done(self, message: Outgoing) -> None:
        """Forgets a message."""
        if self._held.pop(message.id, None) is None:
            return
        gone = self._handover.unit.gone
        gone.append(message.id)
        if len(gone) == 1:
            self._handover.changed()
        self._grow(-1, -size_of(message))

    def retry(self, messages: Sequence[Outgoing]) -> None:
        """Puts messages back to the front of their channels, in the order given."""
        for message in reversed(messages):
            line = self._lines[message.channel]
            line.waiting.appendleft(message)
            line.filled.set()

    def postpone(self, message: Outgoing) -> None:
        """Puts a message to the back of its channel."""
        line = self._lines[message.channel]
        line.waiting.append(message)
        line.filled.set()

    def bury(self, message: Outgoing, reason: str) -> None:
        """Moves a message that the broker refused to the dead letters."""
        grave = Grave(message, message.id, reason, clock.now_ns())
        self._handover.unit.graves.append(grave)
        if message.lane is Lane.RESULT:
            self.done(message)
        else:
            self._lose(message, "rejected")

    def stats(self) -> OutboxStats:
        """What waits now."""
        oldest = min((message.at for message in self._held.values()), default=None)
        age = 0.0 if oldest is None else self._timeline.now() - oldest
        return OutboxStats(self._messages, self._bytes, round(age, 3))

    async def empty(self) -> None:
        """Returns when nothing waits and nothing is in flight."""
        self._handover.attach()
        await self._emptied.wait()

    def report(self, report: Report) -> None:
        """Takes what the thread stored or read."""
        self._on_the_way -= report.handled
        self._room = report.room
        self._grow(report.messages, report.bytes)
        for message in report.pushed:
            self._held[message.id] = message
            line = self._line(message.channel)
            line.waiting.append(message)
            if len(line.waiting) == 1:
                line.filled.set()
        for message in report.unkept:
            self._grow(-1, -size_of(message))
            self._count_lost(message, "internal-error")
        self._make_room()

    # -- losses ---------------------------------------------------------------------------------

    def losses(self) -> Sequence[Loss]:
        """What was given up and not yet said; what is given up from now on is counted apart."""
        self._open.clear()
        return list(self._losses.values())

    def said(self, losses: Sequence[Loss]) -> None:
        """Forgets losses."""
        for loss in losses:
            number = next(number for number, known in self._losses.items() if known == loss)
            del self._losses[number]
            self._handover.unit.losses[number] = None
            self._handover.changed()

    def lose_unknown(self, reason: str) -> None:
        """Counts a loss of which nobody can say what it was."""
        now_ns = clock.now_ns()
        self.lost[reason] += 1
        self._note_loss(self._next_loss, Loss("store", reason, 0, 0, 0, now_ns, now_ns))
        self._next_loss += 1

    def counted(self) -> dict[int, Loss]:
        """All losses by number, as they are now; may be called in any thread."""
        return self._losses.copy()

    def _lose(self, message: Outgoing, reason: str) -> None:
        self.done(message)
        self._count_lost(message, reason)

    def _count_lost(self, message: Outgoing, reason: str) -> None:
        self.lost[reason] += 1
        number = self._open.get((message.source, reason))
        if number is None:
            number = self._open[message.source, reason] = self._next_loss
            self._next_loss += 1
            loss = Loss(message.source, reason, 0, *2 * [message.sequence], *2 * [message.time_ns])
        else:
            loss = self._losses[number]
        # A new one each time: the thread may hold the old.
        grown = msgspec.structs.replace(
            loss,
            count=loss.count + 1,
            first=min(loss.first, message.sequence),
            last=max(loss.last, message.sequence),
            first_time_ns=min(loss.first_time_ns, message.time_ns),
            last_time_ns=max(loss.last_time_ns, message.time_ns),
        )
        self._note_loss(number, grown)

    def _note_loss(self, number: int, loss: Loss) -> None:
        self._losses[number] = self._handover.unit.losses[number] = loss
        self._handover.changed()

    # -- bounds ---------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Gives up what waits and is over the bounds; what is in flight stays until its outcome is known."""
        now = self._timeline.now()
        if self._bytes <= self.max_bytes and not self._is_old(now):
            return
        excess = self._bytes - self.max_bytes
        victims: list[tuple[Outgoing, str]] = []
        for lane in (Lane.TELEMETRY, Lane.EVENT):
            if lane is Lane.EVENT and (victims or self._refills):
                break  # more telemetry may wait on disk, and comes before any event goes
            for message in self._oldest_first(lane):
                if excess <= 0 and message.at >= now - self._max_age:
                    break
                victims.append((message, "outbox-full" if excess > 0 else "too-old"))
                excess -= size_of(message)
        for message, reason in victims:
            self._lines[message.channel].waiting.remove(message)
            self._lose(message, reason)
        if victims:
            self._refills += 1
            self._handover.operate(lambda _: self._refilled)

    def _refilled(self) -> None:
        """What waited on disk behind what was given up is here."""
        self._refills -= 1
        self._make_room()

    def _is_old(self, now: float) -> bool:
        horizon = now - self._max_age
        return any(line.waiting and line.waiting[0].at < horizon for line in self._lines.values())

    def _oldest_first(self, lane: Lane) -> Iterator[Outgoing]:
        """Looks at no more than is asked for: a full outbox gives up one for every one that comes."""
        lines = [(one for one in line.waiting if one.lane is lane) for line in self._lines.values()]
        return heapq.merge(*lines, key=lambda message: message.at)

    def _why_stale(self, message: Outgoing, now: float) -> str:
        if message.expires is not None and message.expires <= now:
            return "expired"
        if message.lane is not Lane.RESULT and message.at < now - self._max_age:
            return "too-old"
        return ""

    def _refusal(self, message: Outgoing) -> str:
        """Why there is no room for a message now; empty if there is."""
        room = self._room
        if room.refused is not None and message.lane <= room.refused:
            return room.reason
        if room.passing_refused and not message.durable:
            return "outbox-full"
        if self._on_the_way > SLOW_BYTES and message.lane is Lane.TELEMETRY:
            return "slow-disk"
        return ""

    def _grow(self, messages: int, size: int) -> None:
        if not self._messages:
            self._emptied.clear()
        self._messages += messages
        self._bytes += size
        if not self._messages:
            self._emptied.set()

    def _line(self, channel: Address) -> _Line:
        line = self._lines.get(channel)
        if line is None:
            line = self._lines[channel] = _Line()
            self._on_channel(channel)
        return line
