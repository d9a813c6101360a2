"""Each command once, each answered once: over absences, stops, repeats, and messages made to confuse."""

import asyncio
import json
import time
import uuid
from typing import Any

import pytest
from desk import Desk, RunAgent, desk
from waiting import until

from agent import app
from agent.events import AVAILABILITY_ADDRESS
from protocols.amqp.cloudevents import Event, to_message
from protocols.amqp.codec import Message, encode
from protocols.amqp.flavours import Address
from protocols.amqp.types import ULong
from protocols.base import Sample
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
      setpoint: {table: holding, address: 10, access: rw}
"""
MANY = "profile: many\ndevices:" + "".join(
    PROFILE.partition("devices:")[2].replace("plc:", f"plc-{number}:") for number in range(20)
)


class Slow:
    """A driver's `write` that begins and does not end until it is let."""

    def __init__(self, agent: app.Agent) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        driver = agent.bench.devices["plc"].driver
        self._write = driver.write
        driver.write = self.write  # type: ignore[method-assign]  # held up from here on

    async def write(self, values: Any) -> Any:
        self.begun += 1
        await self.go_on.wait()
        return await self._write(values)


def write(value: int) -> dict[str, Any]:
    return {"op": "write", "device": "plc", "values": {"setpoint": value}}


async def test_what_waited_for_the_agent_is_carried_out_not_refused(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one:
        asked = [
            await one.post({"op": "read", "device": f"plc-{number % 20}", "points": ["setpoint"]})
            for number in range(400)
        ]
        async with run_agent(MANY, broker.url):
            answers = [(await one.answers(message_id))[0] for message_id in asked]
        assert {(answer["status"], answer["code"]) for answer in answers} == {("ok", "")}


async def test_a_burst_is_answered_whole(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        asked = await asyncio.gather(*(one.post({"op": "ping"}) for _ in range(90)))
        assert {(await one.answers(message_id))[0]["status"] for message_id in asked} == {"ok"}


async def test_what_a_stop_cut_off_is_indeterminate_and_never_tried_again(
    broker: Broker, run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "COMMAND_GRACE_S", 0.2)
    async with desk(broker.url, "rig") as one:
        async with run_agent(PROFILE, broker.url) as agent:
            await one.until_state("available")
            slow = Slow(agent)
            cut_off = await one.post(write(1))
            waiting = [await one.post(write(number)) for number in (2, 3)]
            await until(lambda: slow.begun)
        assert (await one.answers(cut_off))[0]["status"] == "indeterminate"
        async with run_agent(PROFILE, broker.url):
            for message_id in waiting:
                assert (await one.answers(message_id))[0]["status"] == "ok"
            assert (await one.ask("read", device="plc"))["data"]["values"] == {"setpoint": 3}
        for message_id in (cut_off, *waiting):
            assert len(await one.answers(message_id)) == 1


async def test_one_that_comes_again_while_it_is_carried_out_has_one_result(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        slow = Slow(agent)
        for _ in range(3):
            await one.post(write(7), message_id="again")
        await until(lambda: slow.begun)
        slow.go_on.set()
        await one.answers("again")
        await one.ask("ping")
        assert slow.begun == 1
        assert len(await one.answers("again")) == 1


@pytest.mark.parametrize("correlation_id", [ULong(0), "", b"", "x"])
async def test_the_correlation_id_comes_back_as_it_was(
    broker: Broker, run_agent: RunAgent, correlation_id: Any
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        await one.post({"op": "ping"}, correlation_id=correlation_id)
        ((answer, _),) = await one.until(lambda: one.results)
        assert answer.correlation_id == correlation_id
        assert type(answer.correlation_id) is type(correlation_id)


async def test_a_result_is_no_command_to_another_bench(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as victim:
        await one.until_state("available")
        async with run_agent(PROFILE, broker.url, bench="other"):
            for op in ("disable", "ping"):
                message = Message(body=json.dumps({"op": op}).encode(), message_id=op)
                message.reply_to = "hil.rig.commands"
                sender = one.client.sender(Address("hil.other.commands", "queue"))
                await sender.ready()
                await sender.post(encode(message))
            await until(lambda: victim.commands.malformed == 2)
        assert one.availability()["enabled"] is True


def availability_of_another(body: dict[str, Any]) -> bytes:
    event = Event(
        id=f"another-{uuid.uuid4()}",
        source="/benches/rig",
        type="io.hilgate.availability.v1",
        time_ns=time.time_ns() + 10**9,
        sequence=1,
        epoch=1,
        mode="hil",
        data=json.dumps(body).encode(),
    )
    return encode(to_message(event))


async def shout(one: Desk, data: bytes) -> None:
    sender = one.client.sender(AVAILABILITY_ADDRESS)
    await sender.ready()
    await sender.post(data)


async def test_hostile_availability_harms_nobody(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        bodies: list[Any] = [
            {"interval_s": 10**400},
            {"interval_s": 1e308},
            {"interval_s": -1},
            {"interval_s": True, "agent": []},
            {"agent": {"hostname": "x" * 100_000}, "epoch": {}, "state": 5},
        ]
        for body in bodies:
            await shout(one, availability_of_another(body))
        for data in (encode(Message(body=b"\xff")), availability_of_another({})[:-1]):
            await shout(one, data)
        await one.until_state("degraded")
        assert agent.client.connected
        assert agent.rivals._until - time.monotonic() < 60
        assert len(one.availability()["reason"]) < 1000
        await shout(one, availability_of_another({"state": "offline"}))
        await one.until_state("available")


async def test_an_answer_that_json_cannot_hold_is_a_failure(broker: Broker, run_agent: RunAgent) -> None:
    async def call(method: str, args: Any) -> Any:
        return object()

    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        agent.bench.devices["plc"].driver.call = call  # type: ignore[method-assign]
        answer = await one.ask("call", device="plc", method="identify")
        assert (answer["status"], answer["code"]) == ("failed", "device-error")
        assert (await one.ask("ping"))["status"] == "ok"


async def test_a_write_that_reads_back_as_another_value_says_both(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        driver = agent.bench.devices["plc"].driver
        truly = driver.write

        async def stubborn(values: Any) -> Any:
            await truly({"setpoint": 4})
            return Sample(0, values)

        driver.write = stubborn  # type: ignore[method-assign]
        answer = await one.ask("write", device="plc", values={"setpoint": 5}, verify=True)
        assert (answer["status"], answer["code"]) == ("failed", "verify-mismatch")
        assert answer["data"] == {"values": {"setpoint": 5}, "read_back": {"setpoint": 4}}


async def test_a_bench_whose_devices_are_all_disabled_is_of_no_use(
    broker: Broker, run_agent: RunAgent
) -> None:
    profile = PROFILE.replace("poll: 50ms", "enabled: false")
    async with desk(broker.url, "rig") as one, run_agent(profile, broker.url):
        said = await one.until_state("fault")
        assert "disabled in the profile" in said["reason"]
        answer = await one.ask("read", device="plc")
        assert (answer["status"], answer["code"]) == ("rejected", "disabled")


async def test_safe_waits_for_no_disk_that_hangs(
    broker: Broker, run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = PROFILE.replace("access: rw", "access: rw, safe: 3")
    async with desk(broker.url, "rig") as one, run_agent(profile, broker.url) as agent:
        await one.until_state("available")
        assert (await one.ask("write", device="plc", values={"setpoint": 9}))["status"] == "ok"

        async def hang(*_: Any) -> Any:
            await asyncio.get_running_loop().create_future()

        with monkeypatch.context() as patch:
            patch.setattr(agent.store.journal, "find", hang)
            patch.setattr(agent.store, "stored", hang)
            await one.post({"op": "safe"})
            await one.until(lambda: one.of_type("safety"))
        assert (await one.ask("read", device="plc", points=["setpoint"]))["data"]["values"] == {"setpoint": 3}
