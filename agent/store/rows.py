"""The rows of the outbox in one database."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Literal, cast

import msgspec

from agent.store.base import Outgoing
from agent.store.message import COLUMNS, MESSAGE_OVERHEAD, PLACES, from_row, is_plain, size_of, to_row
from agent.store.schema import NUMBER_BITS
from protocols.amqp.flavours import Address

_INSERT = f"INSERT INTO outbox (id, {COLUMNS}) VALUES (?, {PLACES})"
_INSERT_PLAIN = (
    "INSERT INTO outbox (id, lane, at, source, sequence, time_ns, event_id, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEXT = f"SELECT id, {COLUMNS} FROM outbox WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
_BYTES = f"coalesce(sum(length(data) + {MESSAGE_OVERHEAD}), 0)"


def first_id(channel: int) -> int:
    """Below all ids of a channel; that of the next channel is above them."""
    return channel << NUMBER_BITS


class Rows:
    """The statements for one open database. It belongs to the keeper's thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def channels(self) -> list[tuple[int, Address]]:
        """All channels: number and address."""
        rows = self._database.execute("SELECT id, name, kind FROM channels ORDER BY id")
        return [(number, Address(name, cast(Literal["topic"], kind))) for number, name, kind in rows]

    def add_channel(self, address: Address, number: int) -> None:
        """Gives a channel its number."""
        self._database.execute("INSERT INTO channels VALUES (?, ?, ?)", (number, address.name, address.kind))

    def totals(self) -> tuple[int, int, int]:
        """Messages, bytes and the last number given."""
        messages, size, number = self._database.execute(
            "SELECT messages, bytes, number FROM totals"
        ).fetchone()
        return messages, size, number

    def set_totals(self, messages: int, size: int, number: int) -> None:
        """Keeps what the outbox holds."""
        self._database.execute(
            "UPDATE totals SET messages = ?, bytes = ?, number = ?", (messages, size, number)
        )

    def insert(self, messages: Iterable[Outgoing]) -> None:
        """Adds messages that have their ids."""
        plain: list[tuple[object, ...]] = []
        others: list[tuple[object, ...]] = []
        for one in messages:
            if is_plain(one):  # most are, and binding a value costs as much as storing it
                plain.append(_plain_row(one))
            else:
                others.append((one.id, *to_row(one)))
        if plain:
            self._database.executemany(_INSERT_PLAIN, plain)
        if others:
            self._database.executemany(_INSERT, others)

    def delete(self, messages: Iterable[Outgoing]) -> None:
        """Forgets messages."""
        self._database.executemany("DELETE FROM outbox WHERE id = ?", [(one.id,) for one in messages])

    def delete_oldest(self, channel: int, last: int) -> None:
        """Forgets all of a channel up to an id."""
        self._database.execute("DELETE FROM outbox WHERE id > ? AND id <= ?", (first_id(channel), last))

    def delete_up_to(self, channel: int, last: int, but: Iterable[int]) -> tuple[int, int]:
        """Forgets all of a channel up to an id but some: how many messages and bytes that were."""
        which = "FROM outbox WHERE id > ? AND id <= ? AND id NOT IN (SELECT value FROM json_each(?))"
        values = (first_id(channel), last, msgspec.json.encode(list(but)).decode())
        found = self._database.execute(f"SELECT count(*), {_BYTES} {which}", values).fetchone()
        self._database.execute(f"DELETE {which}", values)
        return int(found[0]), int(found[1])

    def durable(self, channels: Mapping[int, Address]) -> list[Outgoing]:
        """All durable messages of channels."""
        rows = self._database.execute(f"SELECT id, {COLUMNS} FROM outbox WHERE durable ORDER BY id")
        return [from_row(row, channels[row[0] >> NUMBER_BITS]) for row in rows]

    def delete_durable(self) -> int:
        """Forgets all durable messages: how many those were."""
        return self._database.execute("DELETE FROM outbox WHERE durable").rowcount

    def bytes(self) -> int:
        """What all messages count in the bounds."""
        (size,) = self._database.execute(f"SELECT {_BYTES} FROM outbox").fetchone()
        return int(size)

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
            message = from_row(row, address)
            found.append(message)
            room -= size_of(message)
            if room <= 0:
                break
        cursor.close()
        return found


def _plain_row(one: Outgoing) -> tuple[int, int, float, str, int, int, str, bytes]:
    return one.id, int(one.lane), one.at, one.source, one.sequence, one.time_ns, one.event_id, one.data
