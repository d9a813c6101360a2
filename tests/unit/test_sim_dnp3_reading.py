"""The simulated outstation, read: present values, events, fragments, freezes; py1815 decodes."""

import itertools
import math
import struct
from typing import Any

import pytest
from dnp3_scripted_master import BEGIN_MS, POINTS, iin, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from py1815.application import FunctionCode, all_objects_header, class_header
from py1815.decode import decode_objects

from protocols.dnp3.objects import LAYOUTS, STATIC_GROUP, VARIATIONS, Iin
from sim.dnp3.points import flags_of

EVENTS = class_header(1) + class_header(2) + class_header(3)
SIM = {"door": True, "pulses": 70000, "voltage": 12.75, "current": 40000, "label": "Nørre", "breaker": True}


def objects(body: bytes) -> list[tuple[int, int, int | None, Any, int | None, int | None]]:
    decoded = decode_objects(body)
    assert not decoded.unread, decoded
    return [
        (one.group, one.variation, one.index, one.value, one.flags, one.time_ms) for one in decoded.objects
    ]


def test_ranges_are_read_with_the_variation_of_the_profile_or_one_that_loses_nothing() -> None:
    master = quiet(sim=SIM)
    assert master.read(b"\x01\x00\x00\x00\x01") == b"\x01\x02\x00\x00\x01\x81\x01"
    assert objects(master.read(b"\x14\x00\x06")) == [(20, 1, 0, 70000, 1, None)]
    assert objects(master.read(b"\x1e\x00\x06")) == [
        (30, 6, 0, pytest.approx(177.5), 1, None),
        (30, 1, 1, 40000, 1, None),
        (30, 6, 300, 0.0, 1, None),
    ]


def test_a_double_bit_input_and_an_octet_string_are_read() -> None:
    master = quiet(sim=SIM)
    assert master.read(b"\x03\x00\x06") == b"\x03\x02\x00\x00\x00\x81"  # on: the breaker is closed
    text = "Nørre".encode()
    assert master.read(b"\x6e\x00\x06") == bytes((110, len(text), 0, 0, 0)) + text


def test_class_0_is_every_point_once() -> None:
    body = quiet(sim=SIM).read(class_header(0))
    seen = b"\x01\x02\x00\x00\x01", b"\x01\x02\x00\x09\x09", b"\x03\x02\x00", b"\x0a\x02\x00\x03\x04", b"\x6e"
    for header in seen:
        assert body.count(header) == 1
    twice = quiet(sim=SIM).read(class_header(0) * 2 + all_objects_header(30, 0))
    assert twice == body


def test_of_neighbours_only_those_saturate_that_do_not_fit() -> None:
    points = {f"a{n}": {"type": "analog_input", "index": n, "variation": 2} for n in range(3)}
    master = quiet(points, {"a0": 1, "a1": 40000, "a2": -2.6})
    read = [one[3:5] for one in objects(master.read(class_header(0)))]
    assert read == [(1, 0x01), (32767, 0x21), (-3, 0x01)]


def test_a_number_that_a_variation_cannot_hold_saturates_and_says_so() -> None:
    master = quiet(sim=SIM)
    online, over = 0x01, 0x21
    assert objects(master.read(b"\x1e\x02\x00\x01\x01")) == [(30, 2, 1, 32767, over, None)]
    master.outstation.set("current", -1e300)
    assert objects(master.read(b"\x1e\x05\x00\x01\x01"))[0][3:5] == (pytest.approx(-3.4028235e38), over)
    master.outstation.set("current", math.nan)
    assert objects(master.read(b"\x1e\x01\x00\x01\x01"))[0][3:5] == (0, over)
    assert math.isnan(objects(master.read(b"\x1e\x06\x00\x01\x01"))[0][3])
    assert objects(master.read(b"\x14\x02\x00\x00\x00")) == [(20, 2, 0, 70000 % 65536, online, None)]


