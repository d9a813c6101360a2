"""Bad commands: each has its result, nothing is touched, and the receiver goes on."""

import json
import time
from typing import Any

import pytest
from desk import Desk, RunAgent, desk
from waiting import until

from protocols.amqp.codec import Message, encode
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
      setpoint: {table: holding, address: 10, type: uint16, access: rw, min: 10, max: 3000}
      ratio:    {table: holding, address: 12, type: float32, access: rw}
      on:       {table: coil, address: 3, access: rw}
      speed:    {table: input, address: 0, type: float32}
      secret:   {table: holding, address: 20, access: wo}
      mode:     {table: holding, address: 21, access: rw, labels: {0: idle, 1: busy}}
    sim:
      setpoint: 10
"""

WRITE = {"op": "write", "device": "plc"}


async def still_works(one: Desk) -> None:
    """The bench answers, and nothing was written."""
    read = await one.ask("read", device="plc", points=["setpoint", "ratio", "on", "mode"])
    assert read["data"]["values"] == {"setpoint": 10, "ratio": 0.0, "on": False, "mode": "idle"}


REJECTED: list[tuple[dict[str, Any], str]] = [
    ({"op": "levitate"}, "unknown-op"),
    ({"op": "safe "}, "unknown-op"),
    ({"op": "read", "device": "plx"}, "unknown-device"),
    ({"op": "read"}, "malformed"),
    ({"op": "read", "device": 5}, "malformed"),
    ({"op": "read", "device": "plc", "points": "speed"}, "malformed"),
    ({"op": "read", "device": "plc", "points": ["sped"]}, "unknown-point"),
    ({"op": "read", "device": "plc", "points": ["secret"]}, "bad-type"),
    ({"op": "call", "device": "plc", "method": "explode"}, "unknown-op"),
    ({"op": "call", "device": "plc", "method": []}, "malformed"),
    ({"op": "call", "device": "plc", "method": "identify", "args": []}, "malformed"),
    (WRITE, "malformed"),
    (WRITE | {"values": {}}, "malformed"),
    (WRITE | {"values": {"sped": 1}}, "unknown-point"),
    (WRITE | {"values": {"speed": 1}}, "read-only"),
    (WRITE | {"values": {"setpoint": 9}}, "out-of-range"),
    (WRITE | {"values": {"setpoint": 3001}}, "out-of-range"),
    (WRITE | {"values": {"setpoint": 10**400}}, "out-of-range"),
    (WRITE | {"values": {"setpoint": -(10**30)}}, "out-of-range"),
    (WRITE | {"values": {"setpoint": 10.5}}, "bad-type"),
    (WRITE | {"values": {"setpoint": "100"}}, "bad-type"),
    (WRITE | {"values": {"setpoint": True}}, "bad-type"),
    (WRITE | {"values": {"setpoint": None}}, "bad-type"),
    (WRITE | {"values": {"setpoint": [100]}}, "bad-type"),
    (WRITE | {"values": {"ratio": 1e300}}, "out-of-range"),
    (WRITE | {"values": {"on": 1}}, "bad-type"),
    (WRITE | {"values": {"mode": "dancing"}}, "out-of-range"),
    (WRITE | {"values": {"mode": 1}}, "bad-type"),
    (WRITE | {"values": {"secret": 1}, "verify": True}, "bad-type"),
    (WRITE | {"values": {"setpoint": 100}, "verify": "yes"}, "malformed"),
    # One bad value holds back the good ones beside it.
    (WRITE | {"values": {"setpoint": 100, "speed": 1}}, "read-only"),
]


async def test_what_is_wrong_is_rejected_with_its_code_and_touches_nothing(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        for body, code in REJECTED:
            (answer,) = await one.answers(await one.post(json.dumps(body).encode()))
            assert (answer["status"], answer["code"]) == ("rejected", code), (body, answer)
            assert answer["message"]
            assert answer["op"] == body["op"]
        await still_works(one)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed"),
        (b"write plc", "malformed"),
        (b'{"op": "write", "device": "plc", "values": {"ratio": NaN}}', "malformed"),
        (b"[" * 200_000, "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'"' + b"x" * (10 * 1024 * 1024) + b'"', "too-large"),
    ],
    ids=["empty", "text", "nan", "deep", "not-utf-8", "10-mib"],
)
async def test_what_is_no_command_is_answered_rejected_and_counted(
    broker: Broker, run_agent: RunAgent, body: bytes, code: str
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        (answer,) = await one.answers(await one.post(body))
        assert (answer["status"], answer["code"]) == ("rejected", code)
        assert agent.commands.malformed == 1
        await still_works(one)


async def test_without_a_message_id_it_is_answered_where_a_reply_to_allows(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        for reply_to in (None, one.reply_to):
            message = Message(body=b'{"op":"ping"}', reply_to=reply_to, correlation_id="mine")
            await one._commands.ready()
            await one._commands.post(encode(message))
        (answer,) = await one.answers("mine")
        assert (answer["status"], answer["code"]) == ("rejected", "malformed")
        assert "message-id" in answer["message"]
        assert agent.commands.malformed == 2
        await still_works(one)


async def test_what_is_stale_moves_nothing(broker: Broker, run_agent: RunAgent) -> None:
    now_ms = time.time_ns() // 1_000_000
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url, require_command_time=True):
        await one.until_state("available")
        write = {"op": "write", "device": "plc", "values": {"setpoint": 100}}
        # With one that is ahead of the clock it could wait for so much longer.
        for creation_ms in (now_ms - 61_000, now_ms + 120_000, 10**14, None):
            fields: dict[str, Any] = {"creation_ms": creation_ms}
            (answer,) = await one.answers(await one.post(write, **fields))
            assert (answer["status"], answer["code"]) == ("rejected", "expired"), (fields, answer)
        await still_works(one)


async def test_what_is_wrong_and_came_before_ends_no_agent(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        body = {"op": "call", "device": "plc", "method": {}}
        (answer,) = await one.answers(await one.post(body, creation_ms=1000, delivery_count=1))
        assert (answer["status"], answer["code"]) == ("rejected", "expired")
        await still_works(one)


async def test_what_expires_before_its_turn_with_the_device_moves_nothing(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        turns = agent.bench.devices["plc"].turns
        async with turns.commanded(turns.overtakes):  # as a hook has it
            expires_ms = time.time_ns() // 1_000_000 + 300
            write = {"op": "write", "device": "plc", "values": {"setpoint": 100}}
            asked = await one.post(write, absolute_expiry_ms=expires_ms)
            await until(lambda: agent.commands._at_work)
            await until(lambda: time.time_ns() // 1_000_000 > expires_ms)
        (answer,) = await one.answers(asked)
        assert (answer["status"], answer["code"]) == ("rejected", "expired")
        await still_works(one)


async def test_results_without_a_reply_to_go_to_the_results_topic(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        await one.post({"op": "ping"}, reply_to=None)
        ((event, body),) = await one.until(lambda: one.of_type("result"))
        assert (event.source, body["op"], body["status"]) == ("/benches/rig", "ping", "ok")


async def test_a_reply_to_that_is_gone_harms_nobody(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url) as agent:
        await one.until_state("available")
        await one.post({"op": "ping"}, reply_to="nobody-is-here")
        await still_works(one)
        assert agent.store.outbox.stats().messages <= 1
