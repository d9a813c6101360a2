"""`hilgate store` beside an agent whose broker refuses messages for good."""

import base64
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from amqp_peer import Peer
from shell import Finished, Running, hilgate, running

from protocols.amqp.codec import decode
from protocols.amqp.links import Delivery

PROFILE = """\
profile: small-rig
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1, unit: 1}
    timeout: 30s
    address_base: 0
    poll: 100ms
    points:
      setpoint: {table: holding, address: 10, access: rw, min: 0, max: 3000}
"""
REFUSED = 5


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A broker that refuses the first messages, and takes the others."""

    def settle(delivery: Delivery) -> None:
        if len(one.deliveries) <= REFUSED:
            delivery.reject("amqp:not-allowed", "no writing \x1b[31mhere")
        else:
            delivery.accept()

    one = Peer()
    one.settle = settle
    async with one.listening():
        yield one


@pytest.fixture
async def agent(tmp_path: Path, directory: str, peer: Peer) -> AsyncIterator[Running]:
    """An agent that has dead letters."""
    profile = tmp_path / "small-rig.yaml"
    profile.write_text(PROFILE)
    words = ("run", str(profile), "--sil", "--bench", "rig-07", "--broker", peer.url, "--store", directory)
    async with running(*words) as agent:
        await peer.until(lambda: len(peer.deliveries) > 2 * REFUSED)
        yield agent


async def store(directory: str, *words: str) -> Finished:
    finished = await hilgate("store", *words, HILGATE_STORE=directory)
    assert "Traceback" not in finished.err
    return finished


async def letters(directory: str) -> list[dict[str, Any]]:
    listed = await store(directory, "list", "--json")
    assert (listed.code, listed.err) == (0, "")
    return listed.lines


def ids(peer: Peer) -> list[Any]:
    return [delivery.message().message_id for delivery in peer.deliveries]


async def test_dead_letters_are_listed_and_shown_while_the_agent_runs(
    agent: Running, directory: str, peer: Peer
) -> None:
    found = await letters(directory)
    assert [letter["event_id"] for letter in found] == ids(peer)[:REFUSED]
    assert all("amqp:not-allowed" in letter["reason"] for letter in found)
    assert {letter["type"] for letter in found} >= {"io.hilgate.availability.v1"}

    listed = await store(directory, "list")
    assert listed.code == 0
    assert "no writing �[31mhere" in listed.out
    assert "\x1b" not in listed.out

    first = found[0]
    shown = await store(directory, "show", str(first["id"]))
    assert shown.code == 0
    for word in (first["event_id"], first["address"], "message_id", "cloudEvents:type", '"bench": "rig-07"'):
        assert word in shown.out
    (whole,) = (await store(directory, "show", str(first["id"]), "--json")).lines
    assert whole["body"]["bench"] == "rig-07"
    assert whole["properties"]["message_id"] == first["event_id"]
    assert (await agent.end()).code == 0


async def test_a_running_agent_sends_what_is_retried(agent: Running, directory: str, peer: Peer) -> None:
    first, second, *_ = await letters(directory)
    retried = await store(directory, "retry", str(second["id"]))
    assert (retried.code, retried.out) == (0, "")
    assert "1 dead letter back in the outbox; the agent that runs sends" in retried.err
    await peer.until(lambda: ids(peer).count(second["event_id"]) == 2)
    assert ids(peer).count(first["event_id"]) == 1
    assert (await store(directory, "retry", "--all")).code == 0
    await peer.until(lambda: all(ids(peer).count(one) == 2 for one in ids(peer)[:REFUSED]))
    assert await letters(directory) == []
    before, after = (
        delivery.data for delivery in peer.deliveries if delivery.message().message_id == second["event_id"]
    )
    assert before == after
    assert (await agent.end()).code == 0


async def test_the_next_agent_sends_what_was_retried_before_it(
    agent: Running, directory: str, peer: Peer, tmp_path: Path
) -> None:
    assert (await agent.end()).code == 0
    refused = ids(peer)[:REFUSED]
    retried = await store(directory, "retry", "--all")
    assert f"{REFUSED} dead letters back in the outbox; the next agent that starts here sends" in retried.err
    profile = str(tmp_path / "small-rig.yaml")
    words = ("run", profile, "--sil", "--bench", "rig-07", "--broker", peer.url, "--store", directory)
    async with running(*words) as again:
        await peer.until(lambda: all(ids(peer).count(one) == 2 for one in refused))
        assert (await again.end()).code == 0


async def test_export_and_purge(agent: Running, directory: str, peer: Peer, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    assert (await store(directory, "export", str(file))).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event_id"] for line in lines] == ids(peer)[:REFUSED]
    assert decode(base64.b64decode(lines[0]["message_base64"])).message_id == ids(peer)[0]
    assert (await store(directory, "export")).lines == lines
    assert (await store(directory, "export", str(file))).code == 2

    unanswered = await store(directory, "purge", "--all")
    assert unanswered.code == 1
    assert f"Delete {REFUSED} dead letters for good?" in unanswered.err
    assert len(await letters(directory)) == REFUSED
    young = await store(directory, "purge", "--all", "--older-than", "1h", "--yes")
    assert (young.code, young.err) == (0, "0 dead letters deleted\n")
    one = await store(directory, "purge", str(lines[0]["id"]), "--yes")
    assert (one.code, one.err) == (0, "1 dead letter deleted\n")
    rest = await store(directory, "purge", "--all", "--yes")
    assert rest.err == f"{REFUSED - 1} dead letters deleted\n"
    assert await letters(directory) == []
    assert (await agent.end()).code == 0


async def test_status_tells_of_everything_kept(agent: Running, directory: str) -> None:
    shown = await store(directory, "status")
    assert shown.code == 0
    for word in ("an agent runs on it", "store.db", "dead letters", "journal", "audit", "epoch", "schema"):
        assert word in shown.out
    (status,) = (await store(directory, "status", "--json")).lines
    assert status["in_use"] is True
    assert status["kept"]["dead letters"]["number"] == REFUSED
    assert (await agent.end()).code == 0
    (after,) = (await store(directory, "status", "--json")).lines
    assert after["in_use"] is False
    assert after["epoch"] == status["epoch"]


async def test_an_unknown_id_is_exit_1_and_nothing_is_done(agent: Running, directory: str) -> None:
    for words in (("retry", "1", "99"), ("purge", "1", "99", "--yes"), ("show", "99")):
        finished = await store(directory, *words)
        assert finished.code == 1
        assert "There is no dead letter 99; nothing was done" in finished.err
    assert len(await letters(directory)) == REFUSED
    assert (await agent.end()).code == 0


@pytest.mark.parametrize("words", [("list",), ("status", "--json"), ("retry", "--all"), ("export",)])
async def test_where_there_is_no_store_it_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    finished = await store(str(tmp_path), *words)
    assert (finished.code, finished.out) == (2, "")
    assert f"There is no store in {tmp_path}" in finished.err
    assert not any(os.scandir(tmp_path))
    unsaid = await hilgate("store", *words)
    assert unsaid.code == 2
    assert "Give --store DIR" in unsaid.err


async def test_retry_and_purge_want_ids_or_all(tmp_path: Path) -> None:
    for words in (("retry",), ("retry", "1", "--all"), ("purge",)):
        finished = await store(str(tmp_path), *words)
        assert finished.code == 2
