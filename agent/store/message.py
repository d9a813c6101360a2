"""A message as a row of the outbox or of the dead letters, and what it counts. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from agent.store.base import Lane, Outgoing
from protocols.amqp.flavours import Address

MESSAGE_OVERHEAD = 512
"""Bytes a waiting message costs beside its data; it counts in the bounds."""
COLUMNS = "lane, at, expires, address, source, counter, sequence, time_ns, event_id, durable, data"
PLACES = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"


class Grave(NamedTuple):
    """A message on its way to the dead letters."""

    message: Outgoing
    id: int
    reason: str
    buried_ns: int


def size_of(message: Outgoing) -> int:
    """What a message counts in the bounds, in bytes."""
    return len(message.data) + MESSAGE_OVERHEAD


def is_plain(one: Outgoing) -> bool:
    """Whether the columns expires, address, counter and durable have their defaults."""
    return (
        one.expires is None
        and one.durable
        and one.address.kind != "direct"
        and (one.counter == one.source or not one.counter)
    )


def to_row(one: Outgoing) -> tuple[Any, ...]:
    """The values of `COLUMNS`."""
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


def from_row(row: Sequence[Any], channel: Address) -> Outgoing:
    """The message of an id and the values of `COLUMNS`, in its channel."""
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