@pytest.mark.parametrize(("header", "wrong", "count"), [
    (b"\x01\x00\x00\x00\x05", Iin.PARAMETER_ERROR, 2),  # not all of the range exists
    (b"\x01\x00\x00\x05\x01", Iin.PARAMETER_ERROR, 0),  # ends before it begins
    (b"\x01\x07\x06", Iin.OBJECT_UNKNOWN, 0),  # no such variation
    (b"\x02\x07\x06", Iin.OBJECT_UNKNOWN, 0),
    (b"\x46\x05\x06", Iin.OBJECT_UNKNOWN, 0),  # files
    (b"\x02\x00\x00\x00\x01", Iin.PARAMETER_ERROR, 0),  # events have no range
    (b"\x3c\x01\x00\x00\x01", Iin.PARAMETER_ERROR, 0),
    (b"\x01\x02\x5b\x01", Iin.PARAMETER_ERROR, 0),  # no such qualifier
    (b"\x01\x02", Iin.PARAMETER_ERROR, 0),
])  # fmt: skip
def test_what_cannot_be_read_is_said_and_the_rest_is_read(header: bytes, wrong: Iin, count: int) -> None:
    master = quiet()
    response = master.request(FunctionCode.READ, header)
    assert iin(response) & ~(Iin.DEVICE_RESTART | Iin.NEED_TIME) == wrong
    assert len(objects(response.body)) == count


def test_points_are_read_by_a_list_and_by_a_count() -> None:
    master = quiet(sim=SIM)
    assert [one[2] for one in objects(master.read(b"\x01\x02\x17\x02\x09\x00"))] == [9, 0]
    assert [one[2] for one in objects(master.read(b"\x01\x02\x28\x03\x00\x09\x00\x09\x00\x09\x00"))] == [9]
    assert [one[2] for one in objects(master.read(b"\x1e\x05\x07\x02"))] == [0, 1]


def test_events_come_in_the_order_in_which_they_happened_with_their_times() -> None:
    master = quiet()
    master.outstation.clock_offset_ms = 7
    for name, value in (
        ("door", True),
        ("voltage", 1.5),
        ("door", False),
        ("pulses", 3),
        ("breaker_state", "on"),
    ):
        master.wait(1000)
        master.outstation.set(name, value)
    master.outstation.set("door", flags=0x05, time_ms=42)
    body = master.read(EVENTS)
    raw = (1.5 + 5) / 0.1
    end = body.index(b"\x04\x02\x17")
    stamp = [BEGIN_MS + 7 + 1000 * n for n in range(6)]
    assert objects(body[:end]) == [
        (2, 2, 0, True, 1, stamp[1]),
        (32, 8, 0, raw, 1, stamp[2]),
        (2, 2, 0, False, 1, stamp[3]),
        (22, 5, 0, 3, 1, stamp[4]),
    ]
    double_bit = b"\x04\x02\x17\x01\x00\x81" + stamp[5].to_bytes(6, "little")
    assert body[end:] == double_bit + b"\x02\x02\x17\x01\x00\x05" + (42).to_bytes(6, "little")


def test_events_leave_only_when_confirmed() -> None:
    master = quiet()
    master.outstation.set("door", True)
    first = master.request(FunctionCode.READ, EVENTS)
    assert first.control.con
    assert not iin(first) & Iin.CLASS_1_EVENTS
    again = master.request(FunctionCode.READ, EVENTS)  # instead of the confirmation
    assert again.body == first.body != b""
    assert master.confirm(first) == []  # too late: that response was given up
    third = master.request(FunctionCode.READ, EVENTS)
    assert third.body == first.body
    master.confirm(third)
    assert master.request(FunctionCode.READ, EVENTS).body == b""
    assert len(master.outstation.buffer) == 0


def test_an_unconfirmed_response_is_given_up_after_a_time() -> None:
    master = quiet()
    master.outstation.set("door", True)
    master.request(FunctionCode.READ, EVENTS)
    assert not iin(master.request(FunctionCode.DELAY_MEASURE)) & ~(Iin.CLASS_1_EVENTS | 0x90)
    response = master.request(FunctionCode.READ, EVENTS)
    master.wait(4900)
    assert not iin(response) & Iin.CLASS_1_EVENTS
    master.wait(200)
    master.confirm(response)
    assert len(master.outstation.buffer) == 1


def test_classes_are_told_apart_and_counted() -> None:
    master = quiet(simulation={"classes": {"lamp": 3, "switch": 0}})
    for name in ("door", "lamp", "switch", "voltage"):
        master.outstation.set(name, 1 if name == "voltage" else True)
    bits = Iin.CLASS_1_EVENTS | Iin.CLASS_2_EVENTS | Iin.CLASS_3_EVENTS
    assert iin(master.request(FunctionCode.DELAY_MEASURE)) & bits == bits
    assert [one[2] for one in objects(master.read(class_header(3)))] == [1]
    assert [one[0] for one in objects(master.read(b"\x20\x00\x06"))] == [32]
    for _ in range(3):
        master.outstation.set("door")
    assert len(objects(master.read(b"\x3c\x02\x07\x03"))) == 3
    assert len(objects(master.read(b"\x02\x01\x08\x05\x00"))) == 1


