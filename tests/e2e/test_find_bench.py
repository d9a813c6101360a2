"""The worked example of docs/deploy.md: an environment's controller finds a bench, and loses one."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from proton import Message
from proton.utils import BlockingConnection
from shell import WAIT_S, Finished, Running, environment, hilgate, running, watching

from agent.profile import load_profile
from sim.modbus import SIMULATOR

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "find_bench.py"
PROFILE = """\
profile: two-pumps
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1, unit: 1}
    address_base: 0
    poll: 1s
    points:
      setpoint: {table: holding, address: 10, unit: rpm, access: rw, safe: 0}
  spare-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 2, unit: 1}
    address_base: 0
    poll: 1s
    points:
      setpoint: {table: holding, address: 10, unit: rpm, access: rw, safe: 0}
"""


@contextlib.asynccontextmanager
async def finding(broker: str, *words: str, stdout: int = asyncio.subprocess.PIPE) -> AsyncIterator[Running]:
    """Runs the example during the body."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        broker,
        *words,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def closed(example: Running) -> None:
    """Waits until whoever reads the Secret has all of it."""
    assert example.process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        assert await example.process.stdout.read() == b""


async def left(example: Running) -> Finished:
    """What the example leaves when it ends by itself."""
    async with asyncio.timeout(WAIT_S):
        out, err = await example.process.communicate()
    assert example.process.returncode is not None
    return Finished(example.process.returncode, (out or b"").decode(), err.decode())


def said(bench: str, state: str) -> Callable[[Any], bool]:
    """Whether an event says that this bench is in that state."""
    return lambda event: (event["data"]["bench"], event["data"]["state"]) == (bench, state)


def expires(event: Any) -> str:
    """When the lease ends that an event tells of; times of one format sort as text."""
    return (event["data"]["lease"] or {}).get("expires") or ""


async def test_an_environment_finds_uses_and_loses_a_bench(tmp_path: Path, broker: str) -> None:
    profile = tmp_path / "two-pumps.yaml"
    profile.write_text(PROFILE)
    hydraulic = ("--labels", "kind=hydraulic")

    async def send(bench: str, *words: str, **variables: str) -> Finished:
        return await hilgate(
            "send", bench, *words, "--json", "--timeout", "30s", "--broker", broker, **variables
        )

    async with contextlib.AsyncExitStack() as stack:
        watch = await stack.enter_async_context(watching(broker))
        agents = {}
        for bench, kind in (("rig-01", "hydraulic"), ("rig-02", "hydraulic"), ("rig-03", "drive")):
            words = ("--bench", bench, "--labels", f"kind={kind}", "--broker", broker, "--heartbeat", "2s")
            agents[bench] = await stack.enter_async_context(running("run", str(profile), "--sil", *words))
            await watch.until(said(bench, "available"))
        # One device of the first bench is taken: it says available, and yet nobody gets the whole of it.
        assert (await send("rig-01", "reserve", "joe", "10min", "--devices", "spare-plc")).code == 0

        login = broker.replace("//", "//controller:secret@")
        async with finding(login, "--holder", "dte-42", *hydraulic, "--ttl", "60") as first:
            secret = json.loads(await first.line())
            assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "hil-bench")
            await closed(first)  # kubectl apply -f - would wait for that
            given = secret["stringData"]
            assert (given["HIL_BENCH"], given["HILGATE_BROKER"]) == ("rig-02", broker)
            assert given["HIL_COMMANDS"] == "hil.rig-02.commands"
            assert "rejected lease-held" in await first.said("rig-01")
            await first.said("rig-02 is ours")
            written = await send(given["HIL_BENCH"], "write", "pump-plc", "setpoint=7")
            assert written.lines[0]["code"] == "lease-held"
            lease = {"HILGATE_LEASE": given["HILGATE_LEASE"]}
            assert (await send(given["HIL_BENCH"], "write", "pump-plc", "setpoint=7", **lease)).code == 0

            # Whoever comes next finds no other bench of this kind, and takes none of another.
            async with finding(broker, "--holder", "dte-43", *hydraulic, "--wait", "3") as second:
                none = await left(second)
                assert (none.code, none.out) == (1, "")
                assert "no bench to be had\n" in none.err
            # Nor does one that wants real devices take a simulated bench.
            async with finding(broker, "--holder", "dte-43", "--mode", "hil", "--wait", "3") as real:
                assert ((await left(real)).code, (await left(real)).out) == (1, "")

            ended = await first.end()
            assert ended.code == 0
            assert "rig-02: release: ok\n" in ended.err
        await watch.until(said("rig-02", "leased"))
        await watch.until(said("rig-02", "available"))

        async with finding(broker, "--holder", "dte-44", *hydraulic, "--ttl", "60") as third:
            assert json.loads(await third.line())["stringData"]["HIL_BENCH"] == "rig-02"
            agents["rig-02"].process.kill()
            lost = await left(third)
            assert lost.code == 2
            assert "rig-02 is lost: nothing was heard of it for" in lost.err


