"""The commands queue under a storm: damaged bodies, properties and sections, through a whole agent."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from desk import RunAgent, desk
from storm import Storm, damaged, storming
from waiting import until

from agent.commands import service
from protocols.amqp.client import Delivery
from protocols.amqp.codec import Message, decode, encode
from protocols.amqp.performatives import Outcome
from sim.broker import Broker
from sim.broker.router import Limits

PROFILE = """
profile: bench
devices:
  plc:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 1s
    points:
      setpoint: {table: holding, address: 10, type: uint16, access: rw, min: 10, max: 3000}
      mode:     {table: holding, address: 21, access: rw, labels: {0: idle, 1: busy}}
    sim: {setpoint: 10}
"""
BODIES: Sequence[Mapping[str, Any]] = (
    {"op": "ping"},
    {"op": "read", "device": "plc", "points": ["setpoint", "mode"]},
    {"op": "write", "device": "plc", "values": {"setpoint": 100, "mode": "busy"}, "verify": True},
    {"op": "call", "device": "plc", "method": "read", "args": {"table": "holding", "address": 1, "count": 2}},
    {"op": "describe"},
    {"op": "status"},
    {"op": "reserve", "holder": "me", "duration": "1s", "devices": ["plc"]},
    {"op": "renew", "lease": "12345"},
    {"op": "release", "lease": "12345"},
    {"op": "safe", "reason": "storm"},
)
VALUES: Sequence[Any] = (
    *(
        None,
        True,
        -1,
        2**63,
        10**400,
        1e308,
        "",
        "plc",
        "\0",
        "x" * 100_000,
        [],
        {},
        [[]],
        ["setpoint"] * 3000,
    ),
    *({"setpoint": 10**400}, {"setpoint": [1]}, {"": {}}, {"x" * 9999: 1}, {str(n): n for n in range(3000)}),
)
UNSETTLED = 64
"""What a broker has under way with the agent."""


class Letter(Delivery):
    """A message as the agent's receiver gives it; who settles it settles nothing else."""

    under_way = 0

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done = False
        Letter.under_way += 1

    def message(self) -> Message:
        return decode(self.data)

    def settle(self, outcome: Outcome) -> bool:
        Letter.under_way -= not self.done
        self.done = True
        return True


def letter(storm: Storm, reply_to: str, number: int) -> bytes:
    """A command with hostile values, or a damaged body, or damaged as a whole."""
    chance, body = storm.chance, dict(BODIES[number % len(BODIES)])
    kind = chance.randrange(3)
    if kind == 0:
        body[chance.choice((*body, "device", "lease"))] = chance.choice(VALUES)
    said = json.dumps(body).encode()
    whole = encode(
        Message(
            body=damaged(chance, said, [b"9" * 5000, b"[" * 5000, b'{"op":' * 900]) if kind == 1 else said,
            message_id=f"id-{number}",
            correlation_id=f"c-{number}",
            reply_to=reply_to,
            user_id=b"somebody",
            content_type="application/json",
            creation_ms=time.time_ns() // 1_000_000,
            properties={"lease": "12345", "authorization": "Bearer a.b.c"},
        )
    )
    return damaged(chance, whole, [encode(Message(body=b"x"))]) if kind == 2 else whole


async def test_hostile_senders(run_agent: RunAgent) -> None:
    forgetful = Limits(
        duplicate_ids=100
    )  # what the broker remembers is bounded, and not what is looked at here
    async with storming("commands", 2000) as storm:
        async with (
            Broker(limits=forgetful) as broker,
            run_agent(PROFILE, broker.url, bench="rig", require_lease=True) as agent,
        ):
            async with desk(broker.url, "rig") as one:
                await one.ask("ping")
                while not storm.over:
                    for _ in range(UNSETTLED):
                        agent.commands.on_message(Letter(letter(storm, one.reply_to, storm.sent)))
                        storm.sent += 1
                    await until(lambda: not Letter.under_way)
                    await one.ask("ping")
                    one.results.clear()
                    one.events.clear()
                storm.refused = agent.commands.malformed
                assert storm.refused > storm.sent / 10
                read = await one.ask("read", device="plc", points=["mode"])
                assert read["status"] == "ok"
                assert read["data"]["values"] == {"mode": "idle"}


async def test_more_than_can_wait_is_busy(
    broker: Broker, run_agent: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WAITING_BYTES", 1000)
    async with run_agent(PROFILE, broker.url, bench="rig") as agent, desk(broker.url, "rig") as one:
        await one.ask("ping")
        for number in range(20):
            body = json.dumps({"op": "ping", "padding": "x" * 200}).encode()
            agent.commands.on_message(
                Letter(encode(Message(body=body, message_id=f"m{number}", reply_to=one.reply_to)))
            )
        await until(lambda: any(result.get("code") == "busy" for _, result in one.results))
        await until(lambda: not Letter.under_way)
        assert (await one.ask("ping"))["status"] == "ok"
