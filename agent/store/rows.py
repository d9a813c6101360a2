"""The rows of the outbox and the dead letters in one database."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from agent.store.base import Lane, Outgoing
from agent.store.schema import NUMBER_BITS
from agent.store.unit import Gone, Grave, size_of
from protocols.amqp.flavours import Address

_MESSAGE = "lane, at, expires, address, source, counter, sequence, time_ns, event_id, durable, data"
_INSERT = f"INSERT INTO outbox (id, {_MESSAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BURY = (
    f"INSERT INTO dead_letters (buried_ns, reason, channel, {_MESSAGE})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEXT = f"SELECT id, {_MESSAGE} FROM outbox WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
GRAVES = 10_000
"""Dead letters kept; of more the oldest go."""


def first_id(channel: int) -> int:
    """Below all ids of a channel; that of the next channel is above them."""
    return channel << NUMBER_BITS


class Rows:
    """The statements for one open database. It belongs to the keeper's thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def channels(self) -> dict[Address, int]:
        """All channels by address."""
        rows = self._database.execute("SELECT id, name, kind FROM channels")
        return {Address(name, cast(Literal["topic"], kind)): number for number, name, kind in rows}

    def add_channel(self, address: Address, number: int) -> None:
        """Gives a channel its number."""
        self._database.execute("INSERT OR IGNORE INTO channels VALUES (?, ?, ?)", (number, *_pair(address)))

    def totals(self) -> tuple[int, int, int]:
        """Messages, bytes and the last number given."""
        messages, size, number = self._database.execute("SELECT * FROM totals").fetchone()
        return messages, size, number

    def set_totals(self, messages: int, size: int, number: int) -> None:
        """Keeps what the outbox holds."""
        self._database.execute(
            "UPDATE totals SET messages = ?, bytes = ?, number = ?", (messages, size, number)
        )

    def insert(self, messages: Iterable[Outgoing]) -> None:
        """Adds messages that have their ids."""
        self._database.executemany(_INSERT, [(one.id, *_columns(one)) for one in messages])

    def delete(self, gone: Iterable[Gone]) -> None:
        """Forgets messages."""
        self._database.executemany("DELETE FROM outbox WHERE id = ?", [(one.id,) for one in gone])

    def last(self, channel: int) -> int:
        """The highest id in a channel, or the one below all."""
        (found,) = self._database.execute(
            "SELECT max(id) FROM outbox WHERE id > ? AND id < ?", (first_id(channel), first_id(channel + 1))
        ).fetchone()
        return first_id(channel) if found is None else int(found)

    def after(self, channel: int, address: Address, last: int, most: int, room: int) -> list[Outgoing]:
        """The next messages of a channel after an id: so many at most, and bytes until there is no room."""
        found = []
        cursor = self._database.execute(_NEXT, (last, first_id(channel + 1), most))
        for row in cursor:
            message = _message(row, address)
            found.append(message)
            room -= size_of(message)
            if room <= 0:
                break
        cursor.close()
        return found

    def bury(self, graves: Sequence[Grave]) -> None:
        """Adds dead letters, and forgets the oldest over the bound."""
        self._database.executemany(
            _BURY,
            [(one.buried_ns, one.reason, one.id >> NUMBER_BITS, *_columns(one.message)) for one in graves],
        )
        self._database.execute(
            "DELETE FROM dead_letters WHERE id <= (SELECT max(id) FROM dead_letters) - ?", (GRAVES,)
        )


def _pair(address: Address) -> tuple[str, str]:
    return address.name, address.kind


def _columns(one: Outgoing) -> tuple[Any, ...]:
    return (
        int(one.lane),
        one.at,
        one.expires,
        one.address.name if one.address.kind == "direct" else None,
        one.source,
        None if one.counter == one.source else one.counter,
        one.sequence,
        one.time_ns,
        one.event_id,
        one.durable,
        one.data,
    )


def _message(row: Sequence[Any], channel: Address) -> Outgoing:
    number, lane, at, expires, address, source, counter, sequence, time_ns, event_id, durable, data = row
    return Outgoing(
        channel if address is None else Address(address, "direct"),
        Lane(lane),
        source,
        sequence,
        time_ns,
        data,
        counter=source if counter is None else counter,
        event_id=event_id,
        expires=expires,
        durable=bool(durable),
        at=at,
        id=number,
    )
