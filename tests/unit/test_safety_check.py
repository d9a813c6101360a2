"""What may be written: interlocks and rates, judged from fresh readings."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_bench import Rig, until

from agent.store import SqliteStore
from protocols.base import DeviceState, DriverError, Refused

PUMP: dict[str, dict[str, Any]] = {"speed": {"safe": 0}, "free": {}}


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    one = SqliteStore(None, 10**6, 3600)
    yield one
    one.close()


GUARDED: dict[str, dict[str, Any]] = {
    "speed": {"max_rate": 100, "safe": 0},
    "valve": {
        "table": "coil",
        "safe": False,
        "requires": {"door": True, "tank.level": {"min": 10, "max": 90}},
    },
    "door": {"table": "discrete", "access": "ro"},
}
TANK = {"level": {"table": "input", "access": "ro"}}


def guarded(store: SqliteStore) -> Rig:
    rig = Rig(store, {"pump": GUARDED, "tank": TANK})
    rig.drivers["pump"].values["door"] = True
    rig.drivers["tank"].values["level"] = 50
    return rig


async def test_an_interlock_that_holds_lets_pass_and_is_read_anew(store: SqliteStore) -> None:
    rig = guarded(store)
    async with rig.running():
        await rig.safety.check(rig["pump"], {"valve": True})
    assert sorted(rig.log) == ["pump read door", "tank read level"]


@pytest.mark.parametrize(
    ("door", "level", "said"),
    [
        (False, 50, "pump.door is false, has to be true"),
        (True, 9, "tank.level is 9, has to be from 10 to 90"),
        (True, 91, "tank.level is 91, has to be from 10 to 90"),
        (False, 0, "pump.door is false, has to be true; tank.level is 0, has to be from 10 to 90"),
    ],
)
async def test_an_interlock_that_does_not_hold(store: SqliteStore, door: bool, level: int, said: str) -> None:
    rig = guarded(store)
    rig.drivers["pump"].values["door"] = door
    rig.drivers["tank"].values["level"] = level
    async with rig.running():
        with pytest.raises(Refused) as caught:
            await rig.safety.check(rig["pump"], {"speed": 5, "valve": True})
    assert caught.value.code == "disabled"
    assert str(caught.value) == f"interlock of pump.valve: {said}"


async def test_an_interlock_that_cannot_be_read_does_not_hold(store: SqliteStore) -> None:
    rig = guarded(store)
    async with rig.running():
        rig.drivers["tank"].die()
        await until(lambda: rig["tank"].status is DeviceState.OFFLINE)
        with pytest.raises(Refused, match=r"tank\.level cannot be read \(.*cable pulled\), has to be from"):
            await rig.safety.check(rig["pump"], {"valve": True})


async def test_one_point_of_several_that_cannot_be_read_does_not_hold(store: SqliteStore) -> None:
    points = {**GUARDED, "valve": {**GUARDED["valve"], "requires": {"door": True, "speed": 0}}}
    rig = Rig(store, {"pump": points})
    rig.drivers["pump"].values["door"] = True
    rig.drivers["pump"].unreadable = {"door"}
    async with rig.running():
        with pytest.raises(Refused, match=r"pump\.door cannot be read \(timeout\)"):
            await rig.safety.check(rig["pump"], {"valve": True})


async def test_the_safe_value_needs_no_interlock(store: SqliteStore) -> None:
    rig = guarded(store)
    rig.drivers["pump"].values["door"] = False
    async with rig.running():
        await rig.safety.check(rig["pump"], {"valve": False})
        assert rig.log == []


async def test_a_value_may_not_change_faster_than_its_rate(store: SqliteStore) -> None:
    rig = guarded(store)
    rig.drivers["pump"].values["speed"] = 500
    async with rig.running():
        await rig.safety.check(rig["pump"], {"speed": 600})
        with pytest.raises(Refused) as caught:
            await rig.safety.check(rig["pump"], {"speed": 601})
        assert caught.value.code == "out-of-range"
        assert str(caught.value) == (
            "speed = 601 would change too fast: it is 500 now, max_rate is 100 a second; "
            "it takes from 400 to 600"
        )
        await rig["pump"].write({"speed": 600})
        rig.safety.wrote(rig["pump"], {"speed": 600})
        with pytest.raises(Refused, match="it takes from 500 to 600"):
            await rig.safety.check(rig["pump"], {"speed": 700})
    assert rig.log[0] == "pump read speed"


async def test_after_a_drive_a_value_climbs_no_faster_than_its_rate(store: SqliteStore) -> None:
    rig = guarded(store)
    rig.drivers["pump"].values["speed"] = 3000
    async with rig.running():
        await rig.safety.drive("command")
        assert rig.drivers["pump"].values["speed"] == 0
        await rig.safety.check(rig["pump"], {"speed": 100})
        with pytest.raises(Refused, match="from -100 to 100"):
            await rig.safety.check(rig["pump"], {"speed": 3000})


async def test_a_value_that_a_drive_ended_was_in_force_until_then(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("agent.safety.keeper.time", SimpleNamespace(monotonic=lambda: now[0]))
    rig = guarded(store)
    async with rig.running():
        await rig.safety.check(rig["pump"], {"speed": 100})
        await rig["pump"].write({"speed": 100})
        rig.safety.wrote(rig["pump"], {"speed": 100})
        now[0] = 5.0
        await rig.safety.drive("command")
        now[0] = 5.9
        with pytest.raises(Refused, match="it takes from 0 to 100"):
            await rig.safety.check(rig["pump"], {"speed": -50})
        now[0] = 6.1
        await rig.safety.check(rig["pump"], {"speed": -50})


async def test_what_moved_by_itself_may_be_written_as_it_is_and_nothing_else(store: SqliteStore) -> None:
    rig = guarded(store)
    async with rig.running():
        rig.safety.wrote(rig["pump"], {"speed": 1000})
        await rig.safety.check(rig["pump"], {"speed": 0})
        with pytest.raises(Refused, match="nothing else for a second"):
            await rig.safety.check(rig["pump"], {"speed": 50})


async def test_a_value_that_is_not_known_is_not_changed(store: SqliteStore) -> None:
    rig = guarded(store)
    async with rig.running():
        rig.drivers["pump"].unreadable = {"speed"}
        with pytest.raises(
            DriverError, match="nothing was written: max_rate needs what speed is now"
        ) as caught:
            await rig.safety.check(rig["pump"], {"speed": 1})
        assert caught.value.code == "timeout"
        rig.drivers["pump"].die()
        await until(lambda: rig["pump"].status is DeviceState.OFFLINE)
        with pytest.raises(DriverError) as caught:
            await rig.safety.check(rig["pump"], {"speed": 1})
        assert caught.value.code == "disconnected"


async def test_a_point_without_guards_is_not_read(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    async with rig.running():
        await rig.safety.check(rig["pump"], {"speed": 3000, "free": 1})
    assert rig.log == []
