"""What a simulated CAN node sends when, answers and follows; no bus."""

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from can_rig import POINTS, decoded, device, frame, message, write_database
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.can import config
from protocols.can.config import Answer
from protocols.can.frame import BRS, FDF, REMOTE
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.encoder import pack
from sim.behaviour import Behaviour
from sim.can.answers import Answers
from sim.can.content import Content
from sim.can.schedule import Cyclic, OnChange, Schedule
from sim.can.traffic import Traffic

PLAIN = config.Message()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_database(tmp_path)


# -- schedule ------------------------------------------------------------------------------------


def cyclic(can_id: int, period: float) -> Cyclic:
    return Cyclic(Content(Message("m", can_id, 1, False, None, {}), PLAIN, {}), period, 0)


def test_cycles_are_absolute_and_missed_ones_are_skipped() -> None:
    schedule = Schedule(0.0, [cyclic(1, 0.5), cyclic(2, 1.0)], 10.0)
    sent = {}
    for now in (10.0, 10.25, 10.5, 10.75, 11.0, 13.75, 14.0):
        sent[now] = [one.can_id for one in schedule.take(now)]
    assert sent == {10.0: [1, 2], 10.25: [], 10.5: [1], 10.75: [], 11.0: [1, 2], 13.75: [1, 2], 14.0: [1, 2]}
    assert schedule.due == 14.5


def test_a_late_wake_does_not_move_the_cycle() -> None:
    schedule = Schedule(0.0, [cyclic(1, 1.0)], 0.0)
    schedule.take(0.75)
    assert schedule.due == 1.0


def test_single_frames_go_when_they_are_due_and_once() -> None:
    schedule = Schedule(0.0, [], 0.0)
    assert schedule.due == math.inf
    schedule.once(2.0, frame(7))
    schedule.once(1.0, frame(8))
    schedule.once(2.0, frame(9))
    assert schedule.due == 1.0
    assert [schedule.take(t) for t in (0.5, 1.0, 2.0, 3.0)] == [[], [frame(8)], [frame(7), frame(9)], []]


def test_a_muted_identifier_has_no_cycles_but_answers() -> None:
    schedule = Schedule(0.0, [cyclic(1, 1.0)], 0.0)
    schedule.muted.add(1)
    schedule.once(0.0, frame(1, b"answer"))
    assert schedule.take(0.0) == [frame(1, b"answer")]
    assert schedule.due == 1.0


def event(wave: Any, refresh: float) -> OnChange:
    one = Message("m", 1, 1, False, None, {"s": Signal("s", 0, 8, True)})
    return OnChange(Content(one, PLAIN, {"s": Behaviour(wave, steady=False)}), 1.0, refresh, 0)


def test_a_steady_message_without_cycle_is_repeated_ever_more_rarely() -> None:
    job = event(lambda t: 5, refresh=6.0)
    assert [t for t in range(30) if job.frames(float(t))] == [0, 2, 6, 12, 18, 24]


def test_a_message_without_cycle_is_sent_on_change() -> None:
    job = event(lambda t: 1 if t >= 9 else 0, refresh=100.0)
    sent = {t: one[0].data[0] for t in range(16) if (one := job.frames(float(t)))}
    assert sent == {0: 0, 2: 0, 6: 0, 9: 1, 10: 1, 12: 1}


# -- answers -------------------------------------------------------------------------------------


def answers(*raw: dict[str, Any], switches: bool = False) -> Answers:
    return Answers([Answer.model_validate(one) for one in raw], switches)


def said(to: Answers, can_id: int, data: str) -> list[tuple[float, int, str]]:
    return [(delay, one.can_id, one.data.hex()) for delay, one in to.to(frame(can_id, bytes.fromhex(data)))]


def test_answers_look_at_identifier_and_beginning() -> None:
    one = answers({"request": 0x7E0, "data": "02.1FF", "response": 0x7E8, "respond": "0102", "delay": 0.5})
    assert one.requests == (0x7E0,)
    assert said(one, 0x7E0, "02A1FF99") == [(0.5, 0x7E8, "0102")]
    for can_id, data in (
        (0x7E0, "02A1EF"),
        (0x7E0, "02A2FF"),
        (0x7E0, "02A1"),
        (0x7E0, ""),
        (0x7E1, "02A1F0"),
    ):
        assert said(one, can_id, data) == []


def test_the_first_answer_of_each_responder_is_given() -> None:
    one = answers(
        {"request": 0x7DF, "data": "01", "response": 0x7E8, "respond": "aa"},
        {"request": 0x7DF, "response": 0x7E8, "respond": "bb"},
        {"request": 0x7DF, "response": 0x7E9, "respond": "cc"},
    )
    assert said(one, 0x7DF, "01") == [(0.0, 0x7E8, "aa"), (0.0, 0x7E9, "cc")]
    assert said(one, 0x7DF, "02") == [(0.0, 0x7E8, "bb"), (0.0, 0x7E9, "cc")]


