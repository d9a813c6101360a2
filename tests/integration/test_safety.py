"""The bench made safe, as seen over AMQP and in devices that outlive the agent."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from desk import Desk, RunAgent, desk
from waiting import until

from agent.profile import load_profile
from agent.safety import keeper
from agent.store.inspect import AuditFilter, Inspector
from protocols.modbus import pdu
from sim.broker import Broker
from sim.modbus import SIMULATOR
from sim.modbus.unit import SimulatedUnit

PROFILE = """
profile: rig
devices:
  pump:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: PUMP, unit: 1}
    timeout: 300ms
    address_base: 0
    poll: 20ms
    points:
      speed:  {table: holding, address: 30, access: rw, min: 0, max: 3000, max_rate: 500, safe: 0}
      relief: {table: holding, address: 20, access: rw, safe: 20}
      run:    {table: coil, address: 10, access: rw, safe: false, requires: {valve.open: true}}
      free:   {table: holding, address: 40, access: rw}
    sim: {speed: 0, relief: 180, free: 0}
  valve:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: VALVE, unit: 1}
    timeout: 300ms
    address_base: 0
    poll: 20ms
    points:
      spool: {table: holding, address: 50, access: rw, safe: 5}
      open:  {table: coil, address: 60, access: rw}
"""
SAFE = [(30, 0), (20, 20), (10, 0), (50, 5)]
"""The safe values as the devices see them: address and value, in the order of the profile."""


class Plant:
    """Simulated devices that run beside the agent, and what was written to them, in order."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.writes: list[tuple[int, int]] = []
        self.stacks: dict[str, contextlib.AsyncExitStack] = {}

    async def off(self, device: str) -> None:
        """Pulls a device's plug."""
        await self.stacks[device].aclose()

    def record(self, given: pdu.Write) -> None:
        """Notes a write of one value."""
        assert given.count == 1
        self.writes.append((given.start, int.from_bytes(given.data)))


@pytest.fixture
async def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plant]:
    path = tmp_path / "plant.yaml"
    path.write_text(PROFILE.replace("PUMP", "1").replace("VALVE", "2"))
    one = Plant(PROFILE)
    write = SimulatedUnit._write

    def spy(unit: SimulatedUnit, given: pdu.Write) -> None:
        one.record(given)
        write(unit, given)

    monkeypatch.setattr(SimulatedUnit, "_write", spy)
    async with contextlib.AsyncExitStack() as all_:
        for name, device in load_profile(path, {}).devices.items():
            one.stacks[name] = stack = await all_.enter_async_context(contextlib.AsyncExitStack())
            running = await stack.enter_async_context(SIMULATOR.start({name: device}))
            one.profile = one.profile.replace(name.upper(), str(running[name].connection.port))
        yield one


def said(one: Desk, cause: str) -> list[dict[str, Any]]:
    return [body for _, body in one.of_type("safety") if body["cause"] == cause]


async def move(one: Desk) -> None:
    """Takes the bench to where it is not safe."""
    assert (await one.ask("write", device="valve", values={"spool": 80, "open": True}))["status"] == "ok"
    moved = await one.ask("write", device="pump", values={"speed": 400, "run": True, "free": 7})
    assert moved["status"] == "ok", moved


