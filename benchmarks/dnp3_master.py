"""The DNP3 master: an integrity poll of 1,000 analogs and a direct operate, next to opendnp3's own master.

All against one outstation of opendnp3, in turn, each master in a process of its own. hilgate gives
engineering values by name with their qualities; opendnp3's master in Python gives objects, whose value and
flags are taken by index or, as its lower bound, not looked at.
"""

import asyncio
import json
import statistics
import sys
from importlib.util import find_spec
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.dnp3_clients import MASTER, OUTSTATION, POINTS, POLLS
from benchmarks.processes import free_port
from tests.peers.opendnp3_peer import GET, peer, why_missing

ROUNDS = 9
CLIENTS = {
    "hilgate": "hilgate, values by name",
    "hilgate-uvloop": "hilgate on uvloop, values by name",
    "opendnp3": "opendnp3, values by index",
    "opendnp3-untaken": "opendnp3, values not looked at",
}


Round = tuple[float, float, list[float]]
"""CPU and wall-clock seconds of the polls, and seconds of each operate."""


class Figures(NamedTuple):
    """Medians over the rounds; latencies over all operates."""

    points_s: float
    ratio: float
    cpu_us: float
    operate_p50_ms: float
    operate_p99_ms: float


async def _round(client: str, port: int) -> Round:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.dnp3_clients", client, str(port)), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    cpu, wall, took = json.loads(said)
    return cpu, wall, took


async def _measure() -> dict[str, Figures]:
    port = free_port()
    line = {"transport": "tcp", "role": "listen", "host": "127.0.0.1", "port": port}
    options = {"points": POINTS, "kinds": ["analog_input", "binary_output"], "unsolicited": False}
    clients = [client for client in CLIENTS if client != "hilgate-uvloop" or find_spec("uvloop")]
    rounds: dict[str, list[Round]] = {client: [] for client in clients}
    addresses = {"outstation": OUTSTATION, "master": MASTER}
    async with peer("outstation", line, **options, **addresses) as outstation:
        values = [["analog_input", n, n, 1, None] for n in range(POINTS)]
        await outstation.do("update", points=values)
        for _ in range(ROUNDS):
            for client in clients:
                rounds[client].append(await _round(client, port))
    return {client: _figures(each, rounds["opendnp3"]) for client, each in rounds.items()}


def _figures(rounds: list[Round], beside: list[Round]) -> Figures:
    """`beside`: opendnp3's in the same rounds, so that what else the machine does weighs on both."""
    cpu = statistics.median(cpu for cpu, _, _ in rounds)
    ratio = statistics.median(
        theirs / mine for (_, mine, _), (_, theirs, _) in zip(rounds, beside, strict=True)
    )
    wall = statistics.median(wall for _, wall, _ in rounds)
    took = sorted(one * 1000 for _, _, latencies in rounds for one in latencies)
    p99 = took[int(len(took) * 0.99)]
    return Figures(POLLS * POINTS / wall, ratio, cpu / POLLS / POINTS * 1e6, statistics.median(took), p99)


def main() -> None:
    """Measures and prints."""
    console = Console(width=110)
    if (missing := why_missing()) is not None:
        console.print(f"DNP3 master: not measured, opendnp3 is {missing}; {GET}")
        return
    found = asyncio.run(_measure())
    table = Table(
        title=f"DNP3 master: integrity poll of {POINTS:,} analogs, and direct operate; opendnp3's outstation",
        caption=f"medians of {ROUNDS} rounds of {POLLS} polls; wanted: at least the rate of opendnp3",
    )
    for column in ("master", "points/s", "of opendnp3", "CPU us/point", "operate p50", "p99"):
        table.add_column(column, justify="left" if column == "master" else "right")
    for client, figures in found.items():
        table.add_row(
            CLIENTS[client],
            f"{figures.points_s:,.0f}",
            f"{figures.ratio:.2f}",
            f"{figures.cpu_us:.2f}",
            f"{figures.operate_p50_ms:.2f} ms",
            f"{figures.operate_p99_ms:.2f} ms",
        )
    console.print(table)


if __name__ == "__main__":
    main()
