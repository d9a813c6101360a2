"""The outbox as its thread sees it: where each row is, and which of them the loop has."""

import operator
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from agent.store.base import Outgoing
from agent.store.message import MESSAGE_OVERHEAD, size_of
from agent.store.rows import Rows, first_id
from agent.store.schema import NUMBER_BITS
from agent.store.unit import Report, Unit
from protocols.amqp.flavours import Address

WINDOW = 2048
"""Messages of one channel that the loop has at most; the others wait on disk."""
WINDOW_BYTES = 2 * 1024 * 1024
_NUMBER = (1 << NUMBER_BITS) - 1
_BLIND = range(1 << 20, 1 << 22)
"""Channel numbers of a run that cannot see which ones are on disk; it takes them by chance."""


@dataclass(slots=True)
class Line:
    """One channel: what it has, and what of that the loop has."""

    address: Address
    number: int
    last: int
    """The highest id in it."""
    pushed: int
    """The highest id that the loop was given."""
    held: dict[int, Outgoing] = field(default_factory=dict)
    held_bytes: int = 0
    kept: bool = False
    """Whether its number is on disk."""
    unread_after: int | None = None
    """Rows after this id that are on disk could not be read."""

    @property
    def behind(self) -> bool:
        """Whether some of it waits for the loop to have room."""
        return self.last > self.pushed

    def push(self, message: Outgoing, report: Report) -> None:
        """Hands the next message to the loop."""
        report.pushed.append(message)
        self.pushed = message.id
        self.held[message.id] = message
        self.held_bytes += size_of(message)


@dataclass(slots=True)
class Change:
    """What a transaction does to the outbox; true once it is committed."""

    number: int
    messages: int
    bytes: int
    memory_bytes: int
    channels: list[Line] = field(default_factory=list)
    """Those that are new on disk."""
    puts: list[Outgoing] = field(default_factory=list)
    gone: list[Outgoing] = field(default_factory=list)
    fresh_in_memory: list[Outgoing] = field(default_factory=list)
    gone_in_memory: list[Outgoing] = field(default_factory=list)


