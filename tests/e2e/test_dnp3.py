"""Outstations without hardware, by the installed command: the shipped feeder bay and the examples."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from shell import Running, hilgate, running, watching

from agent.profile import shipped

READABLE = 26
"""Points of the profile that can be read."""
EXAMPLES = re.findall(
    r"^```yaml\n(.*?)^```",
    (Path(__file__).parents[2] / "docs/dnp3.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


async def test_the_demo_shows_the_bay(tmp_path: Path) -> None:
    finished = await hilgate("demo", "feeder-bay", "--port", "0", "--for", "8s")
    assert (finished.code, finished.err) == (0, "")
    for word in ("available", "breaker-position", "on", "earth-switch", "current-l3", "kV", "J01 feeder"):
        assert word in finished.out


async def test_every_point_of_the_demo_has_a_good_value_and_events_their_own_time() -> None:
    async with running("demo", "feeder-bay", "--port", "0", "--json") as demo:
        values: dict[str, Any] = {}

        def complete(event: Any) -> bool:
            if event["type"] == "io.hilgate.samples.v1":
                for sample in event["data"]["samples"]:
                    assert sample.get("bad", {}) == {}
                    values.update(sample["values"])
            return len(values) == READABLE

        await demo.until(complete)
        assert (values["breaker-position"], values["earth-switch"]) == ("on", "off")
        assert values["relay-name"] == "J01 feeder protection"
        assert values["current-quality"] == "online"
        assert 100 < values["current-l1"] < 400
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("devices", EXAMPLES, ids=["points", "channels", "quality"])
async def test_what_the_document_shows_runs_without_hardware(devices: str, tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(f"profile: rig\n{devices}")
    async with running("demo", str(profile), "--port", "0", "--json") as demo:
        await demo.until(lambda event: event["data"].get("state") == "available")
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


@pytest.fixture
async def bench(broker: str) -> AsyncIterator[str]:
    """The URL of a broker with the simulated bay at it, as rig-07."""
    words = ("--sil", "--bench", "rig-07", "--broker", broker, "--heartbeat", "500ms")
    async with running("run", "feeder-bay", *words), watching(broker) as watch:
        await watch.until(lambda event: event["data"]["state"] == "available")
        yield broker


async def positions(watch: Running, last: str) -> list[str]:
    """What the breaker's position does, as heard, until it is `last`."""
    seen: list[str] = []

    def moved(event: Any) -> bool:
        samples = [sample["values"] for sample in event["data"].get("samples", [])]
        seen.extend(values["breaker-position"] for values in samples if "breaker-position" in values)
        return seen[-1:] == [last]

    await watch.until(moved)
    return seen


async def test_a_trip_by_send_moves_the_breaker_once(bench: str) -> None:
    async with watching(bench, "rig-07") as watch:
        sent = await hilgate(
            "send", "rig-07", "write", "bay", "breaker=false", "--timeout", "30s", "--json", "--broker", bench
        )
        (result,) = sent.lines
        assert (sent.code, result["status"], result["data"]["values"]) == (0, "ok", {"breaker": False})
        assert (await positions(watch, "off"))[-2:] == ["intermediate", "off"]
        closed = await hilgate(
            "send", "rig-07", "write", "bay", "breaker=true", "--timeout", "30s", "--broker", bench
        )
        assert closed.code == 0, closed
        # Had the trip been carried out twice, "off" would come a second time before it is on.
        assert [one for one in await positions(watch, "on") if one != "intermediate"] == ["on"]


async def test_calls_by_send(bench: str) -> None:
    async def send(*words: str) -> Any:
        sent = await hilgate("send", "rig-07", *words, "--timeout", "30s", "--json", "--broker", bench)
        assert sent.code == 0, sent
        return sent.lines[0]["data"]

    assert (await send("call", "bay", "integrity"))[
        "objects"
    ] >= READABLE - 1  # one point is flags of another
    before = (await send("read", "bay", "energy"))["values"]["energy"]
    await send("call", "bay", "freeze")
    frozen = (await send("read", "bay", "energy-frozen"))["values"]["energy-frozen"]
    assert before <= frozen <= (await send("read", "bay", "energy"))["values"]["energy"]
    assert (await send("call", "bay", "status"))["dropped"] == {}
    synchronised = await send("call", "bay", "time-sync", "procedure=non-lan")
    assert synchronised["delay_ms"] >= 0


async def test_an_earthed_feeder_is_not_closed_and_the_message_says_why(broker: str, tmp_path: Path) -> None:
    profile = tmp_path / "feeder-bay.yaml"
    text = shipped()["feeder-bay"].read_text()
    profile.write_text(text.replace('earth-switch: "off"\n', 'earth-switch: "on"\n'))
    words = ("--sil", "--bench", "rig-07", "--broker", broker, "--heartbeat", "500ms")
    async with running("run", str(profile), *words), watching(broker) as watch:
        await watch.until(lambda event: event["data"]["state"] == "available")
        sent = await hilgate(
            "send", "rig-07", "write", "bay", "breaker=true", "--timeout", "30s", "--broker", broker
        )
        assert sent.code == 1
        assert "earth-switch" in sent.out + sent.err
