"""Text instruments without hardware, by the installed command: the shipped power bench."""

import re
from pathlib import Path
from typing import Any

import pytest
from shell import hilgate, running, watching

READABLE = {
    "supply": {"voltage-set", "current-set", "output", "voltage", "current"},
    "load": {"mode", "current-set", "input", "power"},
    "multimeter": {"reading", "trace"},
    "relays": {"relay-1", "relay-2", "key"},
}
EXAMPLES = re.findall(
    r"^```yaml\n(.*?)^```",
    (Path(__file__).parents[2] / "docs/text.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


async def test_every_point_of_the_demo_has_a_good_value() -> None:
    async with running("demo", "power-bench", "--port", "0", "--json") as demo:
        values: dict[str, dict[str, Any]] = {name: {} for name in READABLE}

        def complete(event: Any) -> bool:
            if event["type"] == "io.hilgate.samples.v1":
                for sample in event["data"]["samples"]:
                    assert sample.get("bad", {}) == {}
                    values[event["source"].rpartition("/")[2]].update(sample["values"])
            return {name: set(found) for name, found in values.items()} == READABLE

        await demo.until(complete)
        assert values["multimeter"]["trace"] == [1.0, 1.5, 2.0, 1.5]
        assert values["load"]["mode"] == "current"
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("devices", EXAMPLES, ids=["points", "lines"])
async def test_what_the_document_shows_runs_without_hardware(devices: str, tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(f"profile: rig\n{devices}")
    async with running("demo", str(profile), "--port", "0", "--json") as demo:
        await demo.until(lambda event: event["data"].get("state") == "available")
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


async def test_commands_reach_the_instruments(broker: str) -> None:
    words = ("--sil", "--bench", "rig-07", "--broker", broker, "--heartbeat", "500ms")
    async with running("run", "power-bench", *words), watching(broker) as watch:
        await watch.until(lambda event: event["data"]["state"] == "available")

        async def send(*command: str) -> Any:
            sent = await hilgate("send", "rig-07", *command, "--timeout", "30s", "--json", "--broker", broker)
            return sent.lines[0]

        written = await send("write", "supply", "voltage-set=12.3456", "output=true")
        assert written["data"]["values"] == {"voltage-set": 12.346, "output": True}
        assert (await send("read", "supply", "voltage-set"))["data"]["values"] == {"voltage-set": 12.346}
        assert (await send("write", "relays", "relay-2=true"))["status"] == "ok"
        assert (await send("call", "load", "identify"))["data"]["model"] == "load"
        refused = await send("call", "supply", "send", "command=VOLT 99")
        assert refused["status"] == "failed"
        assert '-222,"Data out of range"' in str(refused)
        beyond = await send("write", "supply", "voltage-set=61")
        assert beyond["status"] == "rejected"
