"""An outage: what cannot be sent waits on disk and not in memory, and leaves in order once it can.

`python -m benchmarks.spool 24` is the same for a whole day.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from amqp_peer import Peer

from agent.events import Events
from agent.store import SqliteStore
from agent.uplink import Uplink
from protocols.amqp.client import Client, Options
from protocols.amqp.cloudevents import from_message
from protocols.amqp.links import Delivery

COUNT = 20_000
DEVICES = 2
EVERY = 500
"""Events between two looks at what is resident."""
BODY = b'{"samples": [%b]}' % b",".join(
    [b'{"time": "2026-11-22T02:30:46.1Z", "values": {"speed": 1.5}}'] * 40
)
MEMORY = 20 * 1024 * 1024
"""What spooling and draining may add to resident memory: a third of what waits."""


def resident() -> int:
    """Resident bytes of this process (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Sink(Peer):
    """Accepts everything and keeps only the sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = 1000
        self.sequences: dict[str, list[int]] = {}
        self.most = 0

    def on_message(self, delivery: Delivery) -> None:
        event = from_message(delivery.message())
        self.sequences.setdefault(event.source, []).append(event.sequence)
        delivery.accept()
        if event.sequence % EVERY == 0:
            self.most = max(self.most, resident())


async def test_a_long_outage_takes_disk_and_not_memory_and_ends_in_order(tmp_path: Path) -> None:
    sink = Sink()
    with contextlib.closing(SqliteStore(tmp_path, 2**30, 3600.0)) as store:
        before = resident()
        most = await spool(store)
        assert most - before < MEMORY
        assert store.outbox.stats().messages == COUNT
        assert (tmp_path / "store.db").stat().st_size > 3 * MEMORY
        async with sink.listening():
            await drain(store, sink.url)
    assert sink.most - before < MEMORY
    each = list(range(1, COUNT // DEVICES + 1))
    assert sink.sequences == {f"/benches/rig/devices/plc-{number}": each for number in range(DEVICES)}


async def spool(store: SqliteStore) -> int:
    """Puts all events; the most that was resident meanwhile."""
    events, most = Events("rig", store), 0
    for number in range(1, COUNT + 1):
        device = f"plc-{number % DEVICES}"
        events.device(device, BODY, time_ns=time.time_ns(), mode="hil", ttl=None, durable=True)
        if number % EVERY == 0:
            await store.stored()
            most = max(most, resident())
    return most


async def drain(store: SqliteStore, url: str) -> None:
    client = Client(Options(url, "spool", flavour="generic"), lambda *_: None)
    uplink = Uplink(client, store.outbox)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.run()), group.create_task(uplink.run())]
        async with asyncio.timeout(60):
            await store.outbox.empty()
        for task in tasks:
            task.cancel()
