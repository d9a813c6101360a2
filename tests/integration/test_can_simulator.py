"""Simulated CAN nodes in real time, with python-can and cantools at the other end; also on vcan."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from can_drive import (
    COMMAND,
    DATABASE,
    DIAGNOSIS,
    IDENTITY,
    MOTION,
    RAW,
    STATE,
    TEMPERATURES,
    drive,
    simulated,
)
from crccheck.crc import Crc8SaeJ1850  # type: ignore[import-untyped]
from structlog.testing import capture_logs
from waiting import until

from protocols.base import DeviceState, Sample
from protocols.can.driver import CanDriver
from sim.can import SIMULATOR


@pytest.fixture(params=["virtual", "udp_multicast", pytest.param("vcan", marks=pytest.mark.socketcan)])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def test_cyclic_messages_come_with_their_cycles(kind: str) -> None:
    async with simulated(drive(simulation={"bus": kind})) as (_, peer):
        await until(lambda: len(peer.of(TEMPERATURES)) >= 8)
        heard = list(peer.heard)
    counts = {can_id: sum(one.arbitration_id == can_id for one in heard) for can_id in (MOTION, STATE)}
    span = 7 * 0.1
    # A busy machine skips cycles, and makes none up.
    assert 0.3 * span / 0.01 <= counts[MOTION] <= 1.5 * span / 0.01
    assert 0.3 * span / 0.02 <= counts[STATE] <= 1.5 * span / 0.02
    assert not any(one.arbitration_id == COMMAND for one in heard)


async def test_frames_hold_what_database_and_sim_say(kind: str) -> None:
    async with simulated(drive(simulation={"bus": kind})) as (_, peer):
        await until(lambda: len(peer.of(DIAGNOSIS)) >= 4 and len(peer.of(MOTION)) >= 16)
        motion, diagnosis = peer.decoded(MOTION), peer.decoded(DIAGNOSIS)
        raw = [bytes(one.data) for one in peer.of(MOTION)]
        state = peer.newest(STATE)
        temperatures = peer.newest(TEMPERATURES)
    assert all(-2 <= one["MotorSpeed"] <= 2 for one in motion)
    assert len({one["MotorTorque"] for one in motion}) > 4
    counters = [one["Counter"] for one in motion]
    assert all((b - a) % 15 == 1 for a, b in itertools.pairwise(counters))
    assert all(data[0] == Crc8SaeJ1850.calc(data[1:]) for data in raw)
    assert [one["Page"] for one in diagnosis[:4]] in ([0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2])
    assert {"Starts": 412}.items() <= next(one for one in diagnosis if one["Page"] == 0).items()
    assert (state["State"], state["Ready"], 395 < state["DcVoltage"] < 405) == ("running", 1, True)
    assert 54 <= temperatures["StatorTemperature"] <= 81


async def test_what_is_commanded_is_followed(kind: str) -> None:
    async with simulated(drive(simulation={"bus": kind})) as (_, peer):
        await until(lambda: peer.of(MOTION))
        values = {
            "SpeedSetpoint": 1000,
            "TorqueLimit": 0,
            "Enable": 1,
            "ControlMode": 1,
            "Counter": 0,
            "Checksum": 0,
        }
        peer.say(COMMAND, DATABASE.encode_message(COMMAND, values))
        await until(lambda: peer.newest(MOTION)["MotorSpeed"] > 100)
        await until(lambda: 900 < peer.newest(MOTION)["MotorSpeed"] < 1002)


async def test_requests_are_answered(kind: str) -> None:
    async with simulated(drive(simulation={"bus": kind})) as (_, peer):
        peer.say(0x7E0, bytes.fromhex("0322F18C00000000"))
        await until(lambda: peer.of(0x7E8))
        peer.say(0x7E0, bytes.fromhex("0322F19000000000"))
        peer.say(0x7E0, bytes.fromhex("023E000000000000"))
        await until(lambda: len(peer.of(0x7E8)) == 2)
        answers = [one.data.hex() for one in peer.of(0x7E8)]
    assert answers == ["0762f18c34303137", "037f2231aaaaaaaa"]


async def test_an_answer_waits_for_its_delay() -> None:
    answer = {"request": 0x700, "response": 0x701, "respond": "01", "delay": "300ms"}
    async with simulated(drive(simulation={"answers": [answer]})) as (_, peer):
        begin = asyncio.get_running_loop().time()
        peer.say(0x700)
        await until(lambda: peer.of(0x701))
        assert asyncio.get_running_loop().time() - begin >= 0.3


async def test_a_remote_frame_gets_the_message_as_it_is(kind: str) -> None:
    async with simulated(drive(simulation={"bus": kind})) as (_, peer):
        await until(lambda: peer.of(TEMPERATURES))
        before = len(peer.of(IDENTITY))
        peer.say(IDENTITY, is_remote_frame=True, dlc=8)
        peer.say(COMMAND, is_remote_frame=True, dlc=8)
        await until(lambda: len(peer.of(IDENTITY)) > before)
        assert peer.newest(IDENTITY)["SerialNumber"] == 4001763
        assert peer.of(COMMAND) == []


async def test_silent_messages_are_not_sent() -> None:
    async with simulated(drive(simulation={"silent": ["DriveMotion"]})) as (_, peer):
        await until(lambda: len(peer.of(TEMPERATURES)) > 2)
        assert peer.of(MOTION) == []


class Samples:
    """A `protocols.base.Sink`."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.bodies: list[bytes] = []
        self.states: list[DeviceState] = []

    def sample(self, sample: Sample) -> None:
        self.values.update(sample.values)

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append(state)

    def frames(self, body: bytes, time_ns: int) -> None:
        self.bodies.append(body)

    async def kept(self) -> None:
        pass

    def missed(self, cycles: int, period: float) -> None:
        raise AssertionError(cycles)

    def lost(self, count: int, reason: str) -> None:
        raise AssertionError(reason)


