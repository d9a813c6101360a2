"""A command's round trip (AMQP in, Modbus write, result out), next to its two bare parts.

The three are measured in turn, round by round, in one run: what the machine does meanwhile hits all alike.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.asking import Asker
from benchmarks.processes import broker, hilgate
from protocols.amqp.client import Address, Client, Options
from tests.tools.modbus_peer import ModbusServer

ROUNDS = 2000
WARM_UP = 200

PROFILE = """
profile: round-trip
devices:
  plc:
    protocol: modbus
    connection: {{transport: tcp, host: 127.0.0.1, port: {port}, unit: 1}}
    address_base: 0
    poll: 1s
    points:
      setpoint: {{table: holding, address: 10, access: rw}}
"""


async def _rounds(steps: dict[str, Callable[[int], Awaitable[None]]]) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UP + ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            await step(number)
            if number >= WARM_UP:
                took[name].append((time.perf_counter() - start) * 1e6)
    return took


async def _measure(console: Console) -> None:
    with ModbusServer("tcp", "0") as server, tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "round-trip.yaml"
        profile.write_text(PROFILE.format(port=server.port))
        async with (
            broker() as url,
            hilgate("run", str(profile), "--bench", "rig", "--broker", url, "--log-level", "warning"),
            asyncio.TaskGroup() as group,
        ):
            echo = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.echo", url)
            client = Client(Options(url=url, container_id="benchmark"), lambda _state, _reason: None)
            running = group.create_task(client.run())
            asker = Asker(client)
            await asker.open()
            took = await _rounds(await _steps(client, asker, server.port))
            running.cancel()
            echo.terminate()
            await echo.wait()
    _print(console, took)


async def _steps(client: Client, asker: Asker, port: int) -> dict[str, Callable[[int], Awaitable[None]]]:
    echo = client.sender(Address("echo", "queue"))
    commands = client.sender(Address("hil.rig.commands", "queue"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def bare_amqp(number: int) -> None:
        await asker.ask(echo, b'{"op":"write","device":"plc","values":{"setpoint":%d}}' % number)

    async def bare_modbus(number: int) -> None:
        # Function 6, write single register (Modbus Application Protocol V1.1b3, section 6.6).
        writer.write(bytes((0, 1, 0, 0, 0, 6, 1, 6, 0, 11, number >> 8 & 255, number & 255)))
        await reader.readexactly(12)

    async def command(number: int) -> None:
        body = b'{"op":"write","device":"plc","values":{"setpoint":%d}}' % number
        result = msgspec.json.decode(await asker.ask(commands, body))
        assert result["status"] == "ok", result

    return {"bare AMQP round trip": bare_amqp, "bare Modbus write": bare_modbus, "command": command}


def _print(console: Console, took: dict[str, list[float]]) -> None:
    table = Table(title=f"command round trip, {ROUNDS} rounds, embedded broker, libmodbus server")
    for column in ("", "p50 us", "p99 us"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        name: (statistics.median(times), statistics.quantiles(times, n=100)[98])
        for name, times in took.items()
    }
    bare = [sum(column) for column in zip(*list(rows.values())[:2], strict=True)]
    for name, (middle, high) in rows.items():
        table.add_row(name, f"{middle:,.0f}", f"{high:,.0f}")
    table.add_row("sum of the bare parts", f"{bare[0]:,.0f}", f"{bare[1]:,.0f}")
    whole = rows["command"]
    table.add_row(
        "command / sum (wanted at p50: at most 1.5)", f"{whole[0] / bare[0]:.2f}", f"{whole[1] / bare[1]:.2f}"
    )
    console.print(table)


def main() -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console()))
