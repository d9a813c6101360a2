"""What tests of the store share: messages, and a clock that steps."""

import pytest

from agent import clock
from agent.store import Lane, Outgoing, SqliteStore
from protocols.amqp.flavours import Address

TOPIC = Address("hil.rig.events.plc", "topic")
OTHER = Address("hil.rig.events.psu", "topic")


def message(
    sequence: int,
    lane: Lane = Lane.TELEMETRY,
    address: Address = TOPIC,
    size: int = 100,
    *,
    durable: bool = True,
) -> Outgoing:
    return Outgoing(address, lane, "/benches/rig", sequence, sequence * 1000, b"x" * size, durable=durable)


def put(
    store: SqliteStore,
    *sequences: int,
    lane: Lane = Lane.TELEMETRY,
    address: Address = TOPIC,
    durable: bool = True,
) -> None:
    for sequence in sequences:
        store.outbox.put(message(sequence, lane, address, durable=durable))


def taken(store: SqliteStore, channel: Address = TOPIC) -> list[int]:
    """What waits in memory, in order; it is in flight then."""
    return [found.sequence for found in iter(lambda: store.outbox.take(channel), None)]


class Clock:
    """The clock module under the test's thumb: it stands still otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._wall_ns = clock.now_ns()
        self._steady = clock.steady()
        monkeypatch.setattr(clock, "now_ns", lambda: self._wall_ns)
        monkeypatch.setattr(clock, "steady", lambda: self._steady)

    def step(self, seconds: float) -> None:
        """Steps the wall clock."""
        self._wall_ns += round(seconds * 1e9)

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self._steady += seconds
        self.step(seconds)