async def test_many_who_ask_for_safe_at_the_same_time_do_not_hold_each_other_up(
    broker: Broker, run_agent: RunAgent, plant: Plant
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(plant.profile, broker.url, sil=False):
        await one.until_state("available")
        await move(one)
        plant.writes.clear()
        asked = [await one.post({"op": "safe"}) for _ in range(100)]
        for message_id in asked:
            (answer,) = await one.answers(message_id)
            assert (answer["status"], answer["data"]["safe"]) == ("ok", True)
        assert plant.writes == SAFE * len(said(one, "command"))
        assert len(said(one, "command")) < 50


async def test_op_safe_drives_in_the_order_of_the_profile_and_says_what_came_of_it(
    broker: Broker, run_agent: RunAgent, plant: Plant
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(plant.profile, broker.url, sil=False):
        await one.until_state("available")
        await move(one)
        plant.writes.clear()
        result = await one.ask("safe", reason="smoke")
        assert result["status"] == "ok"
        assert plant.writes == SAFE
        (body,) = await one.until(lambda: said(one, "command"))
        assert result["data"] == body
        assert (body["reason"], body["safe"]) == ("smoke", True)
        assert [(p["device"], p["point"], p["value"]) for p in body["points"]] == [
            ("pump", "speed", 0),
            ("pump", "relief", 20),
            ("pump", "run", False),
            ("valve", "spool", 5),
        ]
        assert all(point["reached"] and point["verified"] for point in body["points"])
        assert (await one.ask("read", device="pump"))["data"]["values"][
            "free"
        ] == 7  # no safe value: left alone
        ((event, _),) = one.of_type("safety")
        assert (event.source, event.mode) == ("/benches/rig", "hil")


async def test_an_agent_that_stops_leaves_the_bench_safe_and_says_so_before_it_goes(
    broker: Broker, run_agent: RunAgent, plant: Plant, tmp_path: Path
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(plant.profile, broker.url, sil=False):
            await one.until_state("available")
            await move(one)
            plant.writes.clear()
        assert plant.writes == SAFE
        await one.until_state("offline")
        assert [body["safe"] for body in said(one, "stop")] == [True]
    with Inspector(tmp_path / "store-rig") as store:
        (line,) = store.audit(AuditFilter(op="safe"), 10)
    assert (line.who, line.status, line.what) == ("agent", "ok", '{"cause":"stop","reason":""}')


async def test_guards_refuse_before_anything_is_touched(
    broker: Broker, run_agent: RunAgent, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All within the second that `max_rate` is about.
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    async with desk(broker.url, "rig") as one, run_agent(plant.profile, broker.url, sil=False):
        await one.until_state("available")
        described = (await one.ask("describe"))["data"]["devices"]["pump"]["points"]
        assert described["speed"]["max_rate"] == 500
        assert described["run"]["requires"] == {"valve.open": True}

        refused = await one.ask("write", device="pump", values={"relief": 50, "run": True})
        assert (refused["status"], refused["code"]) == ("rejected", "disabled")
        assert refused["message"] == "interlock of pump.run: valve.open is false, has to be true"
        refused = await one.ask("write", device="pump", values={"relief": 50, "speed": 501})
        assert (refused["status"], refused["code"]) == ("rejected", "out-of-range")
        assert plant.writes == []
        assert (await one.ask("write", device="pump", values={"run": False}))["status"] == "ok"

        await move(one)
        refused = await one.ask("write", device="pump", values={"speed": 501})
        assert "max_rate is 500 a second; it takes from 0 to 500" in refused["message"]


async def test_a_device_that_is_gone_makes_the_bench_a_fault_until_a_person_has_looked(
    broker: Broker, run_agent: RunAgent, plant: Plant
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(plant.profile, broker.url, sil=False):
        await one.until_state("available")
        await move(one)
        await plant.off("pump")
        await one.until_state("degraded")
        plant.writes.clear()
        result = await one.ask("safe")
        assert (result["status"], result["code"]) == ("failed", "device-error")
        assert "pump.speed" in result["message"]
        assert plant.writes == [(50, 5)]  # the valve is safe all the same
        assert [point["reached"] for point in result["data"]["points"]] == [True, False, False, False]
        assert "pump could not be made safe" in (await one.until_state("fault"))["reason"]
        refused = await one.ask("write", device="valve", values={"open": False})
        assert (refused["status"], refused["code"]) == ("rejected", "disabled")
        await one.ask("enable")
        await one.until_state("degraded")
        assert (await one.ask("write", device="valve", values={"open": False}))["status"] == "ok"


async def test_a_reason_that_is_none_keeps_nobody_from_making_the_bench_safe(
    broker: Broker, run_agent: RunAgent, plant: Plant
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(plant.profile, broker.url, sil=False):
        await one.until_state("available")
        assert (await one.ask("safe", reason=["smoke"]))["data"]["reason"] == ""
        assert len((await one.ask("safe", reason="x" * 100_000))["data"]["reason"]) == 256


async def test_a_broker_that_is_lost_for_too_long_makes_the_bench_safe(
    run_agent: RunAgent, plant: Plant, unused_port: int
) -> None:
    settings = {"sil": False, "safe_after_broker_loss": "300ms"}
    async with contextlib.AsyncExitStack() as first:
        broker = await first.enter_async_context(Broker("127.0.0.1", unused_port))
        one = await first.enter_async_context(desk(broker.url, "rig"))
        agent = run_agent(plant.profile, broker.url, **settings)
        async with agent as running:
            await one.until_state("available")
            await move(one)
            plant.writes.clear()
            await first.aclose()
            await until(lambda: len(plant.writes) == len(SAFE))
            assert plant.writes == SAFE
            async with Broker("127.0.0.1", unused_port) as again, desk(again.url, "rig") as later:
                (body,) = await later.until(lambda: said(later, "broker-lost"))
                assert (body["safe"], body["reason"]) == (True, "no broker for 0.3 s")
                assert running.safety.faults == {}


async def test_an_unsafe_device_is_remembered_by_the_next_agent(
    broker: Broker, run_agent: RunAgent, plant: Plant
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(plant.profile, broker.url, sil=False):
            await one.until_state("available")
            await plant.off("pump")
            await one.until_state("degraded")
        assert [body["safe"] for body in said(one, "stop")] == [False]
        one.events.clear()
        async with run_agent(plant.profile, broker.url, sil=False):
            assert "pump could not be made safe" in (await one.until_state("fault"))["reason"]
