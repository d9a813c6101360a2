"""A bench run, watched and commanded from the command line, over the embedded broker."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from amqp_peer import Peer
from shell import WAIT_S, hilgate, running, watching

PROFILE = """\
profile: small-rig
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1, unit: 1}
    timeout: 30s
    address_base: 0
    poll: 50ms
    points:
      speed:    {table: input, address: 0, type: float32, order: ABCD, unit: rpm}
      setpoint: {table: holding, address: 10, scale: 0.1, unit: rpm, access: rw, min: 0, max: 3000}
      running:  {table: coil, address: 3, access: rw}
    sim:
      speed: {follow: setpoint, tau: 100ms}
"""


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "small-rig.yaml"
    path.write_text(PROFILE)
    return str(path)


def run(profile: str, broker: str, *more: str) -> Any:
    return running("run", profile, "--bench", "rig-07", "--broker", broker, "--log-format", "json", *more)


async def until_state(broker: str, *states: str) -> dict[str, Any]:
    async with watching(broker) as watch:
        event = await watch.until(lambda event: event["data"]["state"] in states)
        assert (await watch.end()).code == 0
    availability: dict[str, Any] = event["data"]
    return availability


async def send(broker: str, *words: str) -> tuple[int, dict[str, Any]]:
    finished = await hilgate("send", "rig-07", *words, "--json", "--timeout", "30s", "--broker", broker)
    assert finished.err == ""
    (result,) = finished.lines
    return finished.code, result


async def test_a_bench_is_run_watched_and_commanded(profile: str, broker: str) -> None:
    async with run(profile, broker, "--sil", "--heartbeat", "1s") as agent:
        said = await until_state(broker, "available")
        assert (said["bench"], said["mode"]) == ("rig-07", "sil")

        code, result = await send(broker, "ping")
        assert (code, result["status"]) == (0, "ok")
        assert result["data"]["epoch"] == said["epoch"]

        code, result = await send(broker, "write", "pump-plc", "setpoint=1500", "running=true", "--verify")
        assert code == 0
        assert result["data"]["read_back"] == {"setpoint": 1500.0, "running": True}

        code, result = await send(broker, "read", "pump-plc", "setpoint", "running")
        assert code == 0
        assert result["data"]["values"] == {"setpoint": 1500.0, "running": True}

        code, result = await send(broker, "write", "pump-plc", "setpoint=9999")
        assert (code, result["status"], result["code"]) == (1, "rejected", "out-of-range")

        code, _ = await send(broker, "disable", "--reason", "hose is being changed")
        assert code == 0
        assert "hose" in (await until_state(broker, "maintenance"))["reason"]
        code, result = await send(broker, "write", "pump-plc", "setpoint=1")
        assert (code, result["code"]) == (1, "disabled")
        assert (await send(broker, "enable"))[0] == 0
        await until_state(broker, "available")

        async with watching(broker, "rig-07") as watch:
            event = await watch.until(lambda event: event["type"] == "io.hilgate.samples.v1")
            assert event["source"] == "/benches/rig-07/devices/pump-plc"
            assert event["data"]["samples"][0]["values"]["setpoint"] == 1500.0

        finished = await agent.end()
        assert finished.code == 0
    assert (await until_state(broker, "offline"))["bench"] == "rig-07"


async def test_tables_for_people(profile: str, broker: str) -> None:
    async with run(profile, broker, "--sil"):
        await until_state(broker, "available")
        described = await hilgate("send", "rig-07", "describe", "--broker", broker)
        assert described.code == 0
        for word in ("pump-plc", "setpoint", "number", "rw", "3000", "rpm"):
            assert word in described.out
        read = await hilgate("send", "rig-07", "read", "pump-plc", "--broker", broker)
        assert read.code == 0
        assert "good" in read.out
        written = await hilgate(
            "send", "rig-07", "write", "pump-plc", "setpoint=5", "--verify", "--broker", broker
        )
        assert written.code == 0
        assert "read back" in written.out
        rejected = await hilgate("send", "rig-07", "read", "pump-plc", "sped", "--broker", broker)
        assert rejected.code == 1
        assert "unknown-point" in rejected.out
        one = await hilgate("watch", "rig-07", "--for", "6s", "--broker", broker)
        assert one.code == 0
        for word in ("available", "pump-plc", "online", "speed", "rpm", "good"):
            assert word in one.out
        all_benches = await hilgate("watch", "--for", "4s", "--broker", broker)
        assert all_benches.code == 0
        assert "rig-07" in all_benches.out
        assert "\x1b" not in described.out + read.out + one.out + all_benches.out


async def test_a_device_that_is_not_there_is_exit_3(profile: str, broker: str) -> None:
    async with run(profile, broker):
        said = await until_state(broker, "fault")
        assert said["devices"]["pump-plc"]["state"] == "offline"
        code, result = await send(broker, "read", "pump-plc")
        assert (code, result["status"], result["code"]) == (3, "failed", "disconnected")


async def test_a_bench_that_is_not_there_is_exit_4(broker: str) -> None:
    finished = await hilgate("send", "rig-99", "ping", "--timeout", "4s", "--broker", broker)
    assert finished.code == 4
    assert finished.err.startswith("hilgate: No answer from rig-99 within 4 s")
    assert finished.out == ""


@pytest.mark.parametrize("words", [["send", "rig-07", "ping"], ["watch"], ["watch", "rig-07", "--json"]])
async def test_a_broker_that_is_not_there_is_exit_4_and_a_sentence(words: list[str]) -> None:
    finished = await hilgate(*words, "--broker", "amqp://127.0.0.1:1")
    assert finished.code == 4
    assert finished.err.startswith("hilgate: No connection to the broker: ")
    assert "127.0.0.1:1" in finished.err
    assert len(finished.err.splitlines()) == 1
    assert finished.out == ""


async def test_the_agent_waits_for_its_broker(profile: str) -> None:
    async with run(profile, "amqp://127.0.0.1:1", "--sil") as agent:
        await agent.said('"broker link"')
        assert (await agent.end()).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_end_the_agent_with_exit_0(profile: str, broker: str, number: signal.Signals) -> None:
    async with run(profile, broker, "--sil") as agent:
        await until_state(broker, "available")
        finished = await agent.end(number)
    assert finished.code == 0
    assert "Traceback" not in finished.err
    await until_state(broker, "offline")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_end_the_broker_with_exit_0(number: signal.Signals) -> None:
    async with running("broker", "--listen", "127.0.0.1:0") as process:
        assert "listens on amqp://127.0.0.1:" in await process.line()
        finished = await process.end(number)
    assert (finished.code, finished.err) == (0, "")


async def test_a_port_that_is_taken_is_a_sentence(broker: str) -> None:
    finished = await hilgate("broker", "--listen", broker.removeprefix("amqp://"))
    assert finished.code == 3
    assert "cannot listen on 127.0.0.1:" in finished.err
    assert "Traceback" not in finished.err


async def test_a_broker_with_a_password(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    login = ["--username", "joe", "--password-file", str(password)]
    async with running("broker", "--listen", "127.0.0.1:0", "--json", *login) as process:
        url = json.loads(await process.line())["url"]
        ask = ["send", "rig-07", "ping", "--timeout", "4s", "--broker", url]
        let_in = await hilgate(*ask, *login, "--allow-plain")
        assert (let_in.code, "No answer from rig-07" in let_in.err) == (4, True)
        in_clear = await hilgate(*ask, *login)
        assert (in_clear.code, "without TLS" in in_clear.err) == (2, True)
        password.write_text("wrong")
        refused = await hilgate(*ask, *login, "--allow-plain")
        assert (refused.code, "does not accept the credentials of user joe" in refused.err) == (4, True)
        assert "wrong" not in refused.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_send_says_so(number: signal.Signals) -> None:
    async with running("broker", "--listen", "127.0.0.1:0", "--json") as process:
        url = json.loads(await process.line())["url"]
        async with running("send", "rig-99", "ping", "--timeout", "1min", "--broker", url) as sending:
            await process.until(lambda said: any(queue["messages"] for queue in said.get("queues", [])))
            finished = await sending.end(number)
    assert finished.code == 130
    assert "not known whether the command was carried out" in finished.err


async def test_watch_says_when_it_is_subscribed_or_is_not_let() -> None:
    async with Peer().listening() as peer:
        async with running("watch", "rig-07", "--json", "--broker", peer.url) as watch:
            assert await watch.said("") == f"hilgate: watching rig-07 on {peer.url}"
            asked = {source.address for link in peer.links if (source := link.peer_source)}
            assert asked == {"hil.availability", "hil.rig-07.events.*"}
            assert (await watch.end()).err == ""
        peer.refuse = {"hil.availability"}
        async with running("watch", "--json", "--broker", peer.url) as watch:
            said = await watch.said("")
            assert said.startswith("hilgate: nothing comes from hil.availability for now: ")
            assert "no hil.availability here" in said


async def test_watch_says_that_the_broker_went_and_came_back() -> None:
    async with running("broker", "--listen", "127.0.0.1:0", "--json") as process:
        url = json.loads(await process.line())["url"]
        async with running("watch", "--broker", url) as watch:
            assert watch.process.stderr is not None
            await process.until(lambda said: any(queue["consumers"] for queue in said.get("queues", [])))
            assert (await process.end()).code == 0
            async with asyncio.timeout(WAIT_S):
                assert b"ended the connection" in await watch.process.stderr.readline()
                assert b"is it running?" in await watch.process.stderr.readline()
                async with running("broker", "--listen", url.removeprefix("amqp://")):
                    assert b"connected to" in await watch.process.stderr.readline()
            assert (await watch.end()).code == 0
