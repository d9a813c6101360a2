"""`hilgate safe-state`: what is left when the agent was killed, made safe as systemd would have it done."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from exposed import free_port
from shell import Finished, hilgate, running, watching

from agent.profile import load_profile
from protocols.base import Driver
from protocols.modbus import PROTOCOL
from sim.modbus import SIMULATOR

PROFILE = """\
profile: small-rig
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: PORT, unit: 1}
    timeout: 30s
    address_base: 0
    poll: 50ms
    points:
      setpoint: {table: holding, address: 10, scale: 0.1, unit: rpm, access: rw, min: 0, max: 3000, safe: 0}
      running:  {table: coil, address: 3, access: rw, safe: false}
    sim: {setpoint: 1200, running: true}
"""


class Rig:
    """A device that outlives every agent, and the files of an agent."""

    def __init__(self, folder: Path, port: int) -> None:
        self.profile = folder / "small-rig.yaml"
        self.profile.write_text(PROFILE.replace("PORT", str(port)))
        self.store = folder / "store"
        self.driver: Driver = PROTOCOL.driver(load_profile(self.profile, {}).devices["pump-plc"], {})

    async def values(self) -> dict[str, Any]:
        """What the device holds now."""
        await self.driver.connect()
        try:
            return dict((await self.driver.read(["setpoint", "running"])).values)
        finally:
            await self.driver.close()

    def agent(self, broker: str, *more: str) -> Any:
        """A running agent."""
        words = ("--bench", "rig-07", "--broker", broker, "--store", str(self.store), "--heartbeat", "500ms")
        return running("run", str(self.profile), *words, *more)

    async def safe_state(self, *words: str, **variables: str) -> Finished:
        """The command, as the service calls it."""
        store = ("--bench", "rig-07", "--store", str(self.store))
        return await hilgate("safe-state", str(self.profile), *store, *words, **variables)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    described = tmp_path / "described.yaml"
    described.write_text(PROFILE.replace("PORT", "502"))
    async with SIMULATOR.start(load_profile(described, {}).devices) as devices:
        yield Rig(tmp_path, devices["pump-plc"].connection.port)


async def state(broker: str, wanted: str) -> None:
    async with watching(broker) as watch:
        await watch.until(lambda event: event["data"]["state"] == wanted)


async def write(broker: str, *words: str) -> None:
    done = await hilgate(
        "send", "rig-07", "write", "pump-plc", *words, "--timeout", "30s", "--broker", broker
    )
    assert done.code == 0, done


async def test_what_a_killed_agent_leaves_is_made_safe_and_the_next_one_says_so(
    rig: Rig, broker: str
) -> None:
    async with rig.agent(broker) as agent:
        await state(broker, "available")
        await write(broker, "setpoint=1500", "running=true")
        agent.process.send_signal(signal.SIGKILL)
        await agent.process.wait()
    assert await rig.values() == {"setpoint": 1500.0, "running": True}

    how = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
    done = await rig.safe_state(**how)
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines() if "pump-plc" in line]
    assert rows == [
        ["pump-plc", "setpoint", "0", "yes", "yes"],
        ["pump-plc", "running", "○", "false", "yes", "yes"],
    ]
    assert await rig.values() == {"setpoint": 0.0, "running": False}

    async with watching(broker, "rig-07") as watch:
        async with rig.agent(broker):
            event = await watch.until(lambda event: event["type"] == "io.hilgate.safety.v1")
    assert event["data"]["cause"] == "crash"
    assert event["data"]["reason"] == "the service ended: signal (killed KILL)"
    assert event["data"]["safe"] is True
    assert event["mode"] == "hil"


async def test_after_a_clean_end_it_is_a_stop(rig: Rig) -> None:
    done = await rig.safe_state("--json", SERVICE_RESULT="success", EXIT_CODE="exited", EXIT_STATUS="0")
    (said,) = done.lines
    assert (done.code, said["cause"], said["safe"]) == (0, "stop", True)


async def test_while_an_agent_runs_only_force_goes_over_its_head(rig: Rig, broker: str) -> None:
    async with rig.agent(broker):
        await state(broker, "available")
        done = await rig.safe_state()
        assert (done.code, done.out) == (1, "")
        assert "hilgate send rig-07 safe" in done.err
        assert (await rig.values())["running"] is True
        assert (await rig.safe_state("--force")).code == 0
        assert await rig.values() == {"setpoint": 0.0, "running": False}
        sent = await hilgate(
            "send", "rig-07", "safe", "--reason", "smoke", "--json", "--timeout", "30s", "--broker", broker
        )
        (result,) = sent.lines
        assert (sent.code, result["data"]["reason"], result["data"]["safe"]) == (0, "smoke", True)


async def test_if_stalled_leaves_an_agent_alone_that_goes_on(rig: Rig, broker: str) -> None:
    """As a pod's preStop calls it, which the kubelet runs while the agent still works."""
    http = f"127.0.0.1:{free_port()}"
    async with rig.agent(broker, "--http", http) as agent:
        await state(broker, "available")
        await write(broker, "setpoint=1500", "running=true")
        done = await rig.safe_state("--if-stalled", HILGATE_HTTP=http)
        assert (done.code, done.out) == (0, "")
        assert "The agent goes on" in done.err
        assert await rig.values() == {"setpoint": 1500.0, "running": True}

        agent.process.send_signal(signal.SIGSTOP)
        assert (await rig.safe_state("--if-stalled", HILGATE_HTTP=http)).code == 0
        assert await rig.values() == {"setpoint": 0.0, "running": False}
        agent.process.send_signal(signal.SIGCONT)
        await write(broker, "running=true")
        # Nobody can be asked: it is on the safe side.
        assert (await rig.safe_state("--if-stalled")).code == 0
        assert (await rig.values())["running"] is False


