"""`hilgate safe-state` after an agent whose profile or settings were replaced while it ran."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import hilgate, watching
from test_safe_state import PROFILE, Rig, rig, state, write

__all__ = ["rig"]  # a fixture

KILLED = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
ON = {"setpoint": 1500.0, "running": True}
SAFE = {"setpoint": 0.0, "running": False}


def another(path: Path) -> None:
    """A valid one, of a device that is elsewhere and without one of the outputs."""
    lines = [line for line in PROFILE.splitlines() if " running:" not in line]
    path.write_text("\n".join(lines).replace("PORT", "1").replace(", running: true", ""))


def fewer(path: Path) -> None:
    """A valid one, of the same device without one of the outputs."""
    lines = [line for line in path.read_text().splitlines() if " running:" not in line]
    path.write_text("\n".join(lines).replace(", running: true", ""))


async def killed(rig: Rig, broker: str, *more: str) -> None:
    """Leaves the device's outputs on and no agent."""
    async with rig.agent(broker, *more) as agent:
        await state(broker, "available")
        await write(broker, "setpoint=1500", "running=true")
        agent.process.send_signal(signal.SIGKILL)
        await agent.process.wait()
    assert await rig.values() == ON


@pytest.mark.parametrize(
    ("replace", "why"),
    [
        (lambda path: path.write_text("devices: {"), "is not valid now"),
        (lambda path: path.unlink(), "is not valid now"),
        (another, "is another now"),
        (fewer, "is another now"),
    ],
    ids=["broken", "gone", "another", "fewer"],
)
async def test_what_an_agent_drove_is_made_safe_whatever_became_of_its_profile(
    rig: Rig, broker: str, replace: Callable[[Path], None], why: str
) -> None:
    await killed(rig, broker)
    replace(rig.profile)
    done = await rig.safe_state("--json", **KILLED)
    assert await rig.values() == SAFE
    (said,) = done.lines
    assert (done.code, said["safe"], len(said["points"])) == (0, True, 2)
    assert said["reason"] == (
        "the service ended: signal (killed KILL); "
        f"by the profile that the agent ran with, for {rig.profile.name} {why}"
    )
    assert "The profile that the agent ran with counts" in done.err


@pytest.mark.parametrize("wrong", ["borker: amqp://127.0.0.1\n", "sil: true\n"], ids=["broken", "simulated"])
async def test_nor_does_it_matter_what_became_of_its_settings(rig: Rig, broker: str, wrong: str) -> None:
    settings = rig.profile.with_name("settings.yaml")
    settings.write_text("heartbeat: 400ms\n")
    await killed(rig, broker, "--settings", str(settings))
    settings.write_text(wrong)
    done = await rig.safe_state("--settings", str(settings), **KILLED)
    assert (done.code, await rig.values()) == (0, SAFE), done
    settings.write_text("borker: amqp://127.0.0.1\n")
    assert (await rig.safe_state("--settings", str(settings), **KILLED)).code == 2  # it was made safe


async def test_the_next_agent_says_by_which_profile_it_was_done(rig: Rig, broker: str) -> None:
    await killed(rig, broker)
    there = rig.profile.read_text()
    rig.profile.write_text("broken")
    assert (await rig.safe_state(**KILLED)).code == 0
    rig.profile.write_text(there)
    async with watching(broker, "rig-07") as watch:
        async with rig.agent(broker):
            event = await watch.until(lambda event: event["type"] == "io.hilgate.safety.v1")
    assert event["data"]["reason"].endswith("for small-rig.yaml is not valid now")


async def test_a_bench_that_was_made_safe_is_nobodys_and_the_profile_given_counts(
    rig: Rig, broker: str
) -> None:
    """By the agent's own stop, by the command before, and where all was simulated."""
    there = rig.profile.read_text()
    for more, end in (((), signal.SIGTERM), ((), signal.SIGKILL), (("--sil",), signal.SIGKILL)):
        async with rig.agent(broker, *more) as agent:
            await state(broker, "available")
            agent.process.send_signal(end)
            await agent.process.wait()
        if not more and end is signal.SIGKILL:
            assert (await rig.safe_state(**KILLED)).code == 0
        another(rig.profile)
        done = await rig.safe_state("--within", "1s", "--json")
        (said,) = done.lines
        assert (done.code, [point["point"] for point in said["points"]]) == (3, ["setpoint"])
        assert done.err == ""
        rig.profile.write_text(there)


async def test_without_the_store_another_profile_is_driven_on_purpose(rig: Rig, broker: str) -> None:
    await killed(rig, broker)
    fewer(rig.profile)
    assert (await hilgate("safe-state", str(rig.profile))).code == 0
    assert await rig.values() == {"setpoint": 0.0, "running": True}


async def test_what_is_not_safe_yet_is_tried_again(rig: Rig, broker: str) -> None:
    """An agent that is stalled holds its store; what it ran with is read all the same, and stays."""
    async with rig.agent(broker) as agent:
        await state(broker, "available")
        await write(broker, "setpoint=1500", "running=true")
        rig.profile.write_text("broken")
        agent.process.send_signal(signal.SIGSTOP)
        for _ in range(2):
            assert (await rig.safe_state("--if-stalled")).code == 0
            assert (await rig.values())["running"] is False


async def test_what_is_damaged_is_said_and_the_profile_given_counts(rig: Rig, broker: str) -> None:
    await killed(rig, broker)
    left = rig.store / "safe-state.json"
    text = left.read_text().replace('"setpoint"', '"setpiont"')
    rig.profile.write_text(rig.profile.read_text() + "description: changed\n")
    for damaged in ("{", text):
        left.write_text(damaged)
        done = await rig.safe_state(**KILLED)
        assert (done.code, await rig.values()) == (0, SAFE), done
        assert "what the agent left" in done.err


async def test_a_hung_agents_store_keeps_nobody_from_it(rig: Rig, broker: str) -> None:
    async with rig.agent(broker) as agent:
        await state(broker, "available")
        await write(broker, "setpoint=1500", "running=true")
        fewer(rig.profile)
        agent.process.send_signal(signal.SIGSTOP)
        assert (await rig.safe_state("--if-stalled")).code == 0
        assert await rig.values() == SAFE


async def test_what_was_simulated_last_makes_real_devices_no_simulated_ones(rig: Rig, broker: str) -> None:
    async with rig.agent(broker, "--sil") as agent:
        await state(broker, "available")
        agent.process.send_signal(signal.SIGKILL)
        await agent.process.wait()
    assert (await rig.values())["running"] is True
    assert (await rig.safe_state(**KILLED)).code == 0
    assert await rig.values() == SAFE
