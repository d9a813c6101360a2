"""The outbox as its thread sees it: which rows there are, and which of them the loop has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.store.base import Outgoing
from agent.store.rows import Rows, first_id
from agent.store.schema import NUMBER_BITS
from agent.store.unit import Gone, Report, Unit, size_of
from protocols.amqp.flavours import Address

WINDOW = 2048
"""Messages of one channel that the loop has at most; the others wait on disk."""
WINDOW_BYTES = 2 * 1024 * 1024


@dataclass(slots=True)
class Line:
    """One channel: what it has, and how much of that the loop has."""

    address: Address
    number: int
    last: int
    """The highest id in it."""
    pushed: int
    """The highest id that the loop was given."""
    held: int = 0
    held_bytes: int = 0
    kept: bool = False
    """Whether its number is on disk."""

    @property
    def behind(self) -> bool:
        """Whether some of it waits for the loop to have room."""
        return self.last > self.pushed

    def push(self, message: Outgoing, report: Report) -> None:
        """Hands the next message to the loop."""
        report.pushed.append(message)
        self.pushed = message.id
        self.held += 1
        self.held_bytes += size_of(message)


@dataclass(slots=True)
class Change:
    """What a transaction does to the outbox; true once it is committed."""

    number: int
    messages: int
    bytes: int
    durable: list[Outgoing] = field(default_factory=list)
    passing: list[Outgoing] = field(default_factory=list)
    puts: list[tuple[Line, Outgoing]] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)


class Spool:
    """Keeps count of rows in the main database and, for what is not durable, in the memory."""

    def __init__(self, main: Rows, memory: Rows) -> None:
        self._main, self._memory = main, memory
        self._lines: dict[Address, Line] = {}
        self._by_number: dict[int, Line] = {}
        self.adopt()

    @property
    def channels(self) -> list[Address]:
        """All that have messages."""
        return [address for address, line in self._lines.items() if line.last > first_id(line.number)]

    def adopt(self) -> tuple[int, int]:
        """Takes over what an earlier run or another process left; says how many messages and bytes."""
        known, known_bytes = getattr(self, "messages", 0), getattr(self, "bytes", 0)
        self.messages, self.bytes, self._number = self._main.totals()
        for address, number in self._main.channels().items():
            last = self._main.last(number)
            line = self._lines.get(address) or self._add(address, number)
            line.last, line.kept = max(line.last, last), True
        return self.messages - known, self.bytes - known_bytes

    def write(self, units: Iterable[Unit]) -> Change:
        """Writes what units do to the outbox, inside a transaction."""
        change = Change(self._number, self.messages, self.bytes)
        for unit in units:
            self._put(unit.puts, change)
            for gone in unit.gone:
                change.gone.append(gone)
        rows = [one for one in change.gone if one.durable]
        if change.durable:
            for line in {id(line): line for line, _ in change.puts if not line.kept}.values():
                self._main.add_channel(line.address, line.number)
            self._main.insert(change.durable)
        if rows:
            self._main.delete(rows)
        if change.passing:
            self._memory.insert(change.passing)
        if len(rows) < len(change.gone):
            self._memory.delete(one for one in change.gone if not one.durable)
        if change.puts or rows:
            change.messages -= len(rows)
            change.bytes -= sum(one.size for one in rows)
            self._main.set_totals(change.messages, change.bytes, change.number)
        return change

    def _put(self, puts: Sequence[Outgoing], change: Change) -> None:
        for message in puts:
            channel = message.channel
            line = self._lines.get(channel) or self._add(channel, len(self._lines) + 1)
            change.number += 1
            message.id = first_id(line.number) | change.number
            change.puts.append((line, message))
            if message.durable:
                change.durable.append(message)
                change.messages += 1
                change.bytes += size_of(message)
            else:
                change.passing.append(message)

    def committed(self, change: Change, report: Report) -> None:
        """Takes over what is now true, and hands on what is new."""
        self._number, self.messages, self.bytes = change.number, change.messages, change.bytes
        for line, message in change.puts:
            if not line.behind and line.held < WINDOW and line.held_bytes < WINDOW_BYTES:
                line.push(message, report)
            line.last = message.id
            line.kept = line.kept or message.durable
        for gone in change.gone:
            line = self._by_number[gone.id >> NUMBER_BITS]
            line.held -= 1
            line.held_bytes -= gone.size

    def refill(self, report: Report) -> None:
        """Hands on what waits on disk for channels whose window is half empty."""
        for line in self._lines.values():
            if line.behind and line.held <= WINDOW // 2 and line.held_bytes <= WINDOW_BYTES // 2:
                self._read(line, report)

    def _read(self, line: Line, report: Report) -> None:
        room, most = WINDOW_BYTES - line.held_bytes, WINDOW - line.held
        found = [
            message
            for rows in (self._main, self._memory)
            for message in rows.after(line.number, line.address, line.pushed, most, room)
        ]
        found.sort(key=lambda message: message.id)
        for message in found[:most]:
            line.push(message, report)
            if line.held_bytes >= WINDOW_BYTES:
                return
        if len(found) < most:
            line.pushed = line.last

    def _add(self, address: Address, number: int) -> Line:
        line = Line(address, number, first_id(number), first_id(number))
        self._lines[address] = self._by_number[number] = line
        return line
