"""OPC UA: changes received and forwarded, and CPU a change, next to bare subscriptions of asyncua's.

All are subscribed to one server of asyncua's at the same time and get the same changes: the whole agent as it
is installed, to AMQP events that a consumer counts; its driver alone; and asyncua with a handler, and with
nothing but a callback for each decoded message.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.opcua_clients import profile
from benchmarks.processes import broker, free_port, hilgate, used
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.cloudevents import from_message

ITEMS = 1000
RATE = 1500
MEASURED_S = 15.0
CLIENTS = {
    "agent": "hilgate, the whole agent to AMQP",
    "driver": "hilgate, its driver alone",
    "handler": "asyncua, subscription with a handler",
    "callback": "asyncua, callback with each decoded message",
}


class Seen:
    """What a consumer of the events counted."""

    def __init__(self) -> None:
        self.values = 0
        self.lost = 0

    def on_message(self, delivery: Delivery) -> None:
        """Counts the values of one event."""
        delivery.accept()
        event = from_message(delivery.message())
        if event.type == "io.hilgate.loss.v1":
            self.lost += msgspec.json.decode(event.data)["count"]
        elif event.type == "io.hilgate.samples.v1":
            samples = msgspec.json.decode(event.data)["samples"]
            self.values += sum(len(sample["values"]) for sample in samples)


class Talk:
    """A process that answers lines by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, line: str) -> int:
        """Its answer to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        return int(await self.heard())

    async def heard(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def talking(*words: str) -> AsyncIterator[Talk]:
    """A module of ours in a process of its own, once it said that it is ready; leaving ends it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *words, stdin=pipe, stdout=pipe)
    talk = Talk(process)
    try:
        while (said := await talk.heard()) != "ready":  # a driver may warn of what is insecure first
            if not said:
                raise RuntimeError(f"{words[0]} did not start")
        yield talk
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def agent(port: int, items: int, seen: Seen) -> AsyncIterator[asyncio.subprocess.Process]:
    """The installed agent with all items, and a consumer of its events at the embedded broker."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "opcua.yaml"
        path.write_text(json.dumps({"profile": "opcua", "devices": {"server": profile(port, items)}}))
        async with broker() as url:
            client = Client(Options(url=url, container_id="benchmark"), lambda _state, _reason: None)
            listening = asyncio.create_task(client.run())
            client.receiver(Address("hil.rate.events.*", "topic"), seen.on_message, credit=1000)
            try:
                async with hilgate("run", str(path), "--bench", "rate", "--broker", url) as process:
                    yield process
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)


class Figures(NamedTuple):
    """Of one client in one run."""

    changes: int
    changes_s: float
    cpu_us: float


async def _settled(seen: Seen, talks: Mapping[str, Talk]) -> dict[str, int]:
    """How many changes each client has had, once no more have come for two seconds."""
    before: dict[str, int] = {}
    while before != (
        now := {"agent": seen.values} | {name: await talk.ask("") for name, talk in talks.items()}
    ):
        before = now
        await asyncio.sleep(2)
    return now


async def _measure(*, spread: bool) -> tuple[dict[str, Figures], int]:
    port, seen = free_port(), Seen()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(talking("benchmarks.opcua_server", str(port), str(ITEMS)))
        talks = {
            name: await stack.enter_async_context(
                talking("benchmarks.opcua_clients", name, str(port), str(ITEMS))
            )
            for name in CLIENTS
            if name != "agent"
        }
        process = await stack.enter_async_context(agent(port, ITEMS, seen))
        async with asyncio.timeout(60):
            while seen.values < ITEMS:
                await asyncio.sleep(0.05)
        await server.ask(f"change {RATE} 3 {spread:d}")  # warm-up
        pids = {"agent": process.pid} | {name: talk.process.pid for name, talk in talks.items()}
        counts = await _settled(seen, talks)
        before = {name: used(pid).cpu_s for name, pid in pids.items()}
        start = time.monotonic()
        made = await server.ask(f"change {RATE} {MEASURED_S} {spread:d}")
        took = time.monotonic() - start
        got = await _settled(seen, talks)
        cpu = {name: used(pid).cpu_s - before[name] for name, pid in pids.items()}
    if seen.lost:
        raise RuntimeError(f"the agent says that {seen.lost} were lost")
    figures = {}
    for name in CLIENTS:
        changes = got[name] - counts[name]
        figures[name] = Figures(changes, changes / took, cpu[name] / changes * 1e6)
    return figures, made


def main() -> None:
    """Measures and prints."""
    console = Console(width=110)
    for spread in (False, True):
        found, made = asyncio.run(_measure(spread=spread))
        times = "each with its own source time" if spread else "all of 100 ms with one source time"
        table = Table(
            title=f"OPC UA: {made:,} changes of {ITEMS:,} items, {times}",
            caption="ratios: to asyncua with a handler, and with a callback; wanted: at most 1.5",
        )
        for column in ("client", "changes", "changes/s", "CPU us/change", "to handler", "to callback"):
            table.add_column(column, justify="left" if column == "client" else "right")
        for name, one in found.items():
            table.add_row(
                CLIENTS[name],
                f"{one.changes:,}",
                f"{one.changes_s:,.0f}",
                f"{one.cpu_us:.1f}",
                f"{one.cpu_us / found['handler'].cpu_us:.2f}",
                f"{one.cpu_us / found['callback'].cpu_us:.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
