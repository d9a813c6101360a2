"""OPC UA: 10,000 monitored items of one server, in the whole agent: its memory, and how long it all takes."""

import asyncio
import contextlib
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.opcua_changes import Seen, agent, talking
from benchmarks.opcua_clients import profile
from benchmarks.processes import free_port, used
from protocols.base import Sample
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.driver import OpcuaDriver

ITEMS = 10_000
RATE = 1000
CHANGING_S = 15.0
_LOOK_S = 0.002


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class _First:
    """A sink that waits for the first value of all items."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.all = asyncio.Event()

    def sample(self, sample: Sample) -> None:
        self.names.update(sample.values)
        if len(self.names) == ITEMS:
            self.all.set()

    def state(self, *_: object) -> None:
        """Nothing is made of it."""

    def lost(self, count: int, reason: str) -> None:
        raise AssertionError(f"{count} {reason}")

    frames = missed = state

    async def kept(self) -> None:
        """At once."""


async def _longest_stall(longest: list[float]) -> None:
    """Notes by how much the loop was late at most."""
    while True:
        start = time.perf_counter()
        await asyncio.sleep(_LOOK_S)
        longest[0] = max(longest[0], time.perf_counter() - start - _LOOK_S)


async def _driver(port: int) -> tuple[float, float, float]:
    """Seconds until the session, until the first value of all items, and the longest stall of the loop."""
    driver = OpcuaDriver(OpcuaDevice.model_validate(profile(port, ITEMS)).named("bench"))
    longest, first = [0.0], _First()
    looking = asyncio.create_task(_longest_stall(longest))
    start = time.monotonic()
    await driver.connect()
    connected = time.monotonic() - start
    run = asyncio.create_task(driver.run(first))
    await asyncio.wait_for(first.all.wait(), 120)
    took = time.monotonic() - start
    for task in (looking, run):
        task.cancel()
    await asyncio.gather(looking, run, return_exceptions=True)
    await driver.close()
    return connected, took, longest[0]


async def _measure(console: Console) -> None:
    port, seen = free_port(), Seen()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(talking("benchmarks.opcua_server", str(port), str(ITEMS)))
        connected, took, stall = await _driver(port)
        start = time.monotonic()
        process = await stack.enter_async_context(agent(port, ITEMS, seen))
        async with asyncio.timeout(120):
            while seen.values < ITEMS:
                await asyncio.sleep(0.05)
        whole = time.monotonic() - start
        await asyncio.sleep(2)
        quiet, before = _resident_mb(process.pid), seen.values
        made = await server.ask(f"change {RATE} {CHANGING_S} 1")
        await asyncio.sleep(2)
        steady, peak = _resident_mb(process.pid), used(process.pid).peak_mb
    table = Table(title=f"OPC UA: {ITEMS:,} monitored items of one server")
    for column in ("", "measured", "wanted"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("driver alone: connected after", f"{connected:.2f} s")
    table.add_row("driver alone: a value of each item after", f"{took:.2f} s")
    table.add_row("driver alone: longest stall of its loop", f"{stall * 1000:.0f} ms")
    table.add_row("agent: from exec until a consumer had a value of each", f"{whole:.1f} s")
    table.add_row("agent: resident memory once all values came", f"{quiet:.0f} MB")
    table.add_row(f"agent: after {made:,} changes", f"{steady:.0f} MB")
    table.add_row("agent: peak resident memory", f"{peak:.0f} MB", "< 200 MB")
    table.add_row("changes that the consumer got", f"{seen.values - before:,}", f"{made:,}")
    table.add_row("lost, as the agent said", f"{seen.lost}", "0")
    console.print(table)


def main() -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console(width=110)))


if __name__ == "__main__":
    main()
