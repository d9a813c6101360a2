"""Hooks on a bench of scripted devices: in order, within their time, bound by what binds commands."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leased_bench import DEVICES, HOOKS, LeasedRig, open_store, set_clocks
from scripted_bench import until

from agent.lease import hooks
from agent.store import AuditEntry, SqliteStore
from protocols.base import DriverError, Refused, Sample, Value


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    set_clocks(monkeypatch)
    one = open_store(tmp_path)
    yield one
    one.close()


async def test_where_a_hook_before_it_fails_there_is_no_lease(store: SqliteStore) -> None:
    hooks = {"before_lease": HOOKS["before_lease"], "after_lease": HOOKS["after_lease"][:1]}
    rig = LeasedRig(store, hooks)
    rig.drivers["valve"].refuses = {"lamp"}
    async with rig.at_work():
        with pytest.raises(DriverError, match=r"hook before_lease\.1 failed: valve refuses lamp") as caught:
            await rig.reserve()
        assert caught.value.code == "device-error"
        assert rig.leases.shown() is None
        assert rig.may("pump", None) == "ok"
    assert rig.writes() == ["pump lamp=1", "pump speed=0", "valve spool=5", "pump lamp=2"]
    assert rig.story() == ["failed ci", "drive lease-end"]
    assert not rig.safety.faults


async def test_a_hook_that_takes_too_long_is_broken_off(store: SqliteStore) -> None:
    before = [{"write": {"device": "pump", "values": {"lamp": 1}}, "timeout": 0.02}]
    rig = LeasedRig(store, {"before_lease": before})
    async with rig.at_work():
        rig.drivers["pump"].hangs = True
        with pytest.raises(DriverError, match=r"pump took longer than 0\.02 s") as caught:
            await rig.reserve("ci", "pump")
        assert caught.value.code == "timeout"


async def test_a_hook_is_broken_off_when_somebody_makes_the_bench_safe(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = asyncio.Event()

    async def hang(values: Mapping[str, Value]) -> Sample:
        under_way.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never

    rig = LeasedRig(store, {"before_lease": HOOKS["before_lease"]})
    monkeypatch.setattr(rig.drivers["pump"], "write", hang)
    async with rig.at_work():
        reserving = asyncio.create_task(rig.reserve("ci", "pump"))
        await under_way.wait()
        await rig.safety.drive("command")
        with pytest.raises(DriverError, match="broken off to make device pump safe"):
            await reserving
        assert rig.leases.shown() is None


async def test_nothing_is_prepared_any_more_when_the_bench_was_made_safe_between_two_hooks(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = LeasedRig(store, {"before_lease": [{"run": ["power"]}, HOOKS["before_lease"][0]]})

    async def program(*_: Any) -> None:
        await rig.safety.drive("command")

    monkeypatch.setattr(hooks, "run", program)
    async with rig.at_work():
        with pytest.raises(DriverError, match=r"before_lease\.1 failed: device pump was made safe"):
            await rig.reserve()
        assert rig.leases.shown() is None
    assert "pump lamp=1" not in rig.writes()


async def test_a_fault_of_a_driver_is_its_hook_s(store: SqliteStore) -> None:
    rig = LeasedRig(store, HOOKS)
    async with rig.at_work():
        token = await rig.reserve()
        rig.drivers["pump"].broken = True
        await rig.release(token)
        assert "internal error in the driver: ZeroDivisionError: a bug" in rig.safety.faults["hook"]
        assert rig.leases.shown() is None


async def test_nothing_is_prepared_on_a_bench_that_could_not_be_cleaned_up(store: SqliteStore) -> None:
    rig = LeasedRig(store, HOOKS)
    async with rig.at_work():
        await rig.reserve("low", "pump")
        rig.drivers["pump"].refuses = {"lamp"}
        rig.log.clear()
        with pytest.raises(
            DriverError, match=r"in fault \(cleaning up after lease .* of low: hook after_lease"
        ):
            await rig.reserve("boss", "pump", priority=1)
        assert rig.leases.shown() is None
    assert rig.writes() == ["pump speed=0"]
    assert rig.story() == ["held low", "preempted low", "drive lease-end", "failed boss"]


async def test_nothing_is_cleaned_up_before_what_prepared_it_is_over(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = LeasedRig(store, {"before_lease": [{"run": ["prepare"]}], "after_lease": [{"run": ["clean"]}]})

    async def program(command: Sequence[str], *_: Any) -> None:
        rig.log.append(f"{command[0]} begins")
        try:
            if len(rig.log) == 1:
                await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.02)  # killed, and not at once dead
            rig.log.append(f"{command[0]} is over")

    monkeypatch.setattr(hooks, "run", program)
    async with rig.at_work():
        low = asyncio.create_task(rig.reserve("low", "pump"))
        await until(lambda: rig.log)
        await rig.reserve("boss", "pump", priority=1)
        with pytest.raises(Refused, match="boss asked"):
            await low
    assert [line for line in rig.log if " read " not in line] == [
        "prepare begins",
        "prepare is over",
        "pump speed=0",
        "clean begins",
        "clean is over",
        "prepare begins",
        "prepare is over",
    ]


async def test_hooks_are_bound_by_interlocks(store: SqliteStore) -> None:
    pump = {"speed": {"safe": 0, "requires": {"lamp": {"max": 0}}}, "lamp": {}}
    before = [{"write": {"device": "pump", "values": {name: 1}}} for name in ("lamp", "speed")]
    rig = LeasedRig(store, {"before_lease": before}, devices={**DEVICES, "pump": pump})
    async with rig.at_work():
        with pytest.raises(DriverError, match=r"before_lease\.1 failed: interlock of pump\.speed") as caught:
            await rig.reserve()
    assert caught.value.code == "device-error"
    assert "pump speed=1" not in rig.writes()


async def test_hooks_call_what_a_device_can_do(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    async def call(method: str, args: Mapping[str, Any]) -> Any:
        called.append((method, args))
        if len(called) > 1:
            raise Refused("malformed", "identify takes no level twice")

    hook = {"call": {"device": "pump", "method": "identify", "args": {"level": "basic"}}}
    rig = LeasedRig(store, {"before_lease": [hook, hook, hook]})
    monkeypatch.setattr(rig.drivers["pump"], "call", call)
    async with rig.at_work():
        with pytest.raises(DriverError, match=r"before_lease\.1 failed: identify takes no level twice"):
            await rig.reserve()
    assert called == [("identify", {"level": "basic"})] * 2


async def test_a_hook_that_fails_after_it_is_a_fault_until_a_person_has_looked(store: SqliteStore) -> None:
    rig = LeasedRig(store, {"after_lease": HOOKS["after_lease"]})
    rig.drivers["pump"].refuses = {"lamp"}
    async with rig.at_work():
        token = await rig.reserve()
        await rig.release(token)
        assert "after_lease.0 failed: pump refuses lamp" in rig.safety.faults["hook"]
        assert rig.leases.shown() is None
        assert "valve lamp=2" not in rig.writes()


async def test_hooks_are_audited(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    audited: list[AuditEntry] = []
    monkeypatch.setattr(store, "audit", audited.append)
    rig = LeasedRig(store, {"before_lease": HOOKS["before_lease"]})
    rig.drivers["valve"].refuses = {"lamp"}
    async with rig.at_work():
        with pytest.raises(DriverError):
            await rig.reserve()
    hooks = [entry for entry in audited if entry.op == "hook"]
    assert [(one.who, one.device, one.status, one.code, one.holder) for one in hooks] == [
        ("agent", "pump", "ok", "", "ci"),
        ("agent", "valve", "failed", "device-error", "ci"),
    ]
    assert msgspec.json.decode(hooks[0].what) == {"write": {"device": "pump", "values": {"lamp": 1}}}


async def test_hooks_of_devices_outside_the_lease_are_left_away(store: SqliteStore) -> None:
    rig = LeasedRig(store, HOOKS)
    async with rig.at_work():
        token = await rig.reserve("ci", "valve")
        assert rig.may("pump", None) == "ok"
        assert rig.may("valve", None) == "lease-held"
        assert not rig.leases.covers_all()
        await rig.release(token)
    assert rig.writes() == ["valve lamp=1", "valve spool=5", "valve lamp=2"]
