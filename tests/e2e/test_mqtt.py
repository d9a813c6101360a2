"""An MQTT device without hardware, by the installed command: the shipped climate chamber and the document."""

import re
from pathlib import Path
from typing import Any

import pytest
from shell import hilgate, running

READABLE = 12
"""Points of the profile that can be read."""
EXAMPLES = re.findall(
    r"^```yaml\n(.*?)^```",
    (Path(__file__).parents[2] / "docs/mqtt.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


async def test_the_plan_shows_one_subscription_for_each_topic() -> None:
    finished = await hilgate("check", "climate-chamber")
    assert finished.code == 0
    assert finished.out.count("SUBSCRIBE") == 5
    assert "SUBSCRIBE lab/probes/+/temperature QoS 1" in finished.out


async def test_every_point_of_the_demo_has_a_good_value() -> None:
    async with running("demo", "climate-chamber", "--port", "0", "--json") as demo:
        values: dict[str, Any] = {}

        def complete(event: Any) -> bool:
            if event["type"] == "io.hilgate.samples.v1":
                for sample in event["data"]["samples"]:
                    assert sample.get("bad", {}) == {}
                    values.update(sample["values"])
            return len(values) == READABLE

        await demo.until(complete)
        assert (values["mode"], values["door"], values["alarms"]) == ("running", False, [])
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("devices", EXAMPLES)
async def test_what_the_document_shows_runs_without_hardware(devices: str, tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(f"profile: rig\n{devices}")
    async with running("demo", str(profile), "--port", "0", "--json") as demo:
        await demo.until(lambda event: event["data"].get("state") == "available")
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")