async def test_a_device_that_is_gone_is_a_failure_in_time_which_the_next_agent_knows(
    rig: Rig, broker: str
) -> None:
    there = rig.profile.read_text()
    rig.profile.write_text(PROFILE.replace("PORT", "1"))
    done = await rig.safe_state("--within", "3s", "--json")
    (said,) = done.lines
    assert (done.code, said["safe"]) == (3, False)
    assert "refused" in said["points"][0]["reason"]
    assert "refused" in (await rig.safe_state("--within", "3s")).out
    rig.profile.write_text(there)
    async with watching(broker, "rig-07") as watch:
        async with rig.agent(broker):
            causes = {"crash", "reconnected"}
            while causes:
                event = await watch.until(lambda event: event["type"] == "io.hilgate.safety.v1")
                causes.discard(event["data"]["cause"])
    assert event["data"]["safe"] is True
    assert await rig.values() == {"setpoint": 0.0, "running": False}


async def test_neither_broker_nor_bench_is_needed_but_a_store_wants_the_bench(rig: Rig) -> None:
    assert (await hilgate("safe-state", str(rig.profile))).code == 0
    assert await rig.values() == {"setpoint": 0.0, "running": False}
    done = await hilgate("safe-state", str(rig.profile), "--store", str(rig.store))
    assert (done.code, done.err) == (2, "hilgate: An event in the store needs the bench's id: give --bench\n")


async def test_what_is_simulated_needs_none_of_it(rig: Rig) -> None:
    done = await rig.safe_state(HILGATE_SIL="true")
    assert (done.code, done.out) == (0, "")
    assert "nothing to make safe" in done.err
    assert (await rig.values())["running"] is True


async def test_a_store_that_cannot_be_opened_keeps_nobody_from_making_the_bench_safe(rig: Rig) -> None:
    rig.store.write_text("a file is in the way")
    done = await rig.safe_state()
    assert done.code == 0
    assert "no event will be sent" in done.err
    assert await rig.values() == {"setpoint": 0.0, "running": False}


async def test_a_wrong_profile_is_said_with_file_and_line(rig: Rig) -> None:
    rig.profile.write_text(PROFILE.replace("table: coil", "table: coal").replace("PORT", "502"))
    done = await rig.safe_state()
    assert (done.code, done.out) == (1, "")
    assert f"{rig.profile}:11: devices.pump-plc.points.running.table" in done.err
