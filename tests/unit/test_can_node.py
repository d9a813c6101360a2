"""What a simulated CAN node says and when, without a bus: payloads, selector values, schedule, answers, following."""

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.can import config
from protocols.can.config import Answer, CanDevice
from protocols.can.database import Message, Signal, load
from protocols.can.decoder import compile_decoder
from protocols.can.encoder import pack
from protocols.can.frame import BRS, FDF, REMOTE, Frame
from protocols.can.protect import protect
from sim import waveforms
from sim.behaviour import Behaviour
from sim.can.answers import Answers
from sim.can.content import MOST_PAGES, Content, first_value, selections
from sim.can.encoder import encoder
from sim.can.schedule import Cyclic, OnChange, Schedule
from sim.can.traffic import Traffic

PLAIN = config.Message()

DATABASE = """
VERSION ""
BU_: A
BO_ 16 Motion: 8 A
 SG_ Speed : 0|16@1- (0.5,0) [-1000|1000] "rpm" A
 SG_ Level : 16|8@1+ (1,0) [20|200] "" A
 SG_ Mode : 24|4@1+ (1,0) [0|15] "" A
 SG_ Counter : 28|4@1+ (1,0) [0|15] "" A
 SG_ Checksum : 32|8@1+ (1,0) [0|255] "" A
BO_ 32 Pages: 3 A
 SG_ Page M : 0|8@1+ (1,0) [0|255] "" A
 SG_ One m3 : 8|8@1+ (1,0) [0|255] "" A
 SG_ Two m5 : 8|16@1+ (1,0) [0|65535] "" A
BO_ 48 Command: 8 A
 SG_ Setpoint : 0|16@1- (0.5,0) [-1000|1000] "rpm" A
 SG_ Limit : 16|16@1+ (1,0) [0|1000] "" A
BO_ 64 Event: 2 A
 SG_ Alarm : 0|1@1+ (1,0) [0|1] "" A
 SG_ Reserve : 8|8@1+ (1,0) [0|1] "" A
BO_ 80 Forgotten: 2 A
 SG_ Nothing : 0|1@1+ (1,0) [0|1] "" A
BO_ 96 Wide: 12 A
 SG_ Far : 80|16@1+ (1,0) [0|65535] "" A
BO_ 112 Wish: 4 A
 SG_ Wish : 0|32@1- (1,0) [0|0] "" A
SIG_VALTYPE_ 112 Wish : 1;
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;
BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","StandardCAN_FD";
BA_DEF_ SG_ "GenSigStartValue" INT 0 65535;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_DEF_DEF_ "VFrameFormat" "StandardCAN";
BA_DEF_DEF_ "GenSigStartValue" 0;
BA_ "GenMsgCycleTime" BO_ 16 10;
BA_ "GenMsgCycleTime" BO_ 32 20;
BA_ "GenMsgCycleTime" BO_ 48 10;
BA_ "GenMsgCycleTime" BO_ 96 100;
BA_ "VFrameFormat" BO_ 96 2;
BA_ "GenSigStartValue" SG_ 16 Level 77;
VAL_ 16 Mode 0 "off" 1 "on" ;
"""