FD = {"channel": "can0", "bitrate": 500_000, "data_bitrate": 2_000_000, "fd": True, "timestamps": "hardware"}


@pytest.mark.parametrize("connection", [{"channel": "can0", "bitrate": 500_000}, FD], ids=["classical", "fd"])
async def test_the_driver_finds_the_simulated_bus(kind: str, connection: dict[str, Any]) -> None:
    one = drive(simulation={"bus": kind}, connection=connection)
    async with SIMULATOR.start({"drive": one}) as moved:
        driver, sink = CanDriver(moved["drive"]), Samples()
        await driver.connect()
        running = asyncio.create_task(driver.run(sink))
        try:
            await until(lambda: {"speed", "state", "starts", "serial-number"} <= sink.values.keys())
            assert sink.values["starts"] == 412
            assert sink.values["serial-number"] == 4001763
            written = await driver.write({"setpoint": 2000})
            assert written.values == {"setpoint": 2000}
            await until(lambda: sink.values["speed"] > 1500)
            assert sink.values["setpoint"] == 2000
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await driver.close()
    assert sink.states[-1] is DeviceState.ONLINE


async def test_a_driver_that_only_listens_hears_the_node(kind: str) -> None:
    points = {"speed": RAW["points"]["speed"]}
    connection = {"channel": "can0", "bitrate": 250_000, "listen_only": True}
    one = drive(simulation={"bus": kind}, connection=connection, points=points, sim={"speed": 7}, messages={})
    async with SIMULATOR.start({"drive": one}) as moved:
        driver = CanDriver(moved["drive"])
        await driver.connect()
        try:
            assert (await driver.read(["speed"])).values == {"speed": 7}
        finally:
            await driver.close()


# -- replay --------------------------------------------------------------------------------------


def recording(folder: Path, *lines: str) -> dict[str, Any]:
    (folder / "rec.log").write_text(
        "".join(f"({time}) can0 {frame}\n" for time, frame in map(str.split, lines))
    )
    return {"file": str(folder / "rec.log")}


async def test_a_recording_is_played_and_takes_the_place_of_its_messages(tmp_path: Path) -> None:
    played = recording(tmp_path, "1.000000 123#0102", "1.040000 100#FF000000FFFF0000", "1.080000 123#0103")
    async with simulated(drive(simulation={"replay": {**played, "loop": True}})) as (_, peer):
        await until(lambda: len(peer.of(0x123)) >= 5)
        await until(lambda: len(peer.of(TEMPERATURES)) >= 3)
        before = len(peer.of(TEMPERATURES))
        peer.heard.clear()
        await until(lambda: len(peer.of(TEMPERATURES)) >= 3 and len(peer.of(MOTION)) >= 2)
        assert {one.data.hex() for one in peer.of(0x123)} <= {"0102", "0103"}
        assert {one.data.hex() for one in peer.of(MOTION)} == {"ff000000ffff0000"}
        assert before >= 3


async def test_a_recording_that_cannot_be_played_is_said(tmp_path: Path) -> None:
    (tmp_path / "rec.log").write_text("no frame at all\n")
    with capture_logs() as logs:
        async with simulated(drive(simulation={"replay": {"file": str(tmp_path / "rec.log")}})) as (_, peer):
            await until(lambda: len(peer.of(MOTION)) > 5)
    (said,) = [one for one in logs if one["event"] == "simulated node plays no recording"]
    assert "rec.log" in said["reason"]
