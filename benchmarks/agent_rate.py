"""The whole agent: 1,000 registers each 10 ms from a libmodbus server to AMQP, 100,000 points a second.

Every register changes between two reads, so that nothing can be skipped as unchanged.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.processes import broker, hilgate, used
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.cloudevents import from_message
from tests.tools.modbus_peer import ModbusServer

REGISTERS = 1000
PERIOD_S = 0.010
WARM_UP_S = 3.0
MEASURED_S = 15.0

PROFILE = """
profile: rate
devices:
  plc:
    protocol: modbus
    connection: {{transport: tcp, host: 127.0.0.1, port: {port}, unit: 1}}
    address_base: 0
    poll: 10ms
    points:
"""


class _Seen:
    """What a consumer of the bench's events counted."""

    def __init__(self) -> None:
        self.points = 0
        self.samples = 0
        self.sequences: list[int] = []
        self.missed = 0

    def on_message(self, delivery: Delivery) -> None:
        """Counts one event."""
        delivery.accept()
        event = from_message(delivery.message())
        body = msgspec.json.decode(event.data)
        if event.type == "io.hilgate.loss.v1":
            self.missed += body["count"]
        for sample in body.get("samples", ()):
            self.samples += 1
            self.points += len(sample["values"])
            self.sequences.append(event.sequence)


async def _measure(console: Console) -> None:
    seen = _Seen()
    with ModbusServer("tcp", "0") as server, tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "rate.yaml"
        points = "".join(f"      r{n}: {{table: input, address: {5000 + n}}}\n" for n in range(REGISTERS))
        profile.write_text(PROFILE.format(port=server.port) + points)
        async with broker() as url, asyncio.TaskGroup() as group:
            client = Client(Options(url=url, container_id="benchmark"), lambda _state, _reason: None)
            listening = group.create_task(client.run())
            client.receiver(Address("hil.rate.events.*", "topic"), seen.on_message, credit=1000)
            async with hilgate("run", str(profile), "--bench", "rate", "--broker", url) as agent:
                async with asyncio.timeout(20):
                    while not seen.points:
                        await asyncio.sleep(0.05)
                await asyncio.sleep(WARM_UP_S)
                first, points_before, samples_before = used(agent.pid), seen.points, seen.samples
                missed_before, start = seen.missed, time.monotonic()
                machine = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "benchmarks.empty_loop", str(MEASURED_S)),
                    stdout=asyncio.subprocess.PIPE,
                )
                missed_by_machine = int((await machine.communicate())[0])
                took = time.monotonic() - start
                last = used(agent.pid)
                values, samples = seen.points - points_before, seen.samples - samples_before
                await asyncio.sleep(6)  # a heartbeat, with which missed cycles are said
            listening.cancel()
    holes = len(set(range(seen.sequences[0], seen.sequences[-1] + 1)) - set(seen.sequences))
    table = Table(
        title=f"whole agent: {REGISTERS} registers each {PERIOD_S * 1000:g} ms to AMQP, {took:.0f} s"
    )
    for column in ("", "measured", "wanted"):
        table.add_column(column, justify="left" if not column else "right")
    core = (last.cpu_s - first.cpu_s) / took
    table.add_row("points/s that a consumer got", f"{values / took:,.0f}", f"{REGISTERS / PERIOD_S:,.0f}")
    table.add_row("samples", f"{samples}", f"{took / PERIOD_S:.0f}")
    table.add_row("missed cycles", f"{seen.missed - missed_before}", "0")
    table.add_row("cycles that an empty loop missed beside it", f"{missed_by_machine}", "")
    table.add_row("holes in the sequence", f"{holes}", "0")
    table.add_row("CPU of the agent, of one core", f"{core:.1%}", "< 50 %")
    table.add_row("peak resident memory", f"{last.peak_mb:.1f} MB", "< 80 MB")
    console.print(table)


def main() -> None:
    """Measures and prints."""
    asyncio.run(_measure(Console()))
