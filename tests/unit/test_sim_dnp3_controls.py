"""The simulated outstation, operated: select, operate, what follows, and what is refused."""

import struct
from typing import Any

import pytest
from dnp3_scripted_master import BEGIN_MS, POINTS, ScriptedMaster, iin, quiet
from py1815.application import FunctionCode, class_header
from py1815.control import CommandStatus

from protocols.dnp3.objects import DOUBLE_BIT, Iin

LATCH_ON, LATCH_OFF, PULSE_ON, PULSE_OFF, CLOSE, TRIP = 0x03, 0x04, 0x01, 0x02, 0x41, 0x81
S = CommandStatus


def crob(index: int, code: int, count: int = 1, on_ms: int = 100, off_ms: int = 0) -> bytes:
    return b"\x0c\x01\x28\x01\x00" + struct.pack("<HBBIIB", index, code, count, on_ms, off_ms, 0)


def analog(index: int, value: float, variation: int = 3) -> bytes:
    number = struct.pack("<" + "ihfd"[variation - 1], value)
    return bytes((41, variation, 0x17, 1, index)) + number + b"\0"


def status(response: Any) -> int:
    return int(response.body[-1])


def do(master: ScriptedMaster, body: bytes, function: int = FunctionCode.DIRECT_OPERATE) -> int:
    response = master.request(function, body)
    assert response.body[:-1] == body[:-1]
    return status(response)


def operated(master: ScriptedMaster) -> list[tuple[str, int]]:
    return [(one.point, one.control.code) for one in master.outstation.operations]


def value(master: ScriptedMaster, name: str) -> Any:
    return master.outstation.database[name].value


def test_it_operates_on_operate_and_not_on_select() -> None:
    master = quiet()
    assert do(master, crob(3, CLOSE), FunctionCode.SELECT) == S.SUCCESS
    assert operated(master) == []
    assert do(master, crob(3, CLOSE), FunctionCode.OPERATE) == S.SUCCESS
    assert operated(master) == [("breaker", CLOSE)]


def test_a_repeated_operate_is_answered_again_and_not_carried_out_again() -> None:
    master = quiet()
    do(master, crob(3, TRIP), FunctionCode.SELECT)
    operate = master.fragment(FunctionCode.OPERATE, crob(3, TRIP))
    (first,), (second,) = master.send(operate), master.send(operate)
    assert first == second
    assert status(first) == S.SUCCESS
    assert operated(master) == [("breaker", TRIP)]


def test_a_repeated_select_stays_armed() -> None:
    master = quiet()
    select = master.fragment(FunctionCode.SELECT, crob(3, TRIP))
    assert master.send(select) == master.send(select)
    assert do(master, crob(3, TRIP), FunctionCode.OPERATE) == S.SUCCESS


def test_an_operate_needs_its_select_just_before_it() -> None:
    master = quiet()
    assert do(master, crob(3, TRIP), FunctionCode.OPERATE) == S.NO_SELECT
    do(master, crob(3, TRIP), FunctionCode.SELECT)
    assert do(master, crob(3, CLOSE), FunctionCode.OPERATE) == S.NO_SELECT
    assert do(master, crob(3, TRIP), FunctionCode.OPERATE) == S.NO_SELECT  # the other one has used it up
    do(master, crob(3, TRIP), FunctionCode.SELECT)
    master.request(FunctionCode.DELAY_MEASURE)
    assert do(master, crob(3, TRIP), FunctionCode.OPERATE) == S.NO_SELECT
    assert operated(master) == []


def test_a_select_does_not_serve_again_when_sequence_numbers_come_round() -> None:
    master = quiet(simulation={"select_timeout": "1h"})
    do(master, crob(3, TRIP), FunctionCode.SELECT)
    for _ in range(16):
        master.request(FunctionCode.DELAY_MEASURE)
    assert do(master, crob(3, TRIP), FunctionCode.OPERATE) == S.NO_SELECT
    do(master, crob(3, TRIP), FunctionCode.SELECT)
    operate = master.fragment(FunctionCode.OPERATE, crob(3, TRIP))
    master.send(operate)
    for _ in range(15):
        master.request(FunctionCode.RECORD_CURRENT_TIME)
    assert status(master.send(operate)[0]) == S.NO_SELECT
    assert len(operated(master)) == 1