async def test_a_lease_is_renewed_before_its_dead_man_switch(tmp_path: Path, broker: str) -> None:
    profile = tmp_path / "two-pumps.yaml"
    profile.write_text(PROFILE)
    async with watching(broker) as watch:
        async with running("run", str(profile), "--sil", "--bench", "rig-01", "--broker", broker):
            async with finding(broker, "--holder", "dte-42", "--ttl", "12") as example:
                await example.line()
                # While the lease is prepared it has no end yet.
                held = await watch.until(lambda event: expires(event) > "")
                await watch.until(lambda event: expires(event) > expires(held))
                assert (await example.end()).code == 0


async def test_a_bench_that_stays_in_fault_is_given_back(tmp_path: Path, broker: str) -> None:
    described = tmp_path / "two-pumps.yaml"
    described.write_text(PROFILE)
    async with contextlib.AsyncExitStack() as stack:
        devices = await stack.enter_async_context(SIMULATOR.start(load_profile(described, {}).devices))
        text = PROFILE
        for number, device in enumerate(devices.values(), start=1):
            text = text.replace(f"port: {number},", f"port: {device.connection.port},")
        described.write_text(text)
        async with watching(broker) as watch:
            async with running("run", str(described), "--bench", "rig-01", "--broker", broker):
                await watch.until(said("rig-01", "available"))
                async with finding(broker, "--holder", "dte-42", "--patience", "1") as example:
                    await example.line()
                    await stack.aclose()
                    lost = await left(example)
                    assert lost.code == 2
                    assert "rig-01 is lost: it has been in fault for " in lost.err
                    assert "rig-01: release: " in lost.err


async def test_a_bench_is_released_where_nobody_takes_the_secret(tmp_path: Path, broker: str) -> None:
    profile = tmp_path / "two-pumps.yaml"
    profile.write_text(PROFILE)
    nobody, stdout = os.pipe()
    os.close(nobody)
    try:
        async with running("run", str(profile), "--sil", "--bench", "rig-01", "--broker", broker):
            async with finding(broker, "--holder", "dte-42", stdout=stdout) as example:
                lost = await left(example)
                assert lost.code == 2
                assert "rig-01 is lost: nobody takes the Secret\nrig-01: release: ok\n" in lost.err
    finally:
        os.close(stdout)


async def test_a_bench_that_takes_its_time_to_be_prepared_is_asked_again_for_its_answer(
    tmp_path: Path, broker: str
) -> None:
    profile = tmp_path / "two-pumps.yaml"
    profile.write_text(PROFILE + 'hooks: {before_lease: [{run: [sleep, "3"]}]}\n')
    async with running("run", str(profile), "--sil", "--bench", "rig-01", "--broker", broker):
        async with finding(broker, "--holder", "dte-42", "--answer", "2") as example:
            assert json.loads(await example.line())["stringData"]["HIL_BENCH"] == "rig-01"
            assert (await example.end()).code == 0


async def test_it_reads_structured_events_and_passes_over_what_is_none(tmp_path: Path, broker: str) -> None:
    profile = tmp_path / "two-pumps.yaml"
    profile.write_text(PROFILE)
    words = ("--bench", "rig-01", "--broker", broker, "--cloudevents", "structured")
    async with finding(broker, "--holder", "dte-42") as example:
        heard = asyncio.create_task(example.said("what came on hil.availability is none"))
        while not heard.done():  # until it listens
            for text in (b"{", b"[]", b'{"bench": "rig-01"}'):
                await asyncio.to_thread(publish, broker, text)
        await heard
        async with running("run", str(profile), "--sil", *words):
            assert json.loads(await example.line())["stringData"]["HIL_BENCH"] == "rig-01"
            assert (await example.end()).code == 0


def publish(broker: str, text: bytes) -> None:
    """Sends what is no event of ours to where availability is heard."""
    connection = BlockingConnection(broker, timeout=WAIT_S)
    with contextlib.closing(connection):
        sender = connection.create_sender("hil.availability")
        sender.send(Message(inferred=True, body=text, content_type="application/cloudevents+json"))


async def test_a_broker_that_is_lost_is_said(tmp_path: Path) -> None:
    profile = tmp_path / "two-pumps.yaml"
    profile.write_text(PROFILE)
    async with running("broker", "--listen", "127.0.0.1:0", "--json") as broker:
        url = json.loads(await broker.line())["url"]
        async with running("run", str(profile), "--sil", "--bench", "rig-01", "--broker", url):
            async with finding(url, "--holder", "dte-42") as example:
                await example.line()
                broker.process.kill()
                lost = await left(example)
                assert lost.code == 3
                assert lost.err.splitlines()[-1].startswith("the broker is lost: ")
