"""Driving devices to their safe values: order, limits of time, and what is said of each point."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_bench import Rig, until

from agent.safety import driving, keeper
from agent.store import SqliteStore
from protocols.base import DeviceState, Refused, Sample

PUMP = {"speed": {"safe": 0}, "relief": {"safe": 20}, "ready": {"access": "ro"}, "free": {}}
VALVE = {"spool": {"safe": 5}, "enable": {"table": "coil", "safe": False}, "key": {"access": "wo", "safe": 9}}


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    one = SqliteStore(None, 10**6, 3600)
    yield one
    one.close()


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "DEVICE_LIMIT_S", 0.2)


def points(body: Any, device: str) -> dict[str, tuple[bool, bool | None]]:
    return {
        one["point"]: (one["reached"], one["verified"]) for one in body["points"] if one["device"] == device
    }


def reason(body: Any, device: str, point: str) -> str:
    (one,) = [one for one in body["points"] if (one["device"], one["point"]) == (device, point)]
    return str(one["reason"])


async def test_safe_values_are_written_in_the_order_of_the_profile_and_read_back(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running():
        body = await rig.safety.drive("command", reason="hose is off")
    assert rig.log == [
        "valve spool=5",
        "valve enable=False",
        "valve key=9",
        "valve read spool enable",
        "pump speed=0",
        "pump relief=20",
        "pump read speed relief",
    ]
    assert body["safe"] is True
    assert (body["cause"], body["reason"]) == ("command", "hose is off")
    assert body["started"] <= body["finished"]
    assert body["points"][0] == {
        "device": "valve",
        "point": "spool",
        "value": 5,
        "reached": True,
        "verified": True,
        "reason": "",
    }
    assert points(body, "valve")["key"] == (True, None)
    assert rig.events.said == [("io.hilgate.safety.v1", body, "hil")]
    assert rig.safety.faults == {}


async def test_only_the_devices_that_are_named_are_made_safe(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running():
        body = await rig.safety.drive("lease-end", ["pump"])
    assert {one["device"] for one in body["points"]} == {"pump"}
    assert not [line for line in rig.log if line.startswith("valve")]


async def test_where_nothing_has_a_safe_value_that_is_said(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": {"free": {}}})
    async with rig.running():
        body = await rig.safety.drive("stop")
    assert (body["safe"], body["points"]) == (True, [])
    assert rig.events.said[0][1] == body
    assert rig.log == []


async def test_a_disabled_device_is_left_alone(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    rig["pump"].config = rig["pump"].config.model_copy(update={"enabled": False})
    assert (await rig.safety.drive("stop"))["points"] == []


async def test_a_device_that_is_not_there_comes_last_and_keeps_nobody(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    rig.drivers["valve"].dead = True
    async with rig.running():
        body = await rig.safety.drive("command")
    assert [one["device"] for one in body["points"]] == ["pump"] * 2 + ["valve"] * 3
    assert points(body, "pump") == {"speed": (True, True), "relief": (True, True)}
    assert points(body, "valve") == dict.fromkeys(VALVE, (False, None))
    assert "nobody there" in reason(body, "valve", "spool")
    assert body["safe"] is False
    assert list(rig.safety.faults) == ["safe:valve"]
    assert rig.safety.faults["safe:valve"].startswith("valve could not be made safe: spool: device valve is")
    assert rig.changes


@pytest.mark.usefixtures("_hurried")
async def test_a_device_that_hangs_has_its_time_and_no_more(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running():
        rig.drivers["valve"].hangs = True
        began = asyncio.get_running_loop().time()
        body = await rig.safety.drive("command")
        took = asyncio.get_running_loop().time() - began
    assert took > 0.15
    assert points(body, "valve") == dict.fromkeys(VALVE, (False, None))
    assert "no answer within" in reason(body, "valve", "spool")
    assert points(body, "pump") == {"speed": (True, True), "relief": (True, True)}


async def test_devices_share_what_time_there_is(store: SqliteStore) -> None:
    rig = Rig(store, dict.fromkeys(("a", "b", "c", "d"), PUMP))
    async with rig.running():
        for name in ("a", "b", "c"):
            rig.drivers[name].hangs = True
        began = asyncio.get_running_loop().time()
        body = await rig.safety.drive("stop", within=1)
        took = asyncio.get_running_loop().time() - began
    assert took > 0.7  # a quarter each; what is left is enough for d
    assert points(body, "d") == {"speed": (True, True), "relief": (True, True)}


async def test_a_point_that_is_refused_does_not_keep_the_others(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE})
    async with rig.running():
        rig.drivers["valve"].refuses = {"spool"}
        body = await rig.safety.drive("command")
    assert points(body, "valve") == {"spool": (False, None), "enable": (True, True), "key": (True, None)}
    assert reason(body, "valve", "spool") == "valve refuses spool"
    assert rig.safety.faults == {"safe:valve": "valve could not be made safe: spool: valve refuses spool"}


async def test_a_point_that_reads_back_as_something_else_is_not_safe(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    async with rig.running():
        rig.drivers["pump"].values["relief"] = 150
        rig.drivers["pump"].sticks = {"relief"}
        body = await rig.safety.drive("command")
    assert points(body, "pump") == {"speed": (True, True), "relief": (True, False)}
    assert reason(body, "pump", "relief") == "relief was written as 20 and reads back as 150"
    assert body["safe"] is False
    assert "safe:pump" in rig.safety.faults


async def test_a_point_that_cannot_be_read_back_though_it_should_is_not_safe(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    async with rig.running():
        rig.drivers["pump"].unreadable = {"speed", "relief"}
        body = await rig.safety.drive("command")
    assert points(body, "pump") == {"speed": (True, False), "relief": (True, False)}
    assert reason(body, "pump", "speed") == "written, but not read back: pump does not answer"


async def test_one_point_of_several_that_cannot_be_read_back_is_not_safe(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    async with rig.running():
        rig.drivers["pump"].unreadable = {"speed"}
        body = await rig.safety.drive("command")
    assert points(body, "pump") == {"speed": (True, False), "relief": (True, True)}
    assert reason(body, "pump", "speed") == "speed was written as 0 and reads back as timeout"


async def test_a_device_that_shows_late_what_it_was_told_is_read_again(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    driver = rig.drivers["pump"]
    truly, shown = driver.read, iter([1, 1])

    async def read(points: Any) -> Any:
        sample = await truly(points)
        return Sample(sample.time_ns, {**sample.values, "speed": next(shown, 0)})

    async with rig.running():
        driver.read = read  # type: ignore[method-assign]
        body = await rig.safety.drive("command")
    assert points(body, "pump") == {"speed": (True, True), "relief": (True, True)}
    assert next(shown, None) is None


@pytest.mark.usefixtures("_hurried")
async def test_a_device_that_hangs_after_the_write_is_reached_but_not_verified(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})

    async def hang(points: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    async with rig.running():
        rig.drivers["pump"].read = hang  # type: ignore[method-assign]
        body = await rig.safety.drive("command")
    assert points(body, "pump") == {"speed": (True, False), "relief": (True, False)}
    assert "not read back within" in reason(body, "pump", "speed")
    assert body["safe"] is False


async def test_a_fault_of_a_driver_is_one_devices(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running():
        rig.drivers["valve"].broken = True
        body = await rig.safety.drive("command")
    assert "ZeroDivisionError" in reason(body, "valve", "spool")
    assert points(body, "pump") == {"speed": (True, True), "relief": (True, True)}


async def test_what_cannot_be_ended_is_a_fault_and_keeps_nothing_from_being_made_safe(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running():
        monkeypatch.setattr(rig.drivers["valve"], "rest", lambda: 1 / 0)
        body = await rig.safety.drive("command")
    assert points(body, "pump") == {"speed": (True, True), "relief": (True, True)}
    assert body["safe"]
    assert "device valve: what commands set going may go on: ZeroDivisionError" in str(rig.safety.faults)


async def test_a_command_under_way_is_ended_and_one_that_waits_comes_too_late(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    turns = rig["pump"].turns
    at_it = asyncio.Event()

    async def command(overtakes: int) -> None:
        async with turns.commanded(overtakes):
            at_it.set()
            await asyncio.sleep(0.05)
            await rig["pump"].write({"speed": 3000})

    async with rig.running():
        first = asyncio.create_task(command(turns.overtakes))
        second = asyncio.create_task(command(turns.overtakes))
        await at_it.wait()
        body = await rig.safety.drive("command")
        await first
        with pytest.raises(Refused, match="made safe after this command came"):
            await second
    assert body["safe"]
    assert rig.log[:3] == ["pump speed=3000", "pump speed=0", "pump relief=20"]
    assert rig.drivers["pump"].values["speed"] == 0


async def test_faults_outlive_the_agent_until_the_device_is_safe(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running():
        rig.drivers["valve"].refuses = {"spool"}
        await rig.safety.drive("stop")
    later = Rig(store, {"valve": VALVE, "pump": PUMP})
    assert list(later.safety.faults) == ["safe:valve"]
    async with later.running():
        await later.safety.drive("command", ["pump"])
        assert list(later.safety.faults) == ["safe:valve"]
        await later.safety.drive("command")
    assert later.safety.faults == {}
    assert Rig(store, {}).safety.faults == {}


async def test_a_person_clears_faults(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    rig.safety.fault("hook", "the power did not go off")
    assert Rig(store, {}).safety.faults == {"hook": "the power did not go off"}
    rig.safety.clear()
    assert rig.safety.faults == Rig(store, {}).safety.faults == {}
    assert rig.changes == 2


async def test_a_long_list_of_failures_is_cut(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": {f"p{number}": {"safe": 1} for number in range(10)}})
    async with rig.running():
        rig.drivers["pump"].refuses = set(rig["pump"].config.points)
        await rig.safety.drive("stop")
    assert rig.safety.faults["safe:pump"].endswith("p2: pump refuses p2; and 7 more")


# -- without anybody asking ---------------------------------------------------------------------


@pytest.fixture
def _lively(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 0.01)
    monkeypatch.setattr("agent.device.BACKOFF_FIRST_S", 0.03)


def causes(rig: Rig) -> list[str]:
    return [body["cause"] for _, body, _ in rig.events.said]


@pytest.mark.usefixtures("_lively")
async def test_a_device_that_could_not_be_made_safe_is_as_soon_as_it_is_back(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running(), asyncio.TaskGroup() as group:
        watching = group.create_task(rig.safety.run())
        rig.drivers["valve"].die()
        await until(lambda: rig["valve"].status is DeviceState.OFFLINE)
        await rig.safety.drive("stop")
        assert causes(rig) == ["stop"]
        rig.drivers["valve"].rise()
        await until(lambda: len(rig.events.said) == 2)
        watching.cancel()
    body = rig.events.said[1][1]
    assert (body["cause"], body["safe"]) == ("reconnected", True)
    assert {one["device"] for one in body["points"]} == {"valve"}
    assert rig.safety.faults == {}


@pytest.mark.usefixtures("_lively")
async def test_what_an_earlier_run_left_unsafe_is_made_safe_at_the_start(store: SqliteStore) -> None:
    Rig(store, {"valve": VALVE}).safety.fault("safe:valve", "valve could not be made safe")
    rig = Rig(store, {"valve": VALVE, "pump": PUMP})
    async with rig.running(), asyncio.TaskGroup() as group:
        watching = group.create_task(rig.safety.run())
        await until(lambda: not rig.safety.faults)
        watching.cancel()
    assert causes(rig) == ["reconnected"]


@pytest.mark.usefixtures("_lively")
async def test_a_device_that_refuses_is_not_driven_again_and_again(store: SqliteStore) -> None:
    rig = Rig(store, {"valve": VALVE})
    async with rig.running(), asyncio.TaskGroup() as group:
        watching = group.create_task(rig.safety.run())
        rig.drivers["valve"].refuses = {"spool"}
        await rig.safety.drive("command")
        await asyncio.sleep(0.2)  # twenty looks, of which none may find anything to do
        assert causes(rig) == ["command"]
        watching.cancel()


@pytest.mark.usefixtures("_lively")
async def test_a_broker_that_stays_away_makes_the_bench_safe_once(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP}, broker_loss=0.1)
    async with rig.running(), asyncio.TaskGroup() as group:
        watching = group.create_task(rig.safety.run())
        await asyncio.sleep(0.2)
        assert causes(rig) == []
        rig.connected = False
        await until(lambda: rig.events.said)
        await asyncio.sleep(0.2)
        assert causes(rig) == ["broker-lost"]
        assert rig.events.said[0][1]["reason"] == "no broker for 0.1 s"
        rig.connected = True
        await asyncio.sleep(0.05)
        rig.connected = False
        await until(lambda: len(rig.events.said) == 2)
        watching.cancel()


@pytest.mark.usefixtures("_lively")
async def test_without_the_setting_a_lost_broker_changes_nothing(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    rig.connected = False
    async with rig.running(), asyncio.TaskGroup() as group:
        watching = group.create_task(rig.safety.run())
        await asyncio.sleep(0.2)
        watching.cancel()
    assert rig.events.said == []


async def test_a_link_that_is_just_made_anew_is_waited_for(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "DEVICE_LIMIT_S", 30.0)
    rig = Rig(store, {"pump": PUMP})
    async with rig.running():
        await rig["pump"].let_go()
        making_safe = asyncio.create_task(rig.safety.drive("command"))
        await until(lambda: rig["pump"].turns.overtakes)
        await rig["pump"].take_up()
        assert (await making_safe)["safe"] is True


@pytest.mark.usefixtures("_hurried")
async def test_a_link_that_does_not_come_again_is_not_waited_for_long(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    async with rig.running():
        await rig["pump"].let_go()
        async with asyncio.timeout(30):
            body = await rig.safety.drive("command")
    assert body["safe"] is False


async def test_a_link_by_which_a_device_is_made_safe_is_not_let_go_meanwhile(store: SqliteStore) -> None:
    rig = Rig(store, {"pump": PUMP})
    async with rig.running(), asyncio.timeout(30):
        async with rig["pump"].turns.overtaken(1):
            letting_go = asyncio.create_task(rig["pump"].let_go())
            for _ in range(10):
                await asyncio.sleep(0)
            assert await rig["pump"].read(["speed"])
            assert not letting_go.done()
        await letting_go
