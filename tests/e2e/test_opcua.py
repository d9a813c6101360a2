"""OPC UA without hardware, by the installed command: the shipped process cell, and browsing it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from shell import hilgate, running, watching


@pytest.fixture
async def bench(broker: str) -> AsyncIterator[str]:
    """The URL of a broker with the simulated cell at it, as rig-07."""
    words = ("--sil", "--bench", "rig-07", "--broker", broker, "--heartbeat", "500ms")
    async with running("run", "process-cell", *words), watching(broker) as watch:
        await watch.until(lambda event: event["data"]["state"] == "available")
        yield broker


async def test_values_writes_and_methods_by_send(bench: str) -> None:
    async def send(*words: str) -> Any:
        sent = await hilgate("send", "rig-07", *words, "--timeout", "30s", "--json", "--broker", bench)
        assert sent.code == 0, sent
        return sent.lines[0]["data"]

    read = (await send("read", "cell", "level", "operator", "recipe", "mode"))["values"]
    assert 0 <= read["level"] <= 4
    assert (read["operator"], read["mode"], read["recipe"]["name"]) == ("early shift", "manual", "rinse")
    async with watching(bench, "rig-07") as watch:
        written = await send("write", "cell", "heater=6.5", "mode=automatic")
        assert written["values"] == {"heater": 6.5, "mode": "automatic"}

        def changed(event: Any) -> bool:
            samples = [sample["values"] for sample in event["data"].get("samples", [])]
            return any(values.get("heater") == 6.5 for values in samples)

        await watch.until(changed)
    done = await send("call", "cell", "call", "name=start-batch", 'args={"name": "rinse", "volume": 1.5}')
    assert "rinse" in str(done)
    status = await send("call", "cell", "status")
    assert status["server_state"] == "running"


async def test_a_full_tank_lets_nothing_in(bench: str) -> None:
    words = ("send", "rig-07", "write", "cell", "inlet-valve=120", "--timeout", "30s", "--broker", bench)
    refused = await hilgate(*words)
    assert refused.code == 1
    assert "above its max" in refused.out + refused.err