POINTS: dict[str, Any] = {
    "speed": {"signal": "Speed"},
    "level": {"signal": "Level"},
    "mode": {"signal": "Mode"},
    "one": {"signal": "One"},
    "setpoint": {"signal": "Setpoint", "access": "rw", "min": -500, "safe": 0},
    "alarm": {"signal": "Alarm"},
    "load": {"bus": "load"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rig.dbc").write_text(DATABASE)
    return tmp_path


def device(folder: Path, name: str = "rig", **changes: Any) -> CanDevice:
    raw = {
        "protocol": "can",
        "connection": {"channel": "can0"},
        "database": "rig.dbc",
        "points": POINTS,
        **changes,
    }
    return CanDevice.model_validate(raw, context={"folder": folder}).named(name, folder)


def message(folder: Path, name: str) -> Message:
    return load([folder / "rig.dbc"]).messages[name]


def decoded(one: Message, payload: bytes) -> dict[str, Any]:
    return dict(compile_decoder(one, {name: name for name in one.signals})(payload))


# -- encoder -------------------------------------------------------------------------------------


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    is_float = draw(st.booleans())
    length = draw(st.sampled_from([16, 32, 64]) if is_float else st.integers(1, 64))
    little = draw(st.booleans())
    first = draw(st.integers(0, 128 - length))
    start = first if little else first // 8 * 8 + 7 - first % 8
    scale = draw(st.sampled_from([1, 2, 0.5, 0.1, -1, 0.25, 3]))
    offset = draw(st.sampled_from([0, -40, 100, 0.5]))
    return Signal("s", start, length, little, draw(st.booleans()), is_float, scale, offset)


@given(signals(), st.data())
@settings(max_examples=200, deadline=None)
def test_bits_are_those_of_the_driver(signal: Signal, data: st.DataObject) -> None:
    if signal.is_float:
        value = data.draw(st.floats(-1e4, 1e4, width=16))
    else:
        low, high = signal.raw_range
        raw = data.draw(st.integers(max(low, -(2**40)), min(high, 2**40)))
        value = raw * signal.scale + signal.offset
    one = Message("m", 1, 16, True, None, {"s": signal})
    assert encoder(signal, 16)(value).to_bytes(16, "little") == pack(one, {"s": value})


@given(signals(), st.floats())
@settings(max_examples=200, deadline=None)
def test_what_does_not_fit_saturates(signal: Signal, value: float) -> None:
    bits = encoder(signal, 16)(value)
    one = Message("m", 1, 16, True, None, {"s": signal})
    found = decoded(one, bits.to_bytes(16, "little"))["s"]
    if math.isnan(value):
        return
    if signal.is_float:
        assert math.isfinite(found)
        return
    low, high = sorted(raw * signal.scale + signal.offset for raw in signal.raw_range)
    wanted = min(max(value, low), high)
    assert abs(found - wanted) <= abs(signal.scale) / 2 + abs(wanted) * 1e-9


def test_labels_are_encoded_and_a_scale_of_zero_harms_nothing() -> None:
    signal = Signal("s", 4, 4, True, choices={3: "run", 1: "off", 99: "never"})
    encode = encoder(signal, 1)
    assert (encode("run"), encode("off"), encode(5)) == (0x30, 0x10, 0x50)
    assert encoder(Signal("s", 0, 8, True, scale=0), 1)(7) == 0


@pytest.mark.parametrize(
    ("signal", "first"),
    [
        (Signal("s", 0, 8, True), 0),
        (Signal("s", 0, 8, True, initial=12), 12),
        (Signal("s", 0, 8, True, minimum=5, maximum=9), 5),
        (Signal("s", 0, 8, True, signed=True, minimum=-9, maximum=-5), -5),
    ],
)
def test_first_value(signal: Signal, first: float) -> None:
    assert first_value(signal) == first


# -- content -------------------------------------------------------------------------------------


def moving(wave: Any) -> Behaviour:
    return Behaviour(wave, steady=False)


def test_content_holds_behaviours_and_first_values(folder: Path) -> None:
    motion = message(folder, "Motion")
    content = Content(
        motion,
        PLAIN,
        {"Speed": moving(lambda t: 10 * t), "Mode": Behaviour(waveforms.constant("on"), steady=True)},
    )
    assert decoded(motion, content.next(2.0)) == {
        "Speed": 20.0,
        "Level": 77,
        "Mode": "on",
        "Counter": 0,
        "Checksum": 0,
    }
    assert decoded(motion, content.next(3.0))["Speed"] == 30.0


def test_counter_and_checksum_go_with_each_frame(folder: Path) -> None:
    motion = message(folder, "Motion")
    said = config.Message.model_validate(
        {"counter": {"signal": "Counter", "last": 2}, "checksum": {"signal": "Checksum", "profile": "sum8"}}
    )
    for behaviours in ({}, {"Speed": moving(lambda t: t)}):
        content = Content(motion, said, behaviours)
        payloads = [content.next(0.0) for _ in range(4)]
        assert [decoded(motion, payload)["Counter"] for payload in payloads] == [0, 1, 2, 0]
        bare = Content(motion, PLAIN, behaviours).next(0.0)
        assert payloads == [protect(bare, motion, said, count) for count in range(4)]
        assert payloads[0] == payloads[3] != payloads[1]


def test_selector_values_come_in_turn(folder: Path) -> None:
    pages = message(folder, "Pages")
    content = Content(pages, PLAIN, {"Two": moving(lambda t: int(t)), "Page": moving(lambda t: 99)})
    found = [decoded(pages, content.next(float(t))) for t in range(4)]
    assert found == [
        {"Page": 3, "One": 0},
        {"Page": 5, "Two": 1},
        {"Page": 3, "One": 0},
        {"Page": 5, "Two": 3},
    ]


def multiplexed(*rest: Signal) -> Message:
    return Message("m", 1, 8, False, None, {one.name: one for one in rest})


def test_a_multiplexer_in_a_multiplexer_has_values_where_it_is() -> None:
    outer = Signal("outer", 0, 8, True, is_multiplexer=True)
    inner = Signal("inner", 8, 8, True, is_multiplexer=True, selector="outer", selected_by=frozenset({1, 2}))
    leaf = Signal("leaf", 16, 8, True, selector="inner", selected_by=frozenset({7, 9}))
    other = Signal("other", 16, 8, True, selector="outer", selected_by=frozenset({4}))
    found = list(selections(multiplexed(outer, inner, leaf, other)))
    assert found == [
        {"outer": 1, "inner": 7},
        {"outer": 1, "inner": 9},
        {"outer": 2, "inner": 7},
        {"outer": 2, "inner": 9},
        {"outer": 4},
    ]


def test_a_multiplexer_without_signals_is_a_signal() -> None:
    assert list(selections(multiplexed(Signal("alone", 0, 8, True, is_multiplexer=True)))) == [{}]


def test_a_great_range_of_selector_values_is_cut() -> None:
    mux = Signal("mux", 0, 32, True, is_multiplexer=True)
    leaf = Signal("leaf", 32, 8, True, selector="mux", selected_by=frozenset(range(100_000)))
    one = multiplexed(mux, leaf)
    content = Content(one, PLAIN, {})
    pages = [decoded(one, content.next(0.0))["mux"] for _ in range(MOST_PAGES + 1)]
    assert pages == [*range(MOST_PAGES), 0]


def test_a_signal_that_does_not_lie_in_its_message_is_left_out() -> None:
    one = Message(
        "m", 1, 2, False, None, {"s": Signal("s", 12, 8, True), "t": Signal("t", 0, 8, True, initial=3)}
    )
    assert Content(one, PLAIN, {"s": moving(lambda t: 255)}).next(0.0) == b"\x03\x00"


# -- schedule ------------------------------------------------------------------------------------


def frame(can_id: int, data: bytes = b"") -> Frame:
    return Frame(0, can_id, data)


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
    return OnChange(Content(one, PLAIN, {"s": moving(wave)}), 1.0, refresh, 0)


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
    folder = tmp_path_factory.mktemp("rig")
    (folder / "rig.dbc").write_text(DATABASE)
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
