"""Leases as they live: on a bench of scripted devices, with clocks that the test sets."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from leased_bench import HOOKS, Clock, LeasedRig, open_store, set_clocks
from scripted_bench import until

from agent.lease import hooks, keeper
from agent.lease.book import digest
from agent.store import SqliteStore
from protocols.base import DriverError, Refused


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clocks(monkeypatch)


@pytest.fixture
def store(tmp_path: Path, time: Clock) -> Iterator[SqliteStore]:
    one = open_store(tmp_path)
    yield one
    one.close()


async def test_a_lease_from_its_beginning_to_its_end(store: SqliteStore) -> None:
    rig = LeasedRig(store, HOOKS)
    async with rig.at_work():
        token = await rig.reserve("ci", dte="dte-42", priority=2)
        assert rig.writes() == ["pump lamp=1", "valve lamp=1"]
        assert rig.may("pump", token) == "ok"
        assert rig.may("pump", None) == "lease-held"
        assert rig.leases.covers_all()
        assert rig.leases.whose(token) == (digest(token)[:12], "ci")
        rig.log.clear()
        await rig.release(token)
        assert rig.writes() == ["pump speed=0", "valve spool=5", "pump lamp=2", "valve lamp=2"]
        assert rig.may("pump", token) == "lease-expired"
        assert rig.may("pump", None) == "ok"
        assert (rig.leases.shown(), rig.leases.covers_all()) == (None, False)
        assert rig.leases.whose(token) == (digest(token)[:12], "ci")
        with pytest.raises(Refused) as caught:
            await rig.release(token)
        assert caught.value.code == "lease-expired"
    assert rig.story() == ["held ci", "released ci", "drive lease-end"]
    assert rig.events.said[0][1] == {
        "lease": digest(token)[:12],
        "state": "held",
        "holder": "ci",
        "dte": "dte-42",
        "devices": None,
        "priority": 2,
        "expires": "2023-11-14T22:14:20.000000000Z",
        "reason": "",
    }


@pytest.mark.usefixtures("time")
async def test_a_token_is_256_bits_that_nobody_had_before(store: SqliteStore) -> None:
    rig = LeasedRig(store, {})
    async with rig.at_work():
        tokens = [await rig.reserve(), await rig.reserve(priority=9), await rig.reserve(priority=10)]
    assert len(set(tokens)) == 3
    assert {len(base64.urlsafe_b64decode(token + "=")) for token in tokens} == {32}


async def test_a_lease_ends_when_its_time_is_over(store: SqliteStore, time: Clock) -> None:
    rig = LeasedRig(store, {"after_lease": HOOKS["after_lease"]})
    async with rig.at_work():
        token = await rig.reserve(ttl_s=30)
        time.go_on(20)
        assert await rig.renew(token) == "2023-11-14T22:14:10.000000000Z"
        time.go_on(29.9)
        assert rig.may("pump", token) == "ok"
        time.go_on(0.1)
        assert rig.may("pump", token) == "lease-expired"
        await until(lambda: rig.leases.shown() is None)
        with pytest.raises(Refused) as caught:
            await rig.renew(token)
        assert caught.value.code == "lease-expired"
    assert rig.story() == ["held ci", "expired ci", "drive lease-end"]
    assert rig.writes() == ["pump speed=0", "valve spool=5", "pump lamp=2", "valve lamp=2"]


async def test_a_step_of_the_wall_clock_changes_no_lease(store: SqliteStore, time: Clock) -> None:
    rig = LeasedRig(store)
    async with rig.at_work():
        token = await rig.reserve(ttl_s=30)
        time.wall += 86400
        assert rig.may("pump", token) == "ok"
        shown = rig.leases.shown()
        assert shown is not None
        assert shown["expires"] == "2023-11-15T22:13:50.000000000Z"
        time.wall -= 2 * 86400
        time.go_on(29)
        await asyncio.sleep(0.03)
        assert rig.may("pump", token) == "ok"
        time.go_on(1)
        await until(lambda: rig.leases.shown() is None)


async def test_a_silent_holder_loses_the_bench_until_it_renews(store: SqliteStore, time: Clock) -> None:
    rig = LeasedRig(store)
    async with rig.at_work():
        token = await rig.reserve("ci", "pump", deadman_s=5)
        for _ in range(3):
            time.go_on(4)
            await rig.renew(token)
        assert rig.story() == ["held ci"]
        time.go_on(5)
        await until(lambda: len(rig.story()) == 3)
        assert rig.story() == ["held ci", "lapsed ci", "drive dead-man"]
        assert rig.events.said[1][1]["reason"] == "not renewed within 5 s"
        assert rig.may("pump", token) == "lease-expired"
        assert rig.may("pump", None) == "lease-held"
        await rig.renew(token)
        assert rig.may("pump", token) == "ok"
        assert rig.story()[3:] == ["renewed ci"]
        time.go_on(60)
        await until(lambda: rig.leases.shown() is None)
    assert rig.story()[4:] == ["expired ci", "drive lease-end"]


async def test_a_renew_is_answered_when_nothing_will_undo_what_comes_after_it(
    store: SqliteStore, time: Clock
) -> None:
    rig = LeasedRig(store)
    async with rig.at_work():
        token = await rig.reserve("ci", "pump", deadman_s=5)
        rig.drivers["pump"].hangs = True
        time.go_on(5)
        await rig.renew(token)
    assert rig.story() == ["held ci", "lapsed ci", "drive dead-man", "renewed ci"]


async def test_a_higher_priority_gets_the_bench_made_safe_and_cleaned_up(store: SqliteStore) -> None:
    rig = LeasedRig(store, HOOKS)
    async with rig.at_work():
        first = await rig.reserve("low", "pump", priority=1)
        with pytest.raises(Refused, match="leased to low") as caught:
            await rig.reserve("same", priority=1)
        assert caught.value.code == "lease-held"
        rig.log.clear()
        boss = await rig.reserve("boss", priority=2)
        assert rig.may("pump", first) == "lease-expired"
        assert rig.may("pump", boss) == rig.may("valve", boss) == "ok"
    assert rig.story() == ["held low", "preempted low", "drive lease-end", "held boss"]
    assert rig.events.said[1][1]["reason"] == "boss asked with priority 2"
    assert rig.writes() == ["pump speed=0", "pump lamp=2", "pump lamp=1", "valve lamp=1"]


async def test_a_lease_is_preempted_while_it_is_prepared(store: SqliteStore) -> None:
    rig = LeasedRig(store, {"before_lease": HOOKS["before_lease"]})
    async with rig.at_work():
        rig.drivers["pump"].hangs = True
        low = asyncio.create_task(rig.reserve("low"))
        await until(lambda: (rig.leases.shown() or {}).get("state") == "preparing")
        await asyncio.sleep(0)
        boss = asyncio.create_task(rig.reserve("boss", "valve", priority=1))
        rig.drivers["pump"].hangs = False  # the hook still does
        with pytest.raises(Refused, match="boss asked with priority 1") as caught:
            await low
        assert caught.value.code == "lease-held"
        assert rig.may("valve", await boss) == "ok"
    assert rig.story() == ["preempted low", "drive lease-end", "held boss"]


async def test_a_lease_is_preempted_while_it_waits_for_its_turn(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = asyncio.Event()
    monkeypatch.setattr(hooks, "run", lambda *_: clean.wait())
    rig = LeasedRig(store, {"after_lease": [{"run": ["clean"]}]})
    async with rig.at_work():
        await rig.reserve("low")
        middle = asyncio.create_task(rig.reserve("middle", priority=1))
        await until(lambda: "preempted low" in rig.story())
        shown = rig.leases.shown()
        assert shown is not None
        assert [shown["state"], shown["others"][0]["state"]] == ["ending", "waiting"]
        boss = asyncio.create_task(rig.reserve("boss", priority=2))
        with pytest.raises(Refused, match="boss asked"):
            await middle
        clean.set()
        await boss
    assert rig.story() == ["held low", "preempted low", "drive lease-end", "preempted middle", "held boss"]


async def test_ends_of_different_leases_do_not_wait_for_each_other(store: SqliteStore) -> None:
    rig = LeasedRig(store)
    async with rig.at_work():
        pump, valve = await rig.reserve("a", "pump"), await rig.reserve("b", "valve")
        assert rig.leases.covers_all()
        shown = rig.leases.shown()
        assert shown is not None
        assert (shown["holder"], [other["holder"] for other in shown["others"]]) == ("a", ["b"])
        rig.drivers["pump"].hangs = True
        slow = asyncio.create_task(rig.release(pump))
        await rig.release(valve)
        assert not slow.done()
        await slow
    assert rig.writes() == ["valve spool=5"]


async def test_a_lease_outlives_the_agent_and_ends_while_it_is_away(
    store: SqliteStore, time: Clock, tmp_path: Path
) -> None:
    async with (rig := LeasedRig(store, HOOKS)).at_work():
        token = await rig.reserve(ttl_s=30, deadman_s=20)
    store.close()
    time.go_on(10)
    store = open_store(tmp_path)
    async with (rig := LeasedRig(store, HOOKS)).at_work():
        assert rig.may("pump", token) == "ok"
        assert rig.story() == []
    store.close()
    time.go_on(20)
    store = open_store(tmp_path)
    async with (rig := LeasedRig(store, HOOKS)).at_work():
        assert rig.may("pump", token) == "lease-expired"
        await until(lambda: rig.leases.shown() is None)
        assert rig.story() == ["expired ci", "drive lease-end"]
        assert rig.writes() == ["pump speed=0", "valve spool=5", "pump lamp=2", "valve lamp=2"]
    store.close()


@pytest.mark.parametrize("hang", ["before", "after"])
async def test_what_the_agent_s_end_broke_off_is_cleaned_up_by_the_next(
    store: SqliteStore, hang: str
) -> None:
    rig = LeasedRig(store, HOOKS)
    async with rig.at_work():
        if hang == "before":
            rig.drivers["valve"].hangs = True
            doing: asyncio.Task[Any] = asyncio.create_task(rig.reserve())
            await until(lambda: "pump lamp=1" in rig.log)
        else:
            token = await rig.reserve()
            rig.drivers["valve"].hangs = True
            doing = asyncio.create_task(rig.release(token))
            await until(lambda: rig.story()[-1] == "released ci")
    with pytest.raises(DriverError, match="the agent stopped"):
        await doing
    again = LeasedRig(store, HOOKS)
    async with again.at_work():
        assert again.may("pump", None) == "lease-held"
        await until(lambda: again.leases.shown() is None)
    assert again.story() == (["failed ci"] if hang == "before" else []) + ["drive lease-end"]
    assert again.writes() == ["pump speed=0", "valve spool=5", "pump lamp=2", "valve lamp=2"]


async def test_what_was_not_made_safe_before_the_agent_s_end_is_made_safe_by_the_next(
    store: SqliteStore, time: Clock
) -> None:
    async with (rig := LeasedRig(store)).at_work():
        token = await rig.reserve("ci", "pump", deadman_s=5)
        rig.drivers["pump"].hangs = True
        time.go_on(5)
        await until(lambda: "lapsed ci" in rig.story())
    assert "drive dead-man" not in rig.story()
    async with (rig := LeasedRig(store)).at_work():
        await rig.renew(token)
        assert rig.story() == ["drive dead-man", "renewed ci"]
        assert rig.writes() == ["pump speed=0"]


async def test_leases_that_cannot_be_read_are_over_and_a_fault(store: SqliteStore) -> None:
    store.remember(keeper.LEASES, b'[{"id": 7}]')
    rig = LeasedRig(store)
    assert "cannot be read" in rig.safety.faults["leases"]
    assert rig.leases.shown() is None


async def test_a_bench_may_require_leases(store: SqliteStore) -> None:
    rig = LeasedRig(store, required=True)
    async with rig.at_work():
        assert rig.may("pump", None) == "not-leased"
        token = await rig.reserve("ci", "pump")
        assert rig.may("pump", token) == "ok"
        assert rig.may("valve", token) == "not-leased"


async def test_a_token_is_in_nothing_but_its_result(
    store: SqliteStore, time: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as logs:
        rig = LeasedRig(store, HOOKS)
        async with rig.at_work():
            low = await rig.reserve("low", deadman_s=1)
            time.go_on(2)
            await until(lambda: "lapsed low" in rig.story())
            await rig.renew(low)
            boss = await rig.reserve("boss", priority=1)
            for wrong in (low, boss + "x"):
                with pytest.raises(Refused) as caught:
                    await rig.release(wrong)
                assert wrong not in str(caught.value)
            await rig.release(boss)
    store.close()
    said = repr(logs) + repr(rig.events.said) + repr(rig.leases._book.leases) + repr(rig.leases._book.ended)
    kept = b"".join(file.read_bytes() for file in (tmp_path / "store").iterdir() if file.is_file())
    for token in (low, boss):
        assert token not in said
        assert token.encode() not in kept
        assert digest(token)[:12] in said
        assert digest(token).encode() in kept
