"""The CAN driver when messages stay away, the bus goes, or commands come at once."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from can_driven import CHANNELS, rig, status
from waiting import until

from protocols.base import DeviceState, DriverError, Quality, Refused
from protocols.can.bus import BusState
from protocols.can.buses.pythoncan import PythonCan
from protocols.can.frame import Frame
from protocols.can.router import Route, Take


@pytest.fixture
def channel() -> str:
    return next(CHANNELS)


async def test_a_message_that_came_again_for_a_moment_is_stale_again_soon(
    tmp_path: Path, channel: str
) -> None:
    messages = {"Status": {"timeout": "100ms"}, "Event": {"timeout": "1h"}}
    async with rig(tmp_path, channel, messages=messages) as made:
        stale = lambda: [sample for sample in made.heard.samples if "speed" in sample.bad]  # noqa: E731
        await made.heard.until(stale)
        made.sends(256, status(5))
        await made.heard.until(lambda: len(stale()) == 2)
        assert made.heard.states == [(DeviceState.ONLINE, "")] * len(made.heard.states)


async def test_a_controller_that_does_not_tell_its_state_is_looked_at(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel, messages={"Status": {"timeout": "1h"}}) as made:
        bus = made.driver._bus
        assert isinstance(bus, PythonCan)
        for state, device in (
            (BusState.PASSIVE, DeviceState.DEGRADED),
            (BusState.ACTIVE, DeviceState.ONLINE),
        ):
            bus._controller.state = state
            await until(lambda: made.heard.states[-1][0] is device)  # noqa: B023  # waited for at once


async def test_what_waits_for_a_frame_ends_with_the_bus(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel, timeout="60s", messages={"Command": {"send": "cyclic"}}) as made:
        waiting = [
            asyncio.create_task(made.driver.read(["door"])),
            asyncio.create_task(made.driver.call("request", {"id": 1, "answer_id": 2})),
        ]
        await made.gets()
        await made.driver.close()
        for task in waiting:
            with pytest.raises(DriverError, match="closed") as failed:
                await task
            assert failed.value.code == "disconnected"
        assert made.driver._subscribers == {}


async def test_what_was_never_sent_is_said_to_be_so(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel, timeout="50ms") as made:
        with pytest.raises(DriverError, match="nobody has sent setpoint on"):
            await made.driver.read(["setpoint"])
        with pytest.raises(DriverError, match="none of these messages"):
            await made.driver.read(["setpoint", "door"])


async def test_a_question_that_nobody_takes_is_not_said_to_be_unanswered(
    tmp_path: Path, channel: str
) -> None:
    async with rig(tmp_path, channel) as made:

        async def send(frame: Frame, timeout: float) -> Frame:
            await asyncio.sleep(timeout)
            raise DriverError("timeout", "nobody acknowledged it")

        made.driver._bus.send = send  # type: ignore[method-assign]
        with pytest.raises(DriverError, match="acknowledged"):
            await made.driver.call("request", {"id": 1, "answer_id": 2, "timeout": "20ms"})


@pytest.mark.parametrize("timeout", [10**400, float("nan"), -1, True, [], {}, "1", 1e9])
async def test_durations_that_are_none_are_refused(tmp_path: Path, channel: str, timeout: Any) -> None:
    async with rig(tmp_path, channel) as made:
        with pytest.raises(Refused, match="timeout is"):
            await made.driver.call("send", {"id": 1, "timeout": timeout})
        with pytest.raises(Refused, match="answer_id"):
            await made.driver.call("request", {"id": 1})


async def test_two_periodic_transmissions_never_have_one_name(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        start = [{"start": "beat", "id": can_id, "period": "10ms"} for can_id in (0x111, 0x112)]
        calls = [made.driver.call("periodic", args) for args in start]
        first, second = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, dict)
        assert isinstance(second, Refused)
        made.driver.rest()
        bus = made.driver._bus
        assert isinstance(bus, PythonCan)
        assert bus._turns == set()


async def test_two_recordings_never_run_at_once(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        starts = [made.driver.call("record", {"start": True}) for _ in range(2)]
        first, second = await asyncio.gather(*starts, return_exceptions=True)
        assert isinstance(first, dict)
        assert isinstance(second, Refused)
        assert (await made.driver.call("record", {"stop": True}))["files"] == [first["file"]]


async def test_a_recording_whose_start_is_broken_off_is_ended(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        start = asyncio.create_task(made.driver.call("record", {"start": True}))
        await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait([start])
        assert start.cancelled()
        await until(lambda: not any("record" in thread.name for thread in threading.enumerate()))
        assert list((tmp_path / "recordings").glob("*.part")) == []
        assert not made.driver.described()["recording"]


async def test_a_load_that_is_not_measured_yet_is_said_to_be_so(tmp_path: Path, channel: str) -> None:
    points = {"load": {"bus": "load"}, "state": {"bus": "state"}}
    more = {"points": points, "database": [], "connection": {"bitrate": 500000}, "poll": "1h"}
    async with rig(tmp_path, channel, **more) as made:
        made.driver._figures.restart()
        assert (await made.driver.read(["load", "state"])).bad == {"load": Quality.TIMEOUT}
        assert all(not sample.bad for sample in made.heard.samples)


async def test_a_silent_bus_is_not_asked_again_and_again(
    tmp_path: Path, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    expire = Route.expire

    def counted(route: Route, now: float, report: Take) -> bool:
        looks.append(now)
        return expire(route, now, report)

    monkeypatch.setattr(Route, "expire", counted)
    messages = {"Status": {"timeout": "100ms"}, "Event": {"timeout": "400ms"}}
    async with rig(tmp_path, channel, messages=messages) as made:
        await made.heard.until(lambda: any("door" in sample.bad for sample in made.heard.samples))
        assert len(looks) < 40
