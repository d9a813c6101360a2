"""Durable events through the store (put, take, done), next to a bare SQLite loop that does so to a table.

Both commit groups of the same size: so many rows in, and those of the group before out.
"""

import asyncio
import collections
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from agent.store import Lane, Outgoing, SqliteStore
from protocols.amqp.flavours import Address

ROW = b"x" * 600
TOPIC = Address("hil.rig.events.plc", "topic")
SOURCE = "/benches/rig/devices/plc"
GROUPS = {10: 3_000, 100: 20_000, 500: 20_000}
"""Events a measurement takes, by the size of a group."""
ROUNDS = 9
LIMIT = 2**30

TABLE = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY, lane INTEGER, at REAL, source TEXT,
    sequence INTEGER, time_ns INTEGER, event_id TEXT, data BLOB
)
"""
"""What the store keeps of an event."""

Synchronous = Literal["normal", "full"]
SYNCHRONOUS: tuple[Synchronous, ...] = ("normal", "full")


class Cost(NamedTuple):
    """What one event took: seconds by the wall, and of CPU in all threads."""

    wall_s: float
    cpu_s: float


@contextlib.contextmanager
def _measured(count: int, costs: list[Cost]) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    costs.append(Cost((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))


def _bare(synchronous: Synchronous, group: int, count: int, costs: list[Cost]) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(sqlite3.connect(Path(directory) / "bare.db", isolation_level=None)) as database,
    ):
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={synchronous}")
        database.execute(TABLE)
        with _measured(count, costs):
            for first in range(0, count + group, group):
                fresh = range(first, min(first + group, count))
                old = range(first - group, first) if first else ()
                database.execute("BEGIN IMMEDIATE")
                database.executemany(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (number, 0, 1.5, SOURCE, number, time.time_ns(), f"0a1b2c3d4e5f-{number}", ROW)
                        for number in fresh
                    ],
                )
                database.executemany("DELETE FROM events WHERE id = ?", [(number,) for number in old])
                database.execute("COMMIT")


async def _through(
    synchronous: Synchronous, group: int, count: int, costs: list[Cost], *, on_disk: bool = True
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(
            SqliteStore(Path(directory) if on_disk else None, LIMIT, 3600.0, synchronous=synchronous)
        ) as store,
    ):
        with _measured(count, costs):
            committed = asyncio.ensure_future(store.stored())
            for _ in range(0, count, group):
                for _ in range(group):
                    number = store.next_sequence(SOURCE)
                    identity = f"0a1b2c3d4e5f-{number}"
                    store.outbox.put(
                        Outgoing(
                            *(TOPIC, Lane.TELEMETRY, SOURCE, number, time.time_ns(), ROW), event_id=identity
                        )
                    )
                # The next group is made while this one is committed, as an agent's loop goes on, too.
                before, committed = committed, asyncio.ensure_future(store.stored())
                await before
                _take(store)
            await committed
            _take(store)
            await store.stored()
        assert store.outbox.stats().messages == 0


def _take(store: SqliteStore) -> None:
    """Takes all that is stored, as if the broker had accepted it at once."""
    while (message := store.outbox.take(TOPIC)) is not None:
        store.outbox.done(message)


async def _round(group: int, count: int, costs: dict[str, list[Cost]]) -> None:
    for synchronous in SYNCHRONOUS:
        _bare(synchronous, group, count, costs[f"bare {synchronous}"])
        await _through(synchronous, group, count, costs[f"store {synchronous}"])
    await _through("normal", group, count, costs["store in memory"], on_disk=False)


def _measure(console: Console) -> None:
    table = Table(title=f"durable events of {len(ROW)} B, put to done; medians of {ROUNDS} rounds in turn")
    columns = "group", "synchronous", "bare, events/s", "store, events/s", "ratio", "CPU us: bare", "store"
    for column in columns:
        table.add_column(column, justify="left" if column == "synchronous" else "right")
    for group, count in GROUPS.items():
        costs: dict[str, list[Cost]] = collections.defaultdict(list)
        for _ in range(ROUNDS):
            asyncio.run(_round(group, count, costs))
        for synchronous in SYNCHRONOUS:
            bare, store = costs[f"bare {synchronous}"], costs[f"store {synchronous}"]
            ratio = statistics.median(
                one.wall_s / other.wall_s for one, other in zip(bare, store, strict=True)
            )
            rates, cpu = (_rate(bare), _rate(store)), (_cpu(bare), _cpu(store))
            table.add_row(f"{group}", synchronous, *rates, f"{ratio:.2f}", *cpu)
        memory = costs["store in memory"]
        table.add_row(f"{group}", "in memory", "", _rate(memory), "", "", _cpu(memory))
        table.add_section()
    console.print(table)


def _rate(costs: list[Cost]) -> str:
    return f"{1 / statistics.median(cost.wall_s for cost in costs):,.0f}"


def _cpu(costs: list[Cost]) -> str:
    return f"{statistics.median(cost.cpu_s for cost in costs) * 1e6:.1f}"


def main() -> None:
    """Measures and prints; wanted: at least 0.5 of the bare loop."""
    _measure(Console())
