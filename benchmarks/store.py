"""Durable events through the store (put, take, done), next to a bare SQLite loop that does so to a table.

Both commit groups of the same size: so many rows in, and those of the group before out.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from agent.store import Lane, Outgoing, SqliteStore
from protocols.amqp.flavours import Address

ROW = b"x" * 600
TOPIC = Address("hil.rig.events.plc", "topic")
SOURCE = "/benches/rig/devices/plc"
GROUPS = {10: 5_000, 100: 40_000, 1_000: 80_000}
"""Events a measurement takes, by the size of a group."""
ROUNDS = 5
LIMIT = 2**30

Synchronous = Literal["normal", "full"]


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
        database.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, channel INTEGER, lane INTEGER, source TEXT,"
            " sequence INTEGER, time INTEGER, data BLOB)"
        )
        with _measured(count, costs):
            for first in range(0, count + group, group):
                fresh = range(first, min(first + group, count))
                old = range(first - group, first) if first else ()
                database.execute("BEGIN IMMEDIATE")
                database.executemany(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(number, 1, 0, SOURCE, number, time.time_ns(), ROW) for number in fresh],
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
        outbox = store.outbox
        with _measured(count, costs):
            for _ in range(0, count, group):
                for _ in range(group):
                    sequence = store.next_sequence(SOURCE)
                    outbox.put(Outgoing(TOPIC, Lane.TELEMETRY, SOURCE, sequence, time.time_ns(), ROW))
                await store.stored()
                while (message := outbox.take(TOPIC)) is not None:
                    outbox.done(message)
            await store.stored()


def _measure(console: Console) -> None:
    ways: dict[str, Callable[[int, int, list[Cost]], None]] = {
        "bare loop, normal": lambda *case: _bare("normal", *case),
        "store, normal": lambda *case: asyncio.run(_through("normal", *case)),
        "bare loop, full": lambda *case: _bare("full", *case),
        "store, full": lambda *case: asyncio.run(_through("full", *case)),
        "store in memory": lambda *case: asyncio.run(_through("normal", *case, on_disk=False)),
    }
    table = Table(title=f"durable events of {len(ROW)} B, put to done; median of {ROUNDS} rounds in turn")
    for column in ("events in a group", "", "events/s", "of the bare loop", "CPU us/event"):
        table.add_column(column, justify="left" if not column else "right")
    for group, count in GROUPS.items():
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                way(group, count, costs[name])
        _rows(table, group, costs)
    console.print(table)


def _rows(table: Table, group: int, costs: dict[str, list[Cost]]) -> None:
    middle = {
        name: Cost(*(statistics.median(column) for column in zip(*found, strict=True)))
        for name, found in costs.items()
    }
    for name, cost in middle.items():
        bare = middle.get(name.replace("store", "bare loop"))
        ratio = f"{bare.wall_s / cost.wall_s:.2f}" if bare is not None and bare is not cost else ""
        table.add_row(f"{group}", name, f"{1 / cost.wall_s:,.0f}", ratio, f"{cost.cpu_s * 1e6:.1f}")
    table.add_section()


def main() -> None:
    """Measures and prints; wanted: at least 0.5 of the bare loop."""
    _measure(Console())
