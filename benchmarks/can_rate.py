"""CAN, the whole path: frames of eight buses to AMQP events, raw and decoded, the agent on one core.

Where the kernel has no CAN, UDP on loopback stands in for the sockets (see can_stand_in); the rest is the
agent as it is installed, with its store on disk, and the embedded broker. Sender, broker and consumer have
the other cores.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.can_profile import DATABASE, SIGNALS
from benchmarks.processes import broker, free_port, used
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.cloudevents import from_message

BUSES = 8
RAW_RATE = 64_000
POINTS_RATE = 32_000
MEASURED_S = 15.0
QUIET_RATE = 20
QUIET_S = 30.0
WINDOW_S = 0.05
_RECORD = struct.Struct(">II")

BUS = """
  bus-{n}:
    protocol: can
    connection: {{channel: lo-{port}}}
    batch: {{window: 50ms}}
{view}
"""
RAW = "    frames: {}"
POINTS = "    database: wheels.dbc\n    points:\n" + "".join(
    f"      {name.lower()}: {{signal: {name}}}\n" for name in SIGNALS
)


class _Seen:
    """What a consumer of the events counted."""

    def __init__(self) -> None:
        self.frames = 0
        self.lost = 0
        self.events = 0
        self.sequences: dict[str, list[int]] = {}
        self.late: list[float] = []
        self.timing = False

    def on_message(self, delivery: Delivery) -> None:
        """Counts the frames, or the samples (each is one frame), of one event."""
        delivery.accept()
        event = from_message(delivery.message())
        now = time.time()
        if event.type == "io.hilgate.loss.v1":
            self.lost += msgspec.json.decode(event.data)["count"]
            return
        self.events += 1
        self.sequences.setdefault(event.source, []).append(event.sequence)
        if event.type == "io.hilgate.frames.v1":
            self.frames += (len(event.data) - 24) // 32
            if self.timing:
                seconds, rest = _RECORD.unpack_from(event.data, 24)
                self.late.append(now - seconds - rest * 1e-9)
        elif event.type == "io.hilgate.samples.v1":
            self.frames += event.data.count(b'"time":')

    @property
    def holes(self) -> int:
        """Sequences that are missing."""
        return sum(len(set(range(min(s), max(s) + 1)) - set(s)) for s in self.sequences.values())


class _Run(NamedTuple):
    sent: int
    seen: _Seen
    core: float
    peak_mb: float
    took: float


async def _sender(ports: list[int], rate: int, seconds: float) -> int:
    """Frames of all buses in turn, from a process of its own; how many."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.can_sender", str(rate), str(seconds), *map(str, ports)),
        stdout=asyncio.subprocess.PIPE,
    )
    return int((await process.communicate())[0])


@contextlib.asynccontextmanager
async def _agent(folder: Path, view: str, url: str) -> AsyncIterator[tuple[int, list[int]]]:
    """An agent with eight buses, pinned to the last core; its process and the ports of the buses."""
    ports = [free_port() for _ in range(BUSES)]
    (folder / "wheels.dbc").write_text(DATABASE)
    profile = folder / "rate.yaml"
    profile.write_text(
        "profile: rate\ndevices:"
        + "".join(BUS.format(n=n, port=port, view=view) for n, port in enumerate(ports))
    )
    words = ("run", str(profile), "--bench", "rate", "--broker", url, "--store", str(folder / "store"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.can_stand_in", *words), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        await asyncio.to_thread(_until_bound, ports)
        yield process.pid, ports
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 15)


def _until_bound(ports: list[int]) -> None:
    """Returns when all ports of UDP are taken."""
    end = time.monotonic() + 30
    for port in ports:
        while time.monotonic() < end:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    break
            time.sleep(0.02)


async def _whole(view: str, rate: int, seconds: float, *, timing: bool = False) -> _Run:
    seen = _Seen()
    with tempfile.TemporaryDirectory() as directory:
        async with broker() as url, asyncio.TaskGroup() as group:
            client = Client(Options(url=url, container_id="benchmark"), lambda _state, _reason: None)
            listening = group.create_task(client.run())
            client.receiver(Address("hil.rate.events.*", "topic"), seen.on_message, credit=1000)
            async with _agent(Path(directory), view, url) as (pid, ports):
                await _sender(ports, rate, 3.0)  # warm-up
                await _until_quiet(seen)
                before, first, start = seen.frames, used(pid), time.monotonic()
                seen.timing = timing
                sent = await _sender(ports, rate, seconds)
                last, took = used(pid), time.monotonic() - start
                await _until_quiet(seen)
                await asyncio.sleep(6)  # a heartbeat, with which losses are said
            listening.cancel()
    seen.frames -= before
    return _Run(sent, seen, (last.cpu_s - first.cpu_s) / took, last.peak_mb, took)


async def _until_quiet(seen: _Seen) -> None:
    """Returns when nothing more has come for a second."""
    count = -1
    while count != seen.frames:
        count = seen.frames
        await asyncio.sleep(1)


async def _measure(console: Console) -> None:
    table = Table(title=f"{BUSES} buses to AMQP events, the agent on one core, its store on disk")
    for column in ("", "raw frames", "decoded points", "wanted"):
        table.add_column(column, justify="left" if not column else "right")
    runs = [await _whole(RAW, RAW_RATE, MEASURED_S), await _whole(POINTS, POINTS_RATE, MEASURED_S)]
    table.add_row("frames/s sent", *(f"{run.sent / run.took:,.0f}" for run in runs), "64,000 and 32,000")
    table.add_row("frames sent", *(f"{run.sent:,}" for run in runs))
    table.add_row("frames a consumer got", *(f"{run.seen.frames:,}" for run in runs), "all")
    table.add_row("lost, as the agent said", *(str(run.seen.lost) for run in runs), "0")
    table.add_row("holes in the sequences", *(str(run.seen.holes) for run in runs), "0")
    table.add_row("CPU of the agent, of one core", *(f"{run.core:.0%}" for run in runs), "< 100 %")
    table.add_row(
        "CPU of the agent, us/frame", *(f"{run.core * run.took / run.sent * 1e6:.1f}" for run in runs)
    )
    table.add_row("peak resident memory", *(f"{run.peak_mb:.0f} MB" for run in runs))
    console.print(table)
    quiet = await _whole(RAW, QUIET_RATE, QUIET_S, timing=True)
    late = sorted(quiet.seen.late)
    p99 = late[int(len(late) * 0.99)]
    console.print(
        f"{QUIET_RATE} frames/s: from an event's first frame to the consumer, with a window of 50 ms: "
        f"p50 {late[len(late) // 2] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms (wanted: under 55) of {len(late)}"
    )


def main() -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console(width=110)))
