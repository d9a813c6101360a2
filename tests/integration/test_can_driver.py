"""The CAN driver on python-can's virtual bus, with python-can itself as the other node."""

import asyncio
import itertools
from pathlib import Path

import pytest
from can_driven import CHANNELS, rig, status
from scripted import running

from protocols.base import DeviceState, DriverError, Quality, Refused, number
from protocols.can.frame import Frame


@pytest.fixture
def channel() -> str:
    return next(CHANNELS)


async def test_a_frame_is_a_sample_of_its_points(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        assert made.heard.states[0] == (DeviceState.ONLINE, "")
        made.sends(256, status(1234.5, -20.5, 1, 85))
        await made.heard.until(lambda: made.heard.samples)
        sample = made.heard.samples[0]
        expected = {"speed": 1234.5, "torque": -20.5, "state": "on", "temperature": 85}
        assert dict(sample.values) == pytest.approx(expected)
        assert sample.bad == {}
        made.sends(257, b"\1")
        await made.heard.until(lambda: len(made.heard.samples) > 1)
        assert made.heard.samples[1].values == {"door": True}


async def test_codes_that_are_no_values_are_bad_with_a_reason(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        made.sends(256, status(1, 1, 3, 215))
        await made.heard.until(lambda: made.heard.samples)
        assert made.heard.samples[0].bad == {
            "state": Quality.OUT_OF_RANGE,  # a code without a label
            "temperature": Quality.DEVICE_ERROR,  # a code that says: not available
        }
        made.sends(256, status(2)[:4])
        await made.heard.until(lambda: len(made.heard.samples) > 1)
        short = made.heard.samples[1]
        assert dict(short.values) == {"speed": 2.0, "torque": 0.0}
        assert short.bad == {"state": Quality.DEVICE_ERROR, "temperature": Quality.DEVICE_ERROR}


async def test_a_cyclic_message_that_stays_away_makes_its_points_stale(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel, stale_after="150ms") as made:
        made.sends(256, status(5))
        await made.heard.until(lambda: made.heard.samples)
        await made.heard.until(lambda: len(made.heard.samples) > 1)
        stale = made.heard.samples[1]
        assert stale.values == {}
        assert stale.bad == dict.fromkeys(["speed", "torque", "state", "temperature"], Quality.STALE)
        await made.heard.until(lambda: made.heard.states[-1][0] is DeviceState.DEGRADED)
        with pytest.raises(DriverError, match="now"):
            await made.driver.read(["speed"])
        made.sends(256, status(6))
        await made.heard.until(lambda: made.heard.states[-1][0] is DeviceState.ONLINE)
        assert made.heard.samples[2].values["speed"] == 6.0


async def test_reports_on_change_and_at_a_rate(tmp_path: Path, channel: str) -> None:
    messages = {"Status": {"report": "change", "timeout": "60s"}, "Event": {"report": "100ms"}}
    async with rig(tmp_path, channel, messages=messages) as made:
        for speed in (1, 1, 1, 2, 2):
            made.sends(256, status(speed))
        for door in (1, 0, 1, 0):
            made.sends(257, bytes([door]))
        await made.heard.until(lambda: any("door" in sample.values for sample in made.heard.samples))
        assert [dict(sample.values) for sample in made.heard.samples] == [
            {"speed": 1.0, "torque": 0.0, "state": "off", "temperature": 20},
            {"speed": 2.0},
            {"door": False},
        ]


async def test_a_write_is_one_frame_with_the_other_signals_as_they_were(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        written = await made.driver.write({"setpoint": 1500, "enable": True})
        assert written.values == {"setpoint": 1500, "enable": True}
        assert bytes((await made.gets()).data) == bytes.fromhex("dc05010700000000")
        assert (await made.driver.read(["setpoint", "enable"])).values == {"setpoint": 1500, "enable": True}
        made.sends(512, bytes.fromhex("0000000900000000"))  # another node had something to say
        await made.heard.until(lambda: len(made.heard.samples) > 1)
        await made.driver.write({"setpoint": 1})
        assert bytes((await made.gets()).data) == bytes.fromhex("0100000900000000")


async def test_counter_and_checksum_go_with_each_frame(tmp_path: Path, channel: str) -> None:
    guard = {"counter": {"signal": "Counter"}, "checksum": {"signal": "Checksum", "profile": "sum8"}}
    async with rig(tmp_path, channel, messages={"Command": guard}) as made:
        for count in range(18):
            await made.driver.write({"setpoint": 3})
            data = bytes((await made.gets()).data)
            assert data[4] == count % 16
            assert data[5] == (sum(data) - data[5]) % 256


async def test_a_cyclic_message_goes_on_with_what_was_written_last(tmp_path: Path, channel: str) -> None:
    messages = {"Command": {"send": "cyclic", "counter": {"signal": "Counter"}}}
    async with rig(tmp_path, channel, messages=messages) as made:
        await made.driver.write({"setpoint": 1})
        seen = [await made.gets() for _ in range(20)]
        assert {bytes(message.data)[:4].hex() for message in seen} == {"01000007"}
        counts = [message.data[4] for message in seen]
        assert all((after - before) % 16 == 1 for before, after in itertools.pairwise(counts))
        await made.driver.write({"setpoint": 2})
        async with asyncio.timeout(5):
            while bytes((await made.gets()).data)[0] != 2:
                pass
        assert {(await made.gets()).data[0] for _ in range(5)} == {2}
        made.driver.rest()  # making safe leaves it: the safe value goes on being sent
        assert (await made.gets()).data[0] == 2
    assert made.heard.run.done()


async def test_calls_send_and_ask(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        sent = await made.driver.call("send", {"id": "0x7DF", "data": "0201"})
        assert (sent["id"], sent["data"]) == ("7DF", "0201")
        assert (await made.gets()).arbitration_id == 0x7DF

        asking = asyncio.create_task(
            made.driver.call(
                "request", {"id": 0x7DF, "data": "0905", "answer_id": 0x7E8, "answer_data": "49"}
            )
        )
        await made.gets()
        made.sends(0x7E8, b"\x7f\x09")
        made.sends(0x7E8, b"\x49\x05")
        assert (await asking)["data"] == "4905"
        with pytest.raises(DriverError, match="answered") as failed:
            await made.driver.call("request", {"id": 1, "answer_id": 2, "timeout": "50ms"})
        assert failed.value.code == "timeout"
        with pytest.raises(Refused, match="no argument"):
            await made.driver.call("send", {"id": 1, "dta": "00"})


async def test_periodic_frames_run_until_they_are_stopped_or_the_bench_is_made_safe(
    tmp_path: Path, channel: str
) -> None:
    async with rig(tmp_path, channel) as made:
        running_now = await made.driver.call(
            "periodic", {"start": "beat", "id": 0x111, "data": "01", "period": "10ms"}
        )
        assert running_now["running"]["beat"]["period_s"] == 0.01
        assert {(await made.gets()).data[0] for _ in range(5)} == {1}
        await made.driver.call("periodic", {"update": "beat", "data": "02"})
        async with asyncio.timeout(5):
            while (await made.gets()).data[0] != 2:
                pass
        with pytest.raises(Refused, match="runs already"):
            await made.driver.call("periodic", {"start": "beat", "id": 0x111, "period": "10ms"})
        made.driver.rest()
        assert (await made.driver.call("periodic", {"list": True})) == {"running": {}}


async def test_raw_frames_leave_beside_points(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel, frames={"ids": ["0x101"]}, batch={"window": "10ms"}) as made:
        made.sends(257, b"\1")
        made.sends(256, status())
        await made.heard.until(lambda: made.heard.bodies and len(made.heard.samples) == 2)
        ((body, time_ns),) = made.heard.bodies
        assert len(body) == 24 + 32
        assert time_ns == made.heard.samples[0].time_ns


async def test_the_bus_is_lost_and_opened_again(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        await made.driver.close()
        with pytest.raises(DriverError):
            await made.driver.write({"setpoint": 1})
        await made.driver.connect()
        await made.driver.write({"setpoint": 1})
        assert bytes((await made.gets()).data)[0] == 1


async def test_a_recording_begins_and_ends_by_command(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        started = await made.driver.call("record", {"start": True, "format": "log"})
        with pytest.raises(Refused, match="runs already"):
            await made.driver.call("record", {"start": True})
        made.sends(0x777, b"\xaa")
        made.sends(257, b"\1")
        await made.heard.until(lambda: made.heard.samples)
        stopped = await made.driver.call("record", {"stop": True})
        assert stopped["file"] == started["file"]
        assert "777#AA" in (await asyncio.to_thread(Path(stopped["file"]).read_text)).upper()
        with pytest.raises(Refused, match="no recording"):
            await made.driver.call("record", {"stop": True})


async def test_a_recording_that_ended_with_the_bus_is_said_when_the_bus_is_back(
    tmp_path: Path, channel: str
) -> None:
    async with rig(tmp_path, channel) as made:
        started = await made.driver.call("record", {"start": True, "format": "log"})
        await made.driver.close()
        await made.driver.connect()
        async with running(made.driver) as heard:
            await heard.until(lambda: heard.states)
            state, reason = heard.states[0]
            assert (state, started["file"] in reason) == (DeviceState.DEGRADED, True)
            await made.driver.call("record", {"start": True})
            await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))


async def test_no_period_is_shorter_than_a_frame(tmp_path: Path, channel: str) -> None:
    async with rig(tmp_path, channel) as made:
        with pytest.raises(Refused, match="at least 100us"):
            await made.driver.call("periodic", {"start": "flood", "id": 1, "period": "10us"})


async def test_figures_of_the_bus_are_points(tmp_path: Path, channel: str) -> None:
    points = {"load": {"bus": "load"}, "state": {"bus": "state"}, "lost": {"bus": "dropped"}}
    connection = {"bitrate": 500000}
    async with rig(tmp_path, channel, points=points, connection=connection, poll="50ms", database=[]) as made:
        for _ in range(100):
            made.sends(0x123, bytes(8))
        await made.heard.until(
            lambda: any(
                "load" in sample.values and number(sample.values["load"]) > 0 for sample in made.heard.samples
            )
        )
        assert made.heard.samples[-1].values["lost"] == 0
        assert 0 < sum(number(sample.values.get("load", 0)) for sample in made.heard.samples) <= 100
        described = await made.driver.call("status", {})
        assert described["dropped"] == 0
        assert (await made.driver.read(["state"])).values


def test_frame_is_small() -> None:
    """A frame is a bare tuple: millions of them pass in a minute."""
    assert tuple(Frame(1, 2, b"")) == (1, 2, b"", 0)