def test_a_long_answer_is_a_can_fd_frame() -> None:
    raw = {"request": 1, "response": 2, "respond": "00" * 12}
    assert [one.flags for _, one in answers(raw).to(frame(1))] == [FDF]
    assert [one.flags for _, one in answers(raw, switches=True).to(frame(1))] == [FDF | BRS]


# -- traffic -------------------------------------------------------------------------------------


def test_cyclic_messages_and_points_are_sent_and_the_agents_are_not(folder: Path) -> None:
    traffic = Traffic([device(folder)])
    jobs = {job.can_id: (type(job), job.period) for job in traffic.jobs()}
    assert jobs == {16: (Cyclic, 0.01), 32: (Cyclic, 0.02), 64: (OnChange, 1.0)}
    assert traffic.sent == (16, 32, 64)
    assert traffic.followed == ()


def test_a_can_fd_bus_gets_can_fd_messages(folder: Path) -> None:
    fd = {"channel": "can0", "fd": True, "data_bitrate": 2_000_000}
    jobs = {job.can_id: job for job in Traffic([device(folder, connection=fd)]).jobs()}
    (one,) = jobs[96].frames(0.0)
    assert (len(one.data), one.flags) == (12, FDF | BRS)
    assert jobs[16].frames(0.0)[0].flags == 0


def test_profile_says_cycle_and_silence(folder: Path) -> None:
    rig = device(
        folder,
        messages={"Event": {"cycle": "500ms"}, "Forgotten": {"cycle": "2s"}},
        simulation={"silent": ["Motion"]},
    )
    assert {job.can_id: job.period for job in Traffic([rig]).jobs()} == {32: 0.02, 64: 0.5, 80: 2.0}


def test_points_without_behaviour_hold_the_databases_first_value(folder: Path) -> None:
    points = POINTS | {"mode": {"signal": "Mode", "initial": "on"}}
    traffic = Traffic([device(folder, points=points)])
    now = traffic.current(16, 0.0)
    assert now is not None
    found = decoded(message(folder, "Motion"), now.data)
    assert (found["Speed"], found["Level"], found["Mode"]) == (0, 77, "on")


def test_devices_on_one_bus_share_its_messages(folder: Path) -> None:
    one = device(folder, "one", points={"speed": POINTS["speed"]})
    two = device(
        folder,
        "two",
        points={"spin": POINTS["speed"], "limit": {"signal": "Limit", "access": "rw"}},
        sim={"spin": 12},
    )
    traffic = Traffic([one, two])
    assert 48 not in traffic.sent
    now = traffic.current(16, 0.0)
    assert now is not None
    assert decoded(message(folder, "Motion"), now.data)["Speed"] == 12


def test_what_the_agent_sends_is_followed(folder: Path) -> None:
    sim = {"setpoint": 100, "speed": {"follow": "setpoint", "gain": 2}}
    traffic = Traffic([device(folder, sim=sim)])
    motion, command = message(folder, "Motion"), message(folder, "Command")
    assert traffic.followed == (48,)

    def speed(t: float) -> Any:
        now = traffic.current(16, t)
        assert now is not None
        return decoded(motion, now.data)["Speed"]

    assert speed(0.0) == 200
    traffic.follow(frame(48, pack(command, {"Setpoint": -150.5, "Limit": 3})), 1.0)
    assert speed(1.5) == -301
    traffic.follow(frame(48, b"\x01"), 2.0)  # too short to hold it
    traffic.follow(frame(47, bytes(8)), 2.0)
    assert speed(2.5) == -301


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    folder = write_database(tmp_path_factory.mktemp("rig"))
    points = POINTS | {"wish": {"signal": "Wish", "access": "rw"}}
    return Traffic([device(folder, points=points, sim={"speed": {"follow": "wish"}})])


@given(data=st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_no_frame_harms_who_follows(following: Traffic, data: bytes) -> None:
    following.follow(frame(112, data), 1.0)
    now = following.current(16, 2.0)
    assert now is not None
    assert len(now.data) == 8


def test_what_is_no_number_is_not_followed(following: Traffic) -> None:
    following.follow(frame(112, struct.pack("<f", 12.5)), 1.0)
    following.follow(frame(112, struct.pack("<f", math.nan)), 2.0)
    now = following.current(16, 3.0)
    assert now is not None
    assert now.data[:2] == (25).to_bytes(2, "little")


def test_only_what_the_node_sends_has_a_current_frame(folder: Path) -> None:
    traffic = Traffic([device(folder)])
    assert [traffic.current(can_id, 0.0) is None for can_id in (16, 48, 80, 16 | REMOTE)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_wrong_sim_section_is_said(folder: Path) -> None:
    with pytest.raises(ValidationError, match="no point is called 'sped'"):
        Traffic([device(folder, sim={"sped": 1})])
