"""Leases as holders and onlookers see them over AMQP, with an agent that comes and goes."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import structlog
from desk import Desk, RunAgent, desk

from agent import clock
from agent.lease.book import digest
from sim.broker import Broker

DEVICES = """
profile: rig
devices:
  pump:
    protocol: modbus
    connection: {transport: tcp, host: pump.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 20ms
    points:
      speed: {table: holding, address: 10, access: rw, safe: 0}
      lamp:  {table: holding, address: 20, access: rw}
    sim: {speed: 100, lamp: 0}
  valve:
    protocol: modbus
    connection: {transport: tcp, host: valve.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 20ms
    points:
      spool: {table: holding, address: 10, access: rw, safe: 5}
    sim: {spool: 50}
"""
HOOKS = """
hooks:
  before_lease:
    - write: {device: pump, values: {lamp: 1}}
    - call: {device: pump, method: identify}
    - run: [/bin/sh, -c, "env | grep ^HILGATE_ | sort > begun"]
  after_lease:
    - write: {device: pump, values: {lamp: 2}}
    - run: [/bin/sh, -c, "echo $HILGATE_LEASE_ID >> ended"]
"""


class Steady:
    """The clock that leases are counted by: it stands still until it is set."""

    now = 1000.0


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    one = Steady()
    monkeypatch.setattr(clock, "steady", lambda: one.now)
    return one


async def write(one: Desk, token: str | None, device: str = "pump", **values: int) -> dict[str, Any]:
    """A write with a token as application property."""
    message = {} if token is None else {"properties": {"lease": token}}
    return await one.ask("write", message_fields=message, device=device, values=values or {"speed": 7})


async def values(one: Desk, device: str) -> Any:
    return (await one.ask("read", device=device))["data"]["values"]


async def reserve(one: Desk, holder: str, ttl_s: float = 60, **fields: Any) -> str:
    answer = await one.ask("reserve", holder=holder, ttl_s=ttl_s, **fields)
    assert answer["status"] == "ok", answer
    return str(answer["data"]["lease"])


def said(one: Desk) -> list[tuple[str, str]]:
    """The lease events: state and holder."""
    return [(body["state"], body["holder"]) for _, body in one.of_type("lease")]


async def test_a_bench_is_leased_prepared_used_and_given_back(
    broker: Broker, run_agent: RunAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HILGATE_PASSWORD", "secret")
    async with desk(broker.url, "rig") as one, run_agent(DEVICES + HOOKS, broker.url):
        await one.until_state("available")
        token = await reserve(one, "ci-7", dte="dte-42")
        shown = (await one.until_state("leased"))["lease"]
        assert (shown["holder"], shown["state"], shown["devices"]) == ("ci-7", "held", None)
        assert (tmp_path / "begun").read_text().splitlines() == [
            "HILGATE_BENCH=rig",
            "HILGATE_LEASE_DEVICES=pump valve",
            "HILGATE_LEASE_DTE=dte-42",
            "HILGATE_LEASE_HOLDER=ci-7",
            f"HILGATE_LEASE_ID={digest(token)[:12]}",
            "HILGATE_MODE=sil",
        ]
        assert (await values(one, "pump"))["lamp"] == 1
        for wrong, code in ((None, "lease-held"), ("guess", "not-leased")):
            answer = await write(one, wrong)
            assert (answer["status"], answer["code"]) == ("rejected", code)
        assert (await write(one, token))["status"] == "ok"
        assert (await one.ask("renew", lease=token))["status"] == "ok"
        assert (await one.ask("release", lease=token))["status"] == "ok"
        assert await values(one, "pump") == {"speed": 0, "lamp": 2}
        assert await values(one, "valve") == {"spool": 5}
        assert (tmp_path / "ended").read_text() == f"{digest(token)[:12]}\n"
        assert (await write(one, token))["code"] == "lease-expired"
        assert (await write(one, None))["status"] == "ok"
        assert (await one.until_state("available"))["lease"] is None
    assert said(one) == [("held", "ci-7"), ("released", "ci-7")]
    (drive,) = [body for _, body in one.of_type("safety") if body["cause"] == "lease-end"]
    assert drive["safe"]


async def test_two_hold_their_devices_until_somebody_more_important_comes(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(DEVICES, broker.url):
        await one.until_state("available")
        pump = await reserve(one, "a", devices=["pump"])
        assert (await write(one, None, "valve", spool=9))["status"] == "ok"
        assert one.availability()["state"] == "available"
        valve = await reserve(one, "b", devices=["valve"], priority=1)
        assert [one["holder"] for one in (await one.until_state("leased"))["lease"]["others"]] == ["b"]
        answer = await one.ask("reserve", holder="c", ttl_s=9, priority=1)
        assert (answer["status"], answer["code"]) == ("rejected", "lease-held")
        assert "priority above 1" in answer["message"]
        assert (await write(one, valve, "pump"))["code"] == "lease-held"
        boss = await reserve(one, "boss", priority=2)
        assert (await write(one, pump))["code"] == "lease-expired"
        assert (await write(one, boss))["status"] == "ok"
        assert await values(one, "valve") == {"spool": 5}
    told = said(one)
    assert sorted(told[2:4]) == [("preempted", "a"), ("preempted", "b")]
    assert told[4:] == [("held", "boss")]


async def test_a_lease_that_runs_out_while_the_agent_is_away_is_cleaned_up_when_it_is_back(
    broker: Broker, run_agent: RunAgent, steady: Steady
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(DEVICES, broker.url):
            await one.until_state("available")
            short = await reserve(one, "short", 60, devices=["pump"])
            long = await reserve(one, "long", 600, devices=["valve"])
        await one.until_state("offline")
        assert ("expired", "short") not in said(one)
        steady.now += 60
        async with run_agent(DEVICES, broker.url):
            await one.until(lambda: ("expired", "short") in said(one))
            await one.until(lambda: [b for _, b in one.of_type("safety") if b["cause"] == "lease-end"])
            assert (await write(one, short))["code"] == "lease-expired"
            assert (await write(one, long, "valve", spool=9))["status"] == "ok"
            assert (await write(one, None, "valve", spool=9))["code"] == "lease-held"


async def test_a_holder_that_falls_silent_loses_the_bench_until_it_renews(
    broker: Broker, run_agent: RunAgent, steady: Steady
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(DEVICES, broker.url):
        await one.until_state("available")
        token = await reserve(one, "ci", 600, devices=["pump"], deadman_s=60)
        steady.now += 60
        await one.until(lambda: [body for _, body in one.of_type("safety") if body["cause"] == "dead-man"])
        answer = await write(one, token)
        assert (answer["code"], "op renew" in answer["message"]) == ("lease-expired", True)
        assert await values(one, "pump") == {"speed": 0, "lamp": 0}
        await one.ask("renew", lease=token)
        assert (await write(one, token))["status"] == "ok"
    assert said(one)[:3] == [("held", "ci"), ("lapsed", "ci"), ("renewed", "ci")]


async def test_a_bench_that_could_not_be_cleaned_up_is_at_fault_until_somebody_has_looked(
    broker: Broker, run_agent: RunAgent
) -> None:
    hooks = 'hooks: {after_lease: [{run: [/bin/sh, -c, "echo psu1 is locked; exit 4"]}]}\n'
    async with desk(broker.url, "rig") as one, run_agent(DEVICES + hooks, broker.url):
        await one.until_state("available")
        token = await reserve(one, "ci")
        assert (await one.ask("release", lease=token))["status"] == "ok"
        reason = (await one.until_state("fault"))["reason"]
        assert "after_lease.0 failed: /bin/sh ended with status 4: psu1 is locked" in reason
        await one.ask("enable")
        await one.until_state("available")


async def test_a_bench_that_could_not_be_prepared_is_not_leased(broker: Broker, run_agent: RunAgent) -> None:
    hooks = 'hooks: {before_lease: [{run: [/bin/sleep, "300"], timeout: 200ms}]}\n'
    async with desk(broker.url, "rig") as one, run_agent(DEVICES + hooks, broker.url):
        await one.until_state("available")
        answer = await one.ask("reserve", holder="ci", ttl_s=60)
        assert (answer["status"], answer["code"]) == ("failed", "timeout")
        assert "before_lease.0 failed: /bin/sleep did not end within 0.2 s" in answer["message"]
        assert (await write(one, None))["status"] == "ok"
    assert said(one) == [("failed", "ci")]


async def test_a_token_is_known_to_its_holder_alone(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with desk(broker.url, "rig") as one:
            async with run_agent(DEVICES + HOOKS, broker.url):
                await one.until_state("available")
                token = await reserve(one, "ci")
                await write(one, token)
                await one.ask("renew", lease=token)
                await one.ask("release", lease=token)
                await write(one, token)
                for op in ("renew", "release"):
                    await one.ask(op, lease=token)
            await one.until_state("offline")
    heard = repr([(event.type, event.data) for event in one.events])
    answers = [message for message, body in one.results if body["op"] != "reserve"]
    assert digest(token)[:12] in heard
    for text in (repr(logs), heard, repr(answers), (tmp_path / "begun").read_text()):
        assert token not in text
    with sqlite3.connect(tmp_path / "store-rig" / "store.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        holding = {
            table for table in tables if token in repr(database.execute(f"SELECT * FROM {table}").fetchall())
        }
    database.close()
    assert holding == {"journal"}


async def test_a_bench_that_is_being_prepared_holds_up_nobody_and_can_be_pre_empted(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    wait = "echo $HILGATE_LEASE_HOLDER >> begun; test $HILGATE_LEASE_HOLDER != slow || sleep 60"
    hooks = f'\nhooks:\n  before_lease:\n    - run: [/bin/sh, -c, "{wait}"]\n      timeout: 60s\n'
    async with desk(broker.url, "rig") as one, run_agent(DEVICES + hooks, broker.url):
        await one.until_state("available")
        valve = await reserve(one, "quick", devices=["valve"])
        slow = await one.post({"op": "reserve", "holder": "slow", "ttl_s": 60, "devices": ["pump"]})
        await one.until(lambda: (tmp_path / "begun").read_text().endswith("slow\n"))
        assert (await one.ask("ping"))["status"] == "ok"
        assert (await one.ask("renew", lease=valve))["status"] == "ok"
        assert (await one.ask("release", lease=valve))["status"] == "ok"
        assert (await one.ask("safe"))["status"] == "ok"
        await reserve(one, "important", devices=["pump"], priority=1)
        (answer,) = await one.answers(slow)
        assert (answer["status"], answer["code"]) == ("rejected", "lease-held")


async def test_who_sends_the_message_id_of_a_reserve_gets_its_result_and_not_its_token(
    broker: Broker, run_agent: RunAgent
) -> None:
    wanted = {"op": "reserve", "holder": "a", "ttl_s": 60}
    async with (
        desk(broker.url, "rig") as one,
        desk(broker.url, "rig") as other,
        run_agent(DEVICES, broker.url),
    ):
        await one.until_state("available")
        (first,) = await one.answers(await one.post(wanted, message_id="guess"))
        (second,) = await other.answers(await other.post({"op": "ping"}, message_id="guess"))
        assert (second["op"], second["status"]) == ("reserve", "ok")
        assert first["data"]["lease"] not in str(second)
        again = await one.answers(await one.post(wanted, message_id="guess"), 2)
        assert again == [first, first]


async def test_a_token_goes_to_no_topic(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(DEVICES, broker.url):
        await one.until_state("available")
        await one.post({"op": "reserve", "holder": "a", "ttl_s": 60}, reply_to=None)
        ((_, said),) = await one.until(lambda: one.of_type("result"))
        assert (said["status"], said["code"]) == ("rejected", "malformed")
        assert one.availability()["lease"] is None
