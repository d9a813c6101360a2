"""The MQTT driver: messages received and CPU a message, next to bare paho, from one mosquitto in turn.

hilgate parses each message as JSON and gives three values by name; paho hands over a message, which is not
looked at. All speak MQTT 5.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.mqtt_clients import MESSAGES
from tests.peers.mosquitto import GET, mosquitto, why_missing

ROUNDS = 3
CLIENTS = {
    "hilgate": "hilgate, three values by name",
    "hilgate-uvloop": "hilgate on uvloop, three values by name",
    "paho-thread": "paho, its own loop in a thread",
    "paho-loop": "paho, by its hooks on asyncio",
}

Round = tuple[float, float]
"""CPU and wall-clock seconds."""


async def _round(client: str, port: int, qos: int) -> Round:
    words = (sys.executable, "-m", "benchmarks.mqtt_clients")
    process = await asyncio.create_subprocess_exec(
        *words, client, str(port), str(qos), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    publisher = await asyncio.create_subprocess_exec(*words, "publish", str(port), str(qos))
    said, _ = await process.communicate()
    await publisher.wait()
    cpu, wall = json.loads(said)
    return cpu, wall


async def _measure(port: int) -> dict[tuple[str, int], list[Round]]:
    clients = [client for client in CLIENTS if client != "hilgate-uvloop" or find_spec("uvloop")]
    rounds: dict[tuple[str, int], list[Round]] = {(client, qos): [] for qos in (0, 1) for client in clients}
    for _ in range(ROUNDS):
        for client, qos in rounds:
            rounds[client, qos].append(await _round(client, port, qos))
    return rounds


def main() -> None:
    """Measures and prints."""
    console = Console(width=110)
    if (missing := why_missing()) is not None:
        console.print(f"MQTT driver: not measured, {missing}; {GET}")
        return
    with tempfile.TemporaryDirectory(prefix="hilgate-") as folder:
        unbounded = ("max_queued_messages 0", "max_inflight_messages 100", "set_tcp_nodelay true")
        with mosquitto(Path(folder), *unbounded) as port:
            found = asyncio.run(_measure(port))
    table = Table(
        title=f"MQTT driver: {MESSAGES:,} JSON messages from mosquitto",
        caption=f"medians of {ROUNDS} rounds; ratio: to the cheaper paho; wanted: at most 1.5",
    )
    for column in ("client", "QoS", "messages/s", "CPU us/message", "CPU ratio"):
        table.add_column(column, justify="left" if column == "client" else "right")
    cpu = {key: statistics.median(cpu for cpu, _ in each) for key, each in found.items()}
    for (client, qos), each in found.items():
        wall = statistics.median(wall for _, wall in each)
        beside = min(cpu["paho-thread", qos], cpu["paho-loop", qos])
        table.add_row(
            CLIENTS[client],
            str(qos),
            f"{MESSAGES / wall:,.0f}",
            f"{cpu[client, qos] / MESSAGES * 1e6:.1f}",
            f"{cpu[client, qos] / beside:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
