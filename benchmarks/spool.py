"""An outage: events at 100 a second go to disk for hours, then the broker is back and takes them all.

They take the agent's own path (Events, store, uplink) in a process of its own, as fast as they go. Memory has
to stay flat at both, and the order to hold. `python -m benchmarks.spool 24` is 24 hours; else it is half one.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from agent.events import Events
from agent.store import SqliteStore
from agent.uplink import Uplink
from benchmarks.processes import free_port, used
from benchmarks.sink import Sink
from protocols.amqp.client import Client, Options

EVENTS_PER_S = 100
DEVICES = 4
HOURS = 0.5
BURST = 100
"""Events between two looks at the disk: the store may not be given more than it can write."""
BODY = msgspec.json.encode(
    {
        "samples": [
            {
                "time": "2026-11-22T02:30:46.123456789Z",
                "values": {f"channel-{n:02}": 1480.5 + n for n in range(10)},
            }
        ]
    }
)


class Stage(msgspec.Struct):
    """What one half of the outage took of the agent's process."""

    seconds: float
    cpu_s: float
    peak_mb: float
    disk_mb: float


class _Watch:
    """Measures this process from now on; so does the kernel its peak memory (proc(5), clear_refs)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        Path("/proc/self/clear_refs").write_text("5")
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def tell(self) -> None:
        """Prints the stage as a line of JSON."""
        disk = sum(file.stat().st_size for file in self._directory.iterdir())
        stage = Stage(
            time.perf_counter() - self._wall,
            time.process_time() - self._cpu,
            used(os.getpid()).peak_mb,
            disk / 1e6,
        )
        print(msgspec.json.encode(stage).decode(), flush=True)


async def _agent(directory: Path, count: int, url: str) -> None:
    """The agent's side: spools, says so, and drains after a line on standard input."""
    with contextlib.closing(SqliteStore(directory, 2**40, 7 * 86400.0)) as store:
        events = Events("rig", store)
        watch = _Watch(directory)
        for number in range(count):
            device = f"plc-{number % DEVICES}"
            events.device(device, BODY, time_ns=time.time_ns(), mode="hil", ttl=None, durable=True)
            if number % BURST == 0:
                await store.stored()
        await store.stored()
        watch.tell()
        sys.stdin.readline()
        watch = _Watch(directory)
        client = Client(Options(url, "spool", flavour="generic"), lambda *_: None)
        uplink = Uplink(client, store.outbox)
        tasks = [asyncio.create_task(client.run()), asyncio.create_task(uplink.run())]
        await store.outbox.empty()
        await store.stored()
        watch.tell()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _measure(console: Console, hours: float) -> None:
    count, sink, port = round(hours * 3600 * EVENTS_PER_S), Sink(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.spool", "agent", directory, str(count)),
            f"amqp://127.0.0.1:{port}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert agent.stdin is not None
        assert agent.stdout is not None
        spooled = msgspec.json.decode(await agent.stdout.readline(), type=Stage)
        async with sink.listening(port):
            agent.stdin.write(b"\n")
            drained = msgspec.json.decode(await agent.stdout.readline(), type=Stage)
            assert await agent.wait() == 0
    _print(console, count, {"spool": spooled, "drain": drained})
    console.print(
        f"arrived: {sink.count:,} of {count:,}; out of order or missing: {sink.misplaced:,}; "
        f"last sequences {sorted(sink.last.values())}"
    )


def _print(console: Console, count: int, stages: dict[str, Stage]) -> None:
    hours = count / EVENTS_PER_S / 3600
    table = Table(title=f"outage: {count:,} events, {hours:g} h at {EVENTS_PER_S}/s, from {DEVICES} devices")
    for column in ("", "events/s", "CPU us/event", "peak resident MB", "disk MB after it"):
        table.add_column(column, justify="left" if not column else "right")
    for name, stage in stages.items():
        table.add_row(
            name,
            f"{count / stage.seconds:,.0f}",
            f"{stage.cpu_s / count * 1e6:.0f}",
            f"{stage.peak_mb:.1f}",
            f"{stage.disk_mb:,.1f}",
        )
    console.print(table)


def main(hours: float = HOURS) -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console(), hours))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["agent", directory, count, url]:
            asyncio.run(_agent(Path(directory), int(count), url))
        case [hours]:
            main(float(hours))
