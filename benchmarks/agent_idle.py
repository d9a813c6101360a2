"""The idle agent: ten devices polled each second, and how long it takes from cold to `available`."""

import asyncio
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.processes import broker, hilgate, used
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.cloudevents import from_message

DEVICES = 10
STARTS = 5
MEASURED_S = 20.0

DEVICE = """
  plc-{n}:
    protocol: modbus
    connection: {{transport: tcp, host: 127.0.0.1, port: {port}, unit: {n}}}
    address_base: 0
    poll: 1s
    points:
      speed:    {{table: input, address: 0, type: float32}}
      setpoint: {{table: holding, address: 10, access: rw}}
      running:  {{table: coil, address: 3}}
"""


async def _until_available(client: Client, arguments: tuple[str, ...], console: Console) -> list[float]:
    """Starts the agent again and again; seconds from exec to `available`, each."""
    available = asyncio.Event()

    def on_message(delivery: Delivery) -> None:
        delivery.accept()
        if msgspec.json.decode(from_message(delivery.message()).data)["state"] == "available":
            available.set()

    receiver = client.receiver(Address("hil.availability", "topic"), on_message, credit=100)
    took = []
    for number in range(STARTS):
        start = time.monotonic()
        async with hilgate(*arguments, "--bench", f"idle-{number}"):
            async with asyncio.timeout(20):
                await available.wait()
            took.append(time.monotonic() - start)
        available.clear()
    receiver.close()
    console.log("cold starts, s:", ", ".join(f"{seconds:.2f}" for seconds in took))
    return took


async def _measure(console: Console) -> None:
    with tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "idle.yaml"
        devices = "".join(DEVICE.format(n=n + 1, port=20_000 + n) for n in range(DEVICES))
        profile.write_text(f"profile: idle\ndevices:{devices}")
        async with broker() as url, asyncio.TaskGroup() as group:
            client = Client(Options(url=url, container_id="benchmark"), lambda _state, _reason: None)
            listening = group.create_task(client.run())
            starts = await _until_available(client, ("run", str(profile), "--sil", "--broker", url), console)
            async with hilgate("run", str(profile), "--sil", "--bench", "idle", "--broker", url) as agent:
                await asyncio.sleep(5)
                first, start = used(agent.pid), time.monotonic()
                await asyncio.sleep(MEASURED_S)
                last, took = used(agent.pid), time.monotonic() - start
            listening.cancel()
    table = Table(
        title=f"idle agent: {DEVICES} simulated Modbus devices each 1 s (simulators in the same process)"
    )
    for column in ("", "measured", "wanted"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("CPU, of one core", f"{(last.cpu_s - first.cpu_s) / took:.2%}", "< 1 %")
    table.add_row("peak resident memory", f"{last.peak_mb:.1f} MB", "")
    table.add_row("cold start to available, median", f"{sorted(starts)[STARTS // 2]:.2f} s", "< 1.5 s")
    table.add_row("cold start to available, worst", f"{max(starts):.2f} s", "")
    console.print(table)


def main() -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console()))
