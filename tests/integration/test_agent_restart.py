"""What an agent takes over from the one before: after a clean stop, and after a kill."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, RunAgent, desk
from waiting import until

from agent.app import Agent
from agent.store.inspect import AuditFilter, Inspector
from protocols.amqp.cloudevents import from_message
from sim.broker import Broker

PROFILE = """
profile: bench
devices:
  plc:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 50ms
    points:
      setpoint: {table: holding, address: 10, access: rw, safe: 3}
      count: {table: input, address: 1}
    sim: {count: {ramp: {from: 0, to: 1000, period: 10s}}}
"""
PLC = "/benches/rig/devices/plc"


@pytest.fixture
def kill(tmp_path: Path) -> Any:
    """Leaves in `store-rig` what a killed agent would have: its files as they are while it runs."""

    @contextlib.asynccontextmanager
    async def killing(running: contextlib.AbstractAsyncContextManager[Agent]) -> AsyncIterator[Agent]:
        store, copy = tmp_path / "store-rig", tmp_path / "copy"
        async with running as agent:
            yield agent
            await agent.store.stored()
            shutil.copytree(store, copy)
        shutil.rmtree(store)
        copy.rename(store)

    return killing


def write(value: int) -> dict[str, Any]:
    return {"op": "write", "device": "plc", "values": {"setpoint": value}}


def _more_samples(one: Desk, than: int) -> bool:
    return len(one.samples("plc")) > than


async def setpoint_now(one: Desk) -> Any:
    return (await one.ask("read", device="plc", points=["setpoint"]))["data"]["values"]["setpoint"]


async def test_a_sequence_goes_on_over_a_stop_and_the_epoch_is_one_more(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one:
        epochs = []
        for _ in range(3):
            async with run_agent(PROFILE, broker.url) as agent:
                await one.until_state("available")
                epochs.append(agent.store.epoch)
                before = len(one.samples("plc"))
                await one.until(partial(_more_samples, one, before + 3))
            await one.until_state("offline")
        assert epochs == list(range(epochs[0], epochs[0] + 3))
        for source in (PLC, "/benches/rig"):
            sequences = one.sequences(source)
            assert sorted(sequences) == list(range(1, len(sequences) + 1))
        assert one.sequences(PLC) == sorted(one.sequences(PLC))


async def test_a_command_cut_off_by_a_kill_is_answered_by_the_next_agent_and_not_done_again(
    broker: Broker, run_agent: RunAgent, kill: Any, tmp_path: Path
) -> None:
    async with desk(broker.url, "rig") as one:
        async with kill(run_agent(PROFILE, broker.url)) as agent:
            await one.until_state("available")
            begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            async def stuck(values: Any) -> Any:
                begun.set_result(None)
                await asyncio.get_running_loop().create_future()

            agent.bench.devices["plc"].driver.write = stuck
            asked = await one.post(write(7), user_id=b"tester")
            await begun
            one.results.clear()
        one.results.clear()  # a killed agent says nothing any more
        async with run_agent(PROFILE, broker.url):
            (answer,) = await one.answers(asked)
            assert (answer["status"], answer["code"]) == ("indeterminate", "")
            again = await one.post(write(7), message_id=asked)
            answers = await one.answers(again, 2)
            assert answers[0] == answers[1]
            copies = [from_message(message) for message, _ in one.results]
            assert copies[0] == copies[1]
            assert await setpoint_now(one) == 3
        async with run_agent(PROFILE, broker.url):
            await one.post(write(7), message_id=asked)
            await one.answers(asked, 3)
            assert from_message(one.results[-1][0]) == copies[0]
    with Inspector(tmp_path / "store-rig") as store:
        (line,) = store.audit(AuditFilter(op="write"), 10)
    assert (line.key, line.status, line.who) == (f"s:{asked!s}", "indeterminate", "tester")
    assert (line.device, line.what) == ("plc", '{"values":{"setpoint":7}}')


async def test_after_a_kill_the_devices_are_made_safe_before_any_command(
    broker: Broker, run_agent: RunAgent, kill: Any
) -> None:
    async with desk(broker.url, "rig") as one:
        async with kill(run_agent(PROFILE, broker.url)):
            await one.until_state("available")
        one.events.clear()
        asked = await one.post(write(9))
        async with run_agent(PROFILE, broker.url):
            assert (await one.answers(asked))[0]["status"] == "ok"
            assert await setpoint_now(one) == 9
            ((_, said), *_) = await one.until(lambda: one.of_type("safety"))
            assert (said["cause"], said["safe"]) == ("crash", True)
        await one.until(lambda: [body for _, body in one.of_type("safety") if body["cause"] == "stop"])
        async with run_agent(PROFILE, broker.url):
            await one.until_state("available")
            await one.ask("ping")
        await one.until(lambda: len(one.of_type("safety")) >= 3)
        assert [body["cause"] for _, body in one.of_type("safety")] == ["crash", "stop", "stop"]


async def test_a_bench_that_was_disabled_stays_so_until_it_is_enabled(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(PROFILE, broker.url):
            await one.until_state("available")
            assert (await one.ask("disable", reason="hose is being changed"))["status"] == "ok"
        async with run_agent(PROFILE, broker.url):
            said = await one.until_state("maintenance")
            assert said["reason"].startswith("disabled: hose is being changed")
            assert (await one.ask("write", device="plc", values={"setpoint": 1}))["code"] == "disabled"
            assert (await one.ask("enable"))["status"] == "ok"
        async with run_agent(PROFILE, broker.url) as agent:
            await one.until_state("available")
            assert agent.availability.enabled


async def test_what_an_outage_left_is_sent_by_the_next_agent_as_it_was(
    broker: Broker, run_agent: RunAgent, unused_port: int
) -> None:
    async with run_agent(PROFILE, f"amqp://127.0.0.1:{unused_port}") as agent:
        await until(lambda: agent.store.outbox.stats().messages > 20)
        epoch = agent.store.epoch
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until(lambda: {event.epoch for event in one.events if event.source == PLC} > {epoch})
        first, *_ = (event for event in one.events if event.source == PLC)
        assert (first.epoch, first.sequence) == (epoch, 1)
        assert one.sequences(PLC) == list(range(1, len(one.sequences(PLC)) + 1))
        states = [body["state"] for _, body in one.of_type("availability")]
        assert states[:2] == ["starting", "available"]
        assert "offline" in states


async def test_a_damaged_store_is_replaced_and_said(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(PROFILE, broker.url) as agent:
            await one.until_state("available")
            epoch = agent.store.epoch
        database = tmp_path / "store-rig" / "store.db"
        database.write_bytes(b"\0" * database.stat().st_size)
        async with run_agent(PROFILE, broker.url) as agent:
            said = await one.until(lambda: [body for _, body in one.of_type("loss") if body["count"] == 0])
            assert [(body["source"], body["reason"]) for body in said] == [("/benches/rig", "store-corrupt")]
            assert agent.store.epoch >= epoch
            # Whether that agent was killed, and what was leased, is not known any more.
            await one.until(lambda: [body for _, body in one.of_type("safety") if body["cause"] == "crash"])
            assert (await one.ask("write", device="plc", values={"setpoint": 1}))["status"] == "ok"
        assert list(database.parent.glob("store.db.corrupt-*"))
