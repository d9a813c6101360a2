"""An agent that is killed the moment it has confirmed events: the outstation has forgotten them."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dnp3_rig import ENABLE, NOON, FarEnd, analog_event, outstations
from shell import Running, running, watching
from waiting import until

ROUNDS = 4
POINTS = {"current": {"type": "analog_input", "index": 0}}


@contextlib.asynccontextmanager
async def agent(profile: Path, broker: str) -> AsyncIterator[Running]:
    words = ("--bench", "rig-07", "--broker", broker, "--store", str(profile.parent / "store"))
    async with running("run", str(profile), *words) as process:
        yield process


def values(event: Any) -> list[int]:
    """What the events (not the polls) in an event said, each with the time that the outstation gave it."""
    told = [(one["time"], one["values"].get("current")) for one in event["data"].get("samples", [])]
    return [value for time, value in told if time.startswith("2023-11-14T22:13:2")]


async def test_what_a_killed_agent_confirmed_arrives_once_with_its_time(broker: str, tmp_path: Path) -> None:
    far = FarEnd()
    async with outstations(far) as place, watching(broker, "rig-07") as watch:
        profile = tmp_path / "rig.yaml"
        device = {"protocol": "dnp3", "connection": dict(place.connection), "outstation": far.address}
        profile.write_text(json.dumps({"profile": "rig", "devices": {"rtu": {**device, "points": POINTS}}}))
        for number in range(ROUNDS):
            far.asked.clear()
            far.confirmed.clear()
            async with agent(profile, broker) as process:
                await until(lambda: ENABLE in far.functions())
                far.when_confirmed = process.process.kill
                sequence = far.report(analog_event(0, number, NOON + 1000 * number))
                await far.until_confirmed(sequence, unsolicited=True)
                await process.process.wait()
            far.when_confirmed = lambda: None
        seen: list[int] = []

        def complete(event: Any) -> bool:
            seen.extend(values(event))
            return len(seen) >= ROUNDS

        async with agent(profile, broker):
            await watch.until(complete)
    assert seen == list(range(ROUNDS))
