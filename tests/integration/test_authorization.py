"""Authorization through the whole agent and the embedded broker: what senders see, and what is audited."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import issuer
import pytest
import structlog
from desk import Desk, desk

from agent.app import Agent
from agent.authorization import judge
from agent.commands import service
from agent.profile import load_profile
from agent.settings import load_settings
from agent.store.inspect import AuditFilter, Inspector
from sim.broker import Broker

PROFILE = """
profile: bench
devices:
  pump:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 50ms
    points:
      setpoint: {table: holding, address: 10, type: uint16, access: rw, safe: 0}
  valve:
    protocol: modbus
    connection: {transport: tcp, host: plc-2.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 50ms
    points:
      opening: {table: holding, address: 10, type: uint16, access: rw}
"""

RULES = """
authorization:
  rules:
    - {ops: [ping, describe], anybody: true}
    - {ops: [reserve], users: ["ci-*"]}
    - {ops: [write, release], lease_holder: true}
    - {ops: [read], devices: [pump], users: [anne]}
    - {ops: [enable, read], roles: [operator]}
  jwt:
    issuer: https://idp.example/realms/benches
    audience: hilgate
    jwks: keys.json
"""
LIMIT = "rate_limit: {per_second: 0.001, burst: 5}\n"


@contextlib.asynccontextmanager
async def running(folder: Path, broker: Broker, blocks: str) -> AsyncIterator[tuple[Desk, Agent]]:
    """An agent with these blocks in its settings file, and a desk before it."""
    (folder / "profile.yaml").write_text(PROFILE)
    (folder / "keys.json").write_bytes(issuer.key_set(issuer.key()))
    file = folder / "settings.yaml"
    file.write_text(f"bench: rig\nbroker: {broker.url}\nsil: true\nstore: store\nheartbeat: 200ms\n{blocks}")
    agent, stop = (
        Agent(load_profile(folder / "profile.yaml", {}), load_settings(file, {}, {})),
        asyncio.Event(),
    )
    async with desk(broker.url, "rig") as one, asyncio.TaskGroup() as group:
        task = group.create_task(agent.run(stop))
        try:
            await one.until_state("available")
            yield one, agent
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await task


async def code(one: Desk, op: str, *, user: str = "", token: str = "", lease: str = "", **fields: Any) -> str:
    """What becomes of a command: `ok`, or its code."""
    shown = {"authorization": token and f"Bearer {token}", "lease": lease}
    properties = {name: text for name, text in shown.items() if text}
    said = await one.ask(
        op, message_fields={"user_id": user.encode() or None, "properties": properties}, **fields
    )
    assert said["status"] in ("ok", "rejected"), said
    assert said["message"] if said["code"] else True
    return str(said["code"] or said["status"])


def audited(folder: Path, **wanted: Any) -> list[Any]:
    names = ("since_ns", "until_ns", "who", "op", "device", "status", "lease", "holder", "key")
    with Inspector(folder / "store") as store:
        return list(store.audit(AuditFilter(*(wanted.get(name) for name in names)), 1000))


async def test_each_kind_of_rule_and_nothing_without_one(broker: Broker, tmp_path: Path) -> None:
    async with running(tmp_path, broker, RULES) as (one, agent):
        assert await code(one, "ping") == "ok"
        assert await code(one, "enable") == "unauthorized"
        assert await code(one, "levitate") == "unauthorized"
        assert await code(one, "read", device="pump") == "unauthorized"
        assert await code(one, "read", device="pump", user="anne") == "ok"
        assert await code(one, "read", device="valve", user="anne") == "unauthorized"
        assert await code(one, "read", device="valve", token=issuer.token()) == "ok"
        assert await code(one, "enable", token=issuer.token()) == "ok"
        guest = issuer.token(sub="guest", realm_access={"roles": ["guest"]})
        assert await code(one, "enable", token=guest) == "unauthorized"
        write: dict[str, Any] = {"device": "pump", "values": {"setpoint": 7}}
        assert await code(one, "write", user="ci-7", **write) == "unauthorized"
        assert await code(one, "reserve", holder="x", ttl_s=60) == "unauthorized"
        held = (
            await one.ask(
                "reserve", holder="x", ttl_s=60, devices=["pump"], message_fields={"user_id": b"ci-7"}
            )
        )["data"]["lease"]
        assert await code(one, "write", lease=held, **write) == "ok"
        assert await code(one, "write", lease="other", **write) == "unauthorized"
        assert await code(one, "write", lease=held, device="valve", values={"opening": 1}) == "unauthorized"
        assert await code(one, "safe") == "ok", "safe is always allowed"
        released = await one.ask("release", lease=held)
        assert released["status"] == "ok", released
        assert agent.authorizer.unauthorized["read"] == 2
        assert agent.authorizer.unauthorized["unknown"] == 1
        assert agent.authorizer.authorized["safe"] == 1
    whos = {(line.who, line.op) for line in audited(tmp_path, status="ok")}
    assert ("alice via no user-id", "enable") in whos
    assert ("anne", "read") in whos
    (refused,) = audited(tmp_path, who="guest via no user-id")
    assert (refused.status, refused.code) == ("rejected", "unauthorized")
    assert "'guest'" in refused.message
    assert "enable" in refused.message


async def test_tokens_that_are_not_in_order(broker: Broker, tmp_path: Path) -> None:
    stranger = issuer.key("ES256", "stranger")
    tokens = {
        "forged": issuer.token(stranger, {"kid": "one"}),
        "expired": issuer.token(exp=1_000_000_000),
        "not-yet": issuer.token(nbf=4_000_000_000, exp=4_000_000_100),
        "audience": issuer.token(aud="other"),
        "issuer": issuer.token(iss="https://evil.example"),
        "none": issuer.unsigned({"alg": "none"}, issuer.claims()),
        "hmac": issuer.token(issuer.jwk.JWK(kty="oct", k="c2VjcmV0" * 8, kid="one")),
        "unknown": issuer.token(stranger),
        "path": issuer.token(issuer.key(), {"kid": "../../etc/passwd"}),
        "brought": issuer.token(stranger, {"jwk": issuer.public(stranger)[0], "jku": "https://evil.example"}),
        "huge": issuer.token(pad="x" * 20_000),
        "text": "not a token",
    }
    with structlog.testing.capture_logs() as logs:
        said = await _tried(tmp_path, broker, tokens)
    store = b"".join(file.read_bytes() for file in (tmp_path / "store").iterdir() if file.is_file())
    for token in (*tokens.values(), issuer.token()):
        assert token[:60].encode() not in store or token == "not a token"
        assert token[:60] not in repr(logs) + said or token == "not a token"


async def _tried(folder: Path, broker: Broker, tokens: dict[str, str]) -> str:
    """Has each token refused; everything that was heard."""
    async with running(folder, broker, RULES) as (one, _):
        for name, token in tokens.items():
            assert await code(one, "enable", token=token) == "unauthorized", name
            # It is not passed over in silence where a rule would allow it without, and safe is safe.
            assert await code(one, "ping", token=token) == "unauthorized", name
            assert await code(one, "safe", token=token) == "ok", name
        for shown in ("Basic am9l", "", 5, b"Bearer x", issuer.token()):
            said = await one.ask("enable", message_fields={"properties": {"authorization": shown}})
            assert said["code"] == "unauthorized", shown
        assert await code(one, "enable", token=issuer.token()) == "ok"
        return repr([message for message, _ in one.results]) + repr(one.events)


async def test_a_key_that_is_rotated_in_the_file(broker: Broker, tmp_path: Path) -> None:
    two = issuer.key("EdDSA", "two")
    async with running(tmp_path, broker, RULES) as (one, agent):
        old, new = issuer.token(), issuer.token(two)
        assert await code(one, "enable", token=old) == "ok"
        (tmp_path / "next.json").write_bytes(issuer.key_set(two))
        (tmp_path / "next.json").rename(tmp_path / "keys.json")
        async with asyncio.timeout(30):
            while await code(one, "enable", token=new) != "ok":
                pass
        assert await code(one, "enable", token=old) == "unauthorized", "what was taken out is revoked"
        (tmp_path / "keys.json").write_text('{"keys": [')
        async with asyncio.timeout(30):
            while not agent.authorizer.trouble:
                await asyncio.sleep(0.05)
        assert await code(one, "enable", token=new) == "ok", "a broken file leaves the keys in force"


async def test_a_recorded_result_is_for_who_asked(broker: Broker, tmp_path: Path) -> None:
    async with running(tmp_path, broker, RULES) as (one, _):
        key = str(uuid.uuid4())
        first: dict[str, Any] = {"user_id": b"anne"}
        (said,) = await one.answers(await one.post({"op": "read", "device": "pump"}, message_id=key, **first))
        assert said["status"] == "ok"
        for sender in (
            {"user_id": b"bob"},
            {},
            {"properties": {"authorization": f"Bearer {issuer.token()}"}},
        ):
            count = len([1 for message, _ in one.results if message.correlation_id == key])
            await one.post({"op": "ping"}, message_id=key, **sender)
            again = (await one.answers(key, count + 1))[-1]
            assert (again["code"], again["data"]) == ("unauthorized", {}), sender
        count = len([1 for message, _ in one.results if message.correlation_id == key])
        await one.post({"op": "read", "device": "pump"}, message_id=key, **first)
        assert (await one.answers(key, count + 1))[-1] == said
        # Redelivered after its token expired: it has its one result already, and gets no other.
        expired = {"authorization": f"Bearer {issuer.token(exp=1_000_000_000)}"}
        lost: dict[str, Any] = {"message_id": key, "delivery_count": 1, "properties": expired}
        await one.post({"op": "read", "device": "pump"}, **lost, **first)
        await one.ask("ping")
        assert len([1 for message, _ in one.results if message.correlation_id == key]) == count + 1
        # Another's has not, redelivered or not, refused for its token or for the message-id.
        await one.post({"op": "read", "device": "pump"}, **lost, user_id=b"bob")
        await one.post({"op": "ping"}, message_id=key, delivery_count=1, user_id=b"bob")
        refused = (await one.answers(key, count + 3))[-2:]
        assert [body["code"] for body in refused] == ["unauthorized"] * 2


async def test_no_message_id_that_is_used_up_keeps_the_bench_from_being_made_safe(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_UP_S", 30.0)  # a busy disk would have `safe` carried out again
    async with running(tmp_path, broker, RULES) as (one, _):
        key = str(uuid.uuid4())
        await one.answers(await one.post({"op": "ping"}, message_id=key, user_id=b"eve"))
        await one.post({"op": "safe"}, message_id=key, user_id=b"anne")
        (_, safe) = await one.answers(key, 2)
        assert (safe["op"], safe["status"]) == ("safe", "ok")
        await one.post({"op": "safe"}, message_id=key, user_id=b"anne")
        assert (await one.answers(key, 3))[2] == safe, "the same sender's is the same command"


async def test_a_flood_is_refused_and_nobody_else_is(broker: Broker, tmp_path: Path) -> None:
    async with running(tmp_path, broker, LIMIT) as (one, agent):
        flood = [await one.post({"op": "ping"}, user_id=b"flood") for _ in range(300)]
        said = [(await one.answers(key))[0] for key in flood]
        assert [body["code"] for body in said] == [""] * 5 + ["rate-limited"] * 295
        assert "come again in" in said[-1]["message"]
        assert await code(one, "ping", user="anne") == "ok"
        for _ in range(10):
            assert await code(one, "safe", user="flood") == "ok"
        for _ in range(20):
            await one.post(b"no command", user_id=b"flood")
        assert await code(one, "ping", user="anne") == "ok"
        assert agent.authorizer.rate_limited == {"ping": 295}
        # What was refused may come again: nothing is held against its message-id.
        agent.authorizer._limiter = None
        await one.post({"op": "ping"}, message_id=flood[-1], user_id=b"flood")
        assert (await one.answers(flood[-1], 2))[-1]["status"] == "ok"
    lines = audited(tmp_path, who="flood", status="rate-limited")
    assert len(lines) == 2
    assert "294 more" in lines[-1].message
    assert len(audited(tmp_path, who="flood", status="malformed")) == 2


async def test_senders_without_a_name_share_and_a_token_has_its_own(broker: Broker, tmp_path: Path) -> None:
    async with running(tmp_path, broker, RULES + LIMIT) as (one, _):
        assert [await code(one, "ping") for _ in range(6)] == ["ok"] * 5 + ["rate-limited"]
        token = issuer.token()
        assert await code(one, "enable", token=token) == "rate-limited", "a new one counts by user-id"
        assert await code(one, "enable", token=token, user="anne") == "ok"
        assert await code(one, "enable", token=token) == "ok", "one that was verified counts by its subject"
        assert await code(one, "safe") == "ok"


async def test_without_the_block_all_is_allowed_and_the_log_says_so(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Log:
        def info(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr("structlog.get_logger", lambda *_: Log())
    one = judge.Authorizer(None, None, lambda _token, _device: False)
    monkeypatch.undo()
    await one.run()
    assert "no authorization is set" in said[0]
    assert one.judge(issuer.command("enable", bearer="nonsense")).user == ""
