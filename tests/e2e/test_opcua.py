"""OPC UA without hardware, by the installed command: the shipped process cell, and browsing it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from shell import hilgate, running, watching

import bench_profiles


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


async def test_an_alarm_comes_as_an_event_and_is_acknowledged(broker: str, tmp_path: Path) -> None:
    shipped = Path(bench_profiles.__file__).with_name("process-cell.yaml").read_text()
    # Nobody may write a heater's value that is out of its range; here a method of the cell does.
    made = shipped.replace("inputs: {name: String, volume: Double}", "inputs: {name: String, heater: Float}")
    assert made != shipped
    profile = tmp_path / "process-cell.yaml"
    profile.write_text(made)

    async def send(*words: str) -> Any:
        sent = await hilgate("send", "rig-07", *words, "--timeout", "30s", "--json", "--broker", broker)
        assert sent.code == 0, sent
        return sent.lines[0]["data"]

    words = ("--sil", "--bench", "rig-07", "--broker", broker, "--heartbeat", "500ms")
    async with (
        running("run", str(profile), *words),
        watching(broker) as benches,
        watching(broker, "rig-07") as watch,
    ):

        async def alarm(**wanted: Any) -> Any:
            found: list[Any] = []

            def is_it(event: Any) -> bool:
                for sample in event["data"].get("samples", []):
                    value = sample["values"].get("alarms", {})
                    if wanted.items() <= value.items():
                        found.append(value)
                return bool(found)

            await watch.until(is_it)
            return found[0]

        await benches.until(lambda event: event["data"]["state"] == "available")
        await send("call", "cell", "call", "name=start-batch", 'args={"name": "rinse", "heater": 20}')
        begun = await alarm(source="heater", active=True)
        assert (begun["severity"], begun["acked"], begun["retain"]) == (700, False, True)
        assert begun["message"] == "heater is above its range"
        identity = [f"{name}={json.dumps(begun[name])}" for name in ("event_id", "condition")]
        done = await send("call", "cell", "acknowledge", *identity, "comment=seen")
        assert "acknowledged" in str(done)
        await alarm(source="heater", active=True, acked=True, comment="seen")
        await send("write", "cell", "heater=3.5")
        over = await alarm(source="heater", active=False)
        assert over["message"] == "heater is back in its range"