class Spool:
    """Knows all rows: durable ones on disk, the others, and all while the disk is in trouble, in memory."""

    def __init__(self, disk: Rows | None, memory: Rows, *, blind: bool = False) -> None:
        self._disk, self._memory = disk, memory
        self._lines: dict[Address, Line] = {}
        self._by_number: dict[int, Line] = {}
        self._blind = blind
        self._overlay_from: int | None = None
        """While the disk is in trouble: the last number that was given before."""
        self.readable = True
        self.messages = self.bytes = self._number = 0
        """What is on disk."""
        self.memory_bytes = 0
        self.adopt()

    @property
    def channels(self) -> list[Address]:
        """All that have messages."""
        return [line.address for line in self._by_number.values() if line.last > first_id(line.number)]

    def adopt(self) -> tuple[int, int]:
        """Takes over what an earlier run or another process left on disk: how many messages and bytes."""
        if self._disk is None:
            return 0, 0
        before, before_bytes = self.messages, self.bytes
        self.messages, self.bytes, number = self._disk.totals()
        self._number = max(self._number, number)
        for number, address in self._disk.channels():
            line = self._by_number.get(number) or self._add(address, number)
            line.last, line.kept = max(line.last, self._disk.last(number)), True
        return self.messages - before, self.bytes - before_bytes

    # -- a transaction --------------------------------------------------------------------------

    def write(self, units: Iterable[Unit]) -> Change:
        """Writes what units do to the outbox, inside a transaction."""
        change = Change(self._number, self.messages, self.bytes, self.memory_bytes)
        on_disk = self._disk is not None and self._overlay_from is None
        fresh: list[Outgoing] = []
        gone: list[Outgoing] = []
        for unit in units:
            for message in unit.puts:
                channel = message.channel
                line = self._lines.get(channel) or self._add(channel, self._new_number())
                change.number += 1
                message.id = first_id(line.number) | change.number
                (fresh if on_disk and message.durable else change.fresh_in_memory).append(message)
            change.puts += unit.puts
            for number in unit.gone:
                held = self._by_number[number >> NUMBER_BITS].held.get(number)
                if held is not None:
                    (change.gone_in_memory if self._in_memory(held) else gone).append(held)
        change.gone = gone + change.gone_in_memory
        change.messages += len(fresh) - len(gone)
        change.bytes += _size_of_all(fresh) - _size_of_all(gone)
        change.memory_bytes += _size_of_all(change.fresh_in_memory) - _size_of_all(change.gone_in_memory)
        if on_disk:
            self._write_disk(fresh, gone, change)
        return change

    def _write_disk(self, fresh: list[Outgoing], gone: list[Outgoing], change: Change) -> None:
        assert self._disk is not None
        for line in self._by_number.values():
            if not line.kept:
                self._disk.add_channel(line.address, line.number)
                change.channels.append(line)
        if fresh or gone:
            self._disk.insert(fresh)
            self._delete(gone)
            self._disk.set_totals(change.messages, change.bytes, change.number)

    def _delete(self, gone: list[Outgoing]) -> None:
        """Forgets messages: the oldest of a channel, as they mostly are, by one statement."""
        assert self._disk is not None
        by_number: dict[int, list[Outgoing]] = {}
        for message in gone:
            by_number.setdefault(message.id >> NUMBER_BITS, []).append(message)
        for number, messages in by_number.items():
            # Also those that are in memory only count: what is skipped is not among the oldest.
            oldest = islice(self._by_number[number].held.values(), len(messages))
            if all(map(operator.is_, oldest, messages)):
                self._disk.delete_oldest(number, messages[-1].id)
            else:
                self._disk.delete(messages)

    def _in_memory(self, message: Outgoing) -> bool:
        if self._disk is None or not message.durable:
            return True
        return self._overlay_from is not None and message.id & _NUMBER > self._overlay_from

    def committed(self, change: Change, report: Report) -> None:
        """Takes over what is now true, and hands on what is new."""
        self._number, self.messages, self.bytes = change.number, change.messages, change.bytes
        self.memory_bytes = change.memory_bytes
        lines = self._by_number
        for line in change.channels:
            line.kept = True
        for message in change.puts:
            line = lines[message.id >> NUMBER_BITS]
            if line.pushed == line.last and len(line.held) < WINDOW and line.held_bytes < WINDOW_BYTES:
                line.push(message, report)
            line.last = message.id
        for message in change.gone:
            line = lines[message.id >> NUMBER_BITS]
            if line.held.pop(message.id, None) is not None:
                line.held_bytes -= len(message.data) + MESSAGE_OVERHEAD

    def write_memory(self, change: Change) -> None:
        """Writes what is not for the disk, once the rest is committed there."""
        self._memory.insert(change.fresh_in_memory)
        self._memory.delete(change.gone_in_memory)

    # -- reading --------------------------------------------------------------------------------

    def refill(self, report: Report) -> None:
        """Hands on what waits in the databases for channels whose window is half empty."""
        for line in self._by_number.values():
            if line.behind and len(line.held) <= WINDOW // 2 and line.held_bytes <= WINDOW_BYTES // 2:
                self._read(line, report)

    def _read(self, line: Line, report: Report) -> None:
        most = WINDOW - len(line.held)
        room = WINDOW_BYTES - line.held_bytes
        found = [
            message
            for rows in (self._disk if self.readable else None, self._memory)
            if rows is not None
            for message in rows.after(line.number, line.address, line.pushed, most, room)
        ]
        found.sort(key=lambda message: message.id)
        for message in found[:most]:
            if line.held_bytes >= WINDOW_BYTES:
                return
            if message.id not in line.held:
                line.push(message, report)
        if len(found) < most and line.held_bytes < WINDOW_BYTES:
            line.pushed = line.last

    # -- trouble --------------------------------------------------------------------------------

    def leave_disk(self) -> None:
        """The disk takes nothing any more: what comes now is kept in memory, what is on disk is only read."""
        if self._overlay_from is None:
            self._overlay_from = self._number

    def stop_reading(self) -> None:
        """The disk cannot be read either: what is on it waits until it works again."""
        self.readable = False
        for line in self._by_number.values():
            if line.behind:
                line.unread_after = line.pushed

    def read_from(self, disk: Rows) -> bool:
        """Reads on from the same disk, opened anew; false if what is on it was never known."""
        if self._blind:
            return False
        self._disk = disk
        self._read_again()
        return True

    def move_to(self, disk: Rows, *, fresh: bool) -> None:
        """Writes to a disk that works what it lacks, and forgets there what is gone, in a transaction.

        Args:
            disk: The same as before, or one that was begun anew.
            fresh: It was begun anew: what it lacks is also what the loop has.
        """
        messages, size, number = disk.totals()
        moved = self._memory.durable({number: line.address for number, line in self._by_number.items()})
        if fresh:
            moved += [one for one in self._held() if one.durable and not self._in_memory(one)]
        for line in self._by_number.values():
            if fresh or not line.kept:
                disk.add_channel(line.address, line.number)
            last = line.pushed if line.unread_after is None else line.unread_after
            freed, freed_bytes = disk.delete_up_to(line.number, last, line.held)
            messages, size = messages - freed, size - freed_bytes
        disk.insert(moved)
        disk.set_totals(messages + len(moved), size + sum(map(size_of, moved)), max(number, self._number))

    def moved_to(self, disk: Rows) -> tuple[int, int]:
        """Goes on with the disk that everything was moved to: how many messages and bytes that adds."""
        messages, size, in_memory = self.messages, self.bytes, self.memory_bytes
        overlay = self._memory.delete_durable()
        self.memory_bytes = self._memory.bytes()
        self._disk, self._overlay_from, self._blind = disk, None, False
        self._read_again()
        self.adopt()
        return self.messages - messages - overlay, self.bytes - size - (in_memory - self.memory_bytes)

    def _read_again(self) -> None:
        self.readable = True
        for line in self._by_number.values():
            if line.unread_after is not None:
                line.pushed, line.unread_after = line.unread_after, None

    def _held(self) -> Iterator[Outgoing]:
        for line in self._by_number.values():
            yield from line.held.values()

    def _new_number(self) -> int:
        return random.choice(_BLIND) if self._blind else len(self._by_number) + 1

    def _add(self, address: Address, number: int) -> Line:
        line = Line(address, number, first_id(number), first_id(number))
        self._lines[address] = self._by_number[number] = line
        return line


def _size_of_all(messages: list[Outgoing]) -> int:
    return sum([len(message.data) for message in messages]) + len(messages) * MESSAGE_OVERHEAD
