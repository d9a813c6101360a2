"""What a durable store adds to a command's round trip: three agents asked in turn, round by round.

One has no store, one a store that survives a killed process (normal), one that survives a power cut (full).
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.asking import Asker
from benchmarks.command_round_trip import PROFILE
from benchmarks.processes import broker, hilgate
from protocols.amqp.client import Address, Client, Options
from tests.tools.modbus_peer import ModbusServer

ROUNDS = 1500
WARM_UP = 150
OPS = {"ping": b'{"op":"ping"}', "write": b'{"op":"write","device":"plc","values":{"setpoint":%d}}'}
STORES = {"none": [], "normal": ["--store"], "full": ["--synchronous", "full", "--store"]}
"""Options of `hilgate run`, by what the store survives; a directory follows."""

Times = dict[tuple[str, str], list[float]]


async def _rounds(asker: Asker, client: Client) -> Times:
    senders = {store: client.sender(Address(f"hil.{store}.commands", "queue")) for store in STORES}
    took: Times = {(op, store): [] for op in OPS for store in STORES}
    for number in range(WARM_UP + ROUNDS):
        for (op, store), times in took.items():
            body = OPS[op] % number if op == "write" else OPS[op]
            start = time.perf_counter()
            result = msgspec.json.decode(await asker.ask(senders[store], body))
            if number >= WARM_UP:
                times.append((time.perf_counter() - start) * 1e6)
            assert result["status"] == "ok", result
    return took


async def _measure(console: Console) -> None:
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = await stack.enter_async_context(broker())
        for store, options in STORES.items():
            server = stack.enter_context(ModbusServer("tcp", "0"))
            profile = directory / f"{store}.yaml"
            profile.write_text(PROFILE.format(port=server.port))
            more = [*options, str(directory / store)] if options else []
            await stack.enter_async_context(
                hilgate(
                    "run", str(profile), "--bench", store, "--broker", url, "--log-level", "warning", *more
                )
            )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        client = Client(Options(url=url, container_id="benchmark"), lambda _state, _reason: None)
        running = group.create_task(client.run())
        asker = Asker(client)
        await asker.open()
        took = await _rounds(asker, client)
        running.cancel()
    _print(console, took)


def _print(console: Console, took: Times) -> None:
    table = Table(title=f"command round trip by what the store survives, {ROUNDS} rounds in turn")
    for column in ("op", "store", "p50 us", "p99 us", "added at p50", "added at p99"):
        table.add_column(column, justify="left" if column in ("op", "store") else "right")
    for op in OPS:
        without = _quantiles(took[op, "none"])
        for store in STORES:
            with_it = _quantiles(took[op, store])
            added = [f"{mine - bare:+,.0f}" for mine, bare in zip(with_it, without, strict=True)]
            table.add_row(
                op, store, *(f"{value:,.0f}" for value in with_it), *(added if store != "none" else ())
            )
        table.add_section()
    console.print(table)


def _quantiles(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def main() -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console()))