def test_a_select_expires() -> None:
    master = quiet(simulation={"select_timeout": "2s"})
    for ms, expected in ((1999, S.SUCCESS), (2001, S.TIMEOUT)):
        do(master, crob(3, TRIP), FunctionCode.SELECT)
        master.wait(ms)
        assert do(master, crob(3, TRIP), FunctionCode.OPERATE) == expected
    assert len(operated(master)) == 1


def test_a_select_of_which_one_is_refused_arms_none() -> None:
    master = quiet()
    both = crob(3, TRIP) + crob(99, TRIP)
    response = master.request(FunctionCode.SELECT, both)
    assert [response.body[at] for at in (len(both) // 2 - 1, -1)] == [S.SUCCESS, S.NOT_SUPPORTED]
    assert status(master.request(FunctionCode.OPERATE, both)) == S.NO_SELECT
    assert operated(master) == []


def test_several_controls_have_a_status_each() -> None:
    master = quiet()
    body = crob(3, CLOSE) + analog(2, 12.5) + crob(7, LATCH_ON) + crob(4, 0x13)
    answer = master.request(FunctionCode.DIRECT_OPERATE, body).body
    ends = [18, 18 + 10, 18 + 10 + 18, len(body)]
    assert [answer[end - 1] for end in ends] == [S.SUCCESS, S.SUCCESS, S.NOT_SUPPORTED, S.FORMAT_ERROR]
    assert [one.point for one in master.outstation.operations] == ["breaker", "setpoint"]


def test_direct_no_ack_acts_in_silence() -> None:
    master = quiet()
    assert master.send(master.fragment(FunctionCode.DIRECT_OPERATE_NR, crob(4, LATCH_ON))) == []
    assert operated(master) == [("heater", LATCH_ON)]


@pytest.mark.parametrize("code", [0x00, 0x05, 0x0F, 0xC1, 0x43, 0x84])
def test_codes_that_mean_nothing_are_not_supported(code: int) -> None:
    master = quiet()
    assert do(master, crob(4, code)) == S.NOT_SUPPORTED
    assert operated(master) == []


def test_a_latch_keeps_and_its_feedback_follows_after_the_delay() -> None:
    master = quiet(simulation={"operate_delay": "1s"})
    do(master, crob(4, LATCH_ON))
    assert (value(master, "heater"), value(master, "lamp")) == (True, False)
    master.wait(999)
    assert value(master, "lamp") is False
    master.wait(1)
    assert value(master, "lamp") is True
    do(master, crob(4, LATCH_OFF))
    master.wait(1000)
    assert (value(master, "heater"), value(master, "lamp")) == (False, False)


def test_a_later_control_overtakes_what_the_feedback_was_going_to_do() -> None:
    master = quiet(simulation={"operate_delay": "1s"})
    do(master, crob(4, LATCH_ON))
    master.wait(500)
    do(master, crob(4, LATCH_OFF))
    master.wait(5000)
    assert value(master, "lamp") is False
    assert not [event for event in master.outstation.buffer.waiting() if event.point.index == 1]


def test_a_breaker_is_between_its_ends_while_it_moves() -> None:
    master = quiet(sim={"breaker": True}, simulation={"operate_delay": "1s"})
    assert DOUBLE_BIT[value(master, "breaker_state")] == "on"
    do(master, crob(3, TRIP, on_ms=300))
    assert value(master, "breaker") is True
    assert DOUBLE_BIT[value(master, "breaker_state")] == "intermediate"
    master.wait(2000)
    assert value(master, "breaker") is False
    states = [
        (e.time_ms - BEGIN_MS, e.value) for e in master.outstation.buffer.waiting() if e.point.kind[0] == "d"
    ]
    assert states == [(0, 0), (1000, 1)]
    do(master, crob(3, CLOSE))
    master.wait(2000)
    assert DOUBLE_BIT[value(master, "breaker_state")] == "on"


def test_pulses_are_repeated_with_their_pauses() -> None:
    master = quiet()
    do(master, crob(4, PULSE_ON, count=3, on_ms=200, off_ms=300))
    master.wait(5000)
    changes = [
        (e.time_ms - BEGIN_MS, e.value) for e in master.outstation.buffer.waiting() if e.point.index == 4
    ]
    assert changes == [(0, True), (200, False), (500, True), (700, False), (1000, True), (1200, False)]


def test_a_pulse_off_and_a_cancelled_pulse() -> None:
    master = quiet(sim={"heater": True})
    do(master, crob(4, PULSE_OFF, on_ms=0, off_ms=100))
    assert value(master, "heater") is False
    master.wait(100)
    assert value(master, "heater") is True
    do(master, crob(4, PULSE_ON, on_ms=1000))
    assert do(master, crob(4, 0x20)) == S.SUCCESS  # clear, and nothing else
    master.wait(5000)
    assert value(master, "heater") is True


def test_a_count_of_zero_does_nothing() -> None:
    master = quiet()
    assert do(master, crob(4, LATCH_ON, count=0)) == S.SUCCESS
    assert value(master, "heater") is False


@pytest.mark.parametrize(("variation", "raw"), [(1, -100000), (2, -7), (3, 0.25), (4, 1e300)])
def test_an_analog_output_takes_each_type(variation: int, raw: float) -> None:
    master = quiet()
    assert do(master, analog(2, raw, variation)) == S.SUCCESS
    master.wait(100)
    assert value(master, "setpoint") == raw
    assert value(master, "setpoint_seen") == raw  # both have the same scale


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_analog_output_takes_no_infinity(bad: float) -> None:
    master = quiet()
    assert do(master, analog(2, bad)) == S.OUT_OF_RANGE
    assert operated(master) == []


def test_while_local_controls_are_refused() -> None:
    master = quiet(simulation={"local": "switch"})
    do(master, crob(3, TRIP), FunctionCode.SELECT)
    master.outstation.set("switch", True)
    response = master.request(FunctionCode.OPERATE, crob(3, TRIP))
    assert status(response) == S.LOCAL
    assert iin(response) & Iin.LOCAL_CONTROL
    assert do(master, crob(4, LATCH_ON), FunctionCode.SELECT) == S.LOCAL
    assert operated(master) == []
    master.outstation.set("switch", False)
    assert do(master, crob(4, LATCH_ON)) == S.SUCCESS


def test_a_feedback_point_with_a_behaviour_of_its_own_does_not_follow() -> None:
    master = quiet(sim={"lamp": False})
    do(master, crob(4, LATCH_ON))
    master.wait(10_000)
    assert value(master, "lamp") is False


def test_followers_follow_what_was_operated() -> None:
    points = {**POINTS, "room": {"type": "analog_input", "index": 7, "scale": 0.1}}
    master = quiet(points, {"room": {"follow": "setpoint", "gain": 2, "offset": 1}})
    do(master, analog(2, 30))
    master.wait(1000)
    engineering = 30 * 0.5 * 2 + 1
    assert value(master, "room") == pytest.approx(engineering / 0.1)


@pytest.mark.parametrize(("body", "wrong"), [
    (b"", Iin.PARAMETER_ERROR),
    (b"\x0c\x01", Iin.PARAMETER_ERROR),
    (crob(4, LATCH_ON)[:-1], Iin.PARAMETER_ERROR),
    (crob(4, LATCH_ON) + b"\x0c", Iin.PARAMETER_ERROR),
    (crob(4, LATCH_ON).replace(b"\x28", b"\x01"), Iin.PARAMETER_ERROR),
    (b"\x0c\x01\x28\xff\xff" + bytes(20), Iin.PARAMETER_ERROR),
    (b"\x0c\x02\x17\x01" + bytes(20), Iin.OBJECT_UNKNOWN),
    (crob(4, LATCH_ON) + b"\x29\x05\x17\x01" + bytes(20), Iin.OBJECT_UNKNOWN),
])  # fmt: skip
@pytest.mark.parametrize("function", [FunctionCode.SELECT, FunctionCode.OPERATE, FunctionCode.DIRECT_OPERATE])
def test_malformed_controls_are_refused_whole(body: bytes, wrong: Iin, function: int) -> None:
    master = quiet()
    response = master.request(function, body)
    assert response.body == b""
    assert iin(response) & 0xFF00 == wrong
    assert operated(master) == []


def test_the_status_of_outputs_is_an_event_too() -> None:
    master = quiet()
    do(master, crob(4, LATCH_ON))
    do(master, analog(2, 5))
    body = master.read(class_header(1) + class_header(2))
    stamp = BEGIN_MS.to_bytes(6, "little")
    assert body == (
        b"\x0b\x02\x17\x01\x04\x81" + stamp + b"\x2a\x08\x17\x01\x02\x01" + struct.pack("<d", 5) + stamp
    )


def test_of_many_controls_the_last_thousand_are_remembered() -> None:
    master = quiet()
    for number in range(1001):
        assert do(master, crob(3, CLOSE if number else TRIP)) == S.SUCCESS
    assert operated(master) == [("breaker", CLOSE)] * 1000, "the first is forgotten"