def test_a_full_buffer_drops_its_oldest_and_says_so_until_that_was_heard() -> None:
    master = quiet(simulation={"event_buffer": 3})
    for value in range(5):
        master.outstation.set("current", value)
    assert master.outstation.buffer.dropped == 2
    response = master.request(FunctionCode.READ, EVENTS)
    assert [one[3] for one in objects(response.body)] == [2, 3, 4]
    assert iin(response) & Iin.EVENT_BUFFER_OVERFLOW
    master.confirm(response)
    assert not iin(master.request(FunctionCode.DELAY_MEASURE)) & Iin.EVENT_BUFFER_OVERFLOW


def test_relative_times_have_their_common_time_before_them() -> None:
    master = quiet()
    for ms in (1000, 66000, 67000, 500):
        master.outstation.set("door", flags=1, time_ms=ms)
    body = master.read(b"\x02\x03\x06")
    assert [one[5] for one in objects(body) if one[0] == 2] == [1000, 66000, 67000, 500]
    assert body.count(b"\x33\x02\x07\x01") == 3  # not synchronised
    master.outstation.need_time = False
    master.outstation.set("door")
    assert master.read(b"\x02\x03\x06")[:4] == b"\x33\x01\x07\x01"


def test_long_responses_are_cut_and_each_fragment_waits_for_its_confirmation() -> None:
    points = {f"a{i}": {"type": "analog_input", "index": i, "variation": 5} for i in range(1000)}
    master = quiet(
        {**points, **{f"b{i}": {"type": "binary_input", "index": i, "variation": 1} for i in range(40)}}
    )
    response = master.request(FunctionCode.READ, class_header(0))
    parts = [response]
    while response.control.con:
        assert not response.control.fin
        (response,) = master.confirm(response)
        parts.append(response)
    assert [one.control.fir for one in parts] == [True] + [False] * (len(parts) - 1)
    assert [one.control.sequence for one in parts] == [
        (parts[0].control.sequence + n) % 16 for n in range(len(parts))
    ]
    assert parts[-1].control.fin
    assert len(parts) == 3
    assert all(len(one) <= 2048 for one in master.fragments)
    indices = [one[2] for part in parts for one in objects(part.body) if one[0] == 30]
    assert indices == list(range(1000))


def test_thousands_of_events_are_cut_as_well_and_come_once() -> None:
    master = quiet(max_fragment=300)
    for value in range(900):
        master.outstation.set("current", value)
    values = [one[3] for one in objects(master.read(EVENTS))]
    assert values == list(range(900))
    assert all(len(one) <= 300 for one in master.fragments)


def test_a_lost_connection_has_its_events_reported_again() -> None:
    master = quiet()
    master.outstation.set("door", True)
    master.request(FunctionCode.READ, EVENTS)
    master.disconnect()
    master.connect()
    assert len(objects(master.read(EVENTS))) == 1


def test_counters_are_frozen_and_cleared() -> None:
    master = quiet(sim={"pulses": 7})
    assert iin(master.request(FunctionCode.IMMED_FREEZE, b"\x14\x00\x06")) & 0xFF00 == 0
    assert objects(master.read(class_header(3))) == [(23, 5, 0, 7, 1, BEGIN_MS)]
    assert objects(master.read(b"\x15\x05\x06")) == [(21, 5, 0, 7, 1, BEGIN_MS)]
    master.outstation.set("pulses", 9)
    assert master.send(master.fragment(FunctionCode.FREEZE_CLEAR_NR, b"\x14\x00\x00\x00\x00")) == []
    assert objects(master.read(b"\x15\x00\x06"))[0][3] == 9
    assert objects(master.read(b"\x14\x00\x06"))[0][3] == 0
    assert iin(master.request(FunctionCode.IMMED_FREEZE, b"\x1e\x00\x06")) & Iin.OBJECT_UNKNOWN
    assert iin(master.request(FunctionCode.IMMED_FREEZE)) & Iin.PARAMETER_ERROR
    assert iin(master.request(FunctionCode.IMMED_FREEZE, b"\x14\x00\x00\x00\x01")) & Iin.PARAMETER_ERROR
    assert iin(master.request(FunctionCode.FREEZE_AT_TIME)) & Iin.FUNCTION_NOT_SUPPORTED


def test_a_counter_that_counts_by_itself_counts_on_from_zero() -> None:
    master = quiet(sim={"pulses": {"ramp": {"from": 0, "to": 1000, "period": "1000s"}}})
    master.wait(500_000)
    assert objects(master.read(b"\x14\x00\x06"))[0][3] == 500
    master.request(FunctionCode.FREEZE_CLEAR, b"\x14\x00\x06")
    master.wait(100_000)
    assert objects(master.read(b"\x14\x00\x06"))[0][3] == 100


def test_classes_are_assigned_and_forgotten_at_a_restart() -> None:
    master = quiet()
    to_class_3 = class_header(3) + b"\x01\x00\x00\x00\x00" + class_header(0) + b"\x1e\x00\x06"
    assert iin(master.request(FunctionCode.ASSIGN_CLASS, to_class_3)) & 0xFF00 == 0
    master.outstation.set("door", True)
    master.outstation.set("voltage", 1)
    assert [one[0] for one in objects(master.read(EVENTS))] == [2]
    assert master.outstation.database["door"].event_class == 3
    assert iin(master.request(FunctionCode.ASSIGN_CLASS, b"\x01\x00\x06")) & Iin.PARAMETER_ERROR
    master.outstation.restart()
    assert master.outstation.database["door"].event_class == 1


def test_changes_of_behaviours_are_events_at_their_times_however_late_one_looks() -> None:
    master = quiet(sim={"door": {"square": {"period": "10s"}}})
    master.wait(60_000)
    events = objects(master.read(class_header(1)))
    assert [one[3] for one in events] == [False, True] * 6
    stamps = [one[5] for one in events if one[5] is not None]
    assert all(b - a == 5000 for a, b in itertools.pairwise(stamps))


def test_hours_at_once_do_not_take_hours() -> None:
    master = quiet(sim={"voltage": {"sine": {"min": 0, "max": 1, "period": "1s"}}})
    master.wait(100 * 3600 * 1000)
    assert master.outstation.buffer.dropped > 0


def test_a_deadband_counts_from_the_last_event() -> None:
    master = quiet(
        sim={"current": {"ramp": {"from": 0, "to": 100, "period": "100s"}}}, simulation={"deadband": 10}
    )
    master.wait(99_000)
    values = [one[3] for one in objects(master.read(EVENTS))]
    assert len(values) == 9
    assert all(b - a >= 10 for a, b in itertools.pairwise([0, *values]))


def test_flags_may_have_a_behaviour() -> None:
    points = {**POINTS, "door_flags": {"type": "binary_input", "index": 0, "field": "flags"}}
    sim = {"door_flags": {"square": {"low": "online", "high": "comm-lost chatter", "period": "10s"}}}
    master = quiet(points, sim)
    assert objects(master.read(b"\x01\x02\x00\x00\x00"))[0][4] == 0x24
    master.wait(5000)
    assert objects(master.read(class_header(1)))[0][4] == 0x01
    with pytest.raises(ValueError, match="over-range"):
        flags_of("binary_input", "online over-range")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_static_variation_reads_as_what_was_set(data: st.DataObject) -> None:
    kind = data.draw(
        st.sampled_from([one for one in STATIC_GROUP if one not in ("octet_string", "double_bit_input")])
    )
    variation = data.draw(st.sampled_from(VARIATIONS[kind]))
    indices = data.draw(st.lists(st.integers(0, 65535), min_size=1, max_size=40, unique=True))
    points = {f"p{i}": {"type": kind, "index": i, "variation": variation} for i in indices}
    master = quiet(points)
    number = LAYOUTS[STATIC_GROUP[kind], variation].number
    values: st.SearchStrategy[Any] = st.booleans()
    if number in ("f", "d"):
        values = st.floats(width=32 if number == "f" else 64, allow_nan=False, allow_infinity=False)
    elif number:
        low, high = (0, 2 ** (8 * struct.calcsize(number)) - 1)
        shift = 0 if number in "IH" else (high + 1) // 2
        values = st.integers(low - shift, high - shift)
    wanted = {i: data.draw(values) for i in indices}
    for i, value in wanted.items():
        master.outstation.set(f"p{i}", value)
    read = {one[2]: one[3] for one in objects(master.read(class_header(0)))}
    assert {i: read[i] for i in wanted} == wanted  # packed bits may have padding beyond
    assert {one[2]: one[3] for one in objects(master.read(EVENTS))} == wanted
