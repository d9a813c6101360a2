"""Fragments to samples: quality, times, order, and the quick way against the plain one."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dnp3_config import device

from protocols.base import Quality, Sample, Value
from protocols.dnp3.decoder import decode
from protocols.dnp3.fragment import Block, Decoded, Fragment
from protocols.dnp3.objects import FLAG_NAMES, LAYOUTS, FlagName, Iin, PointType
from protocols.dnp3.readings import Readings, names_of, quality_of

NOW = 1_800_000_000_000_000_000
TOLERATED: tuple[FlagName, ...] = ("remote-forced", "local-forced", "rollover", "discontinuity")
POINTS: dict[str, Any] = {
    "breaker": {"type": "double_bit_input", "index": 0},
    "door": {"type": "binary_input", "index": 1},
    "lamp": {"type": "binary_input", "index": 2},
    "lamp-flags": {"type": "binary_input", "index": 2, "field": "flags"},
    "voltage": {"type": "analog_input", "index": 0, "scale": 0.1},
    "current": {"type": "analog_input", "index": 1},
    "energy": {"type": "counter", "index": 0},
    "name": {"type": "octet_string", "index": 0},
    "trip": {"type": "binary_output", "index": 0, "access": "wo"},
}


def readings(points: dict[str, Any] | None = None, **fields: Any) -> Readings:
    return Readings(device(points or POINTS, **fields))


def fragment(*blocks: Block, **fields: Any) -> Fragment:
    whole: dict[str, Any] = {"time_ns": NOW, "iin": Iin(0), "decoded": Decoded(blocks)}
    return Fragment(**whole | fields)


def heard(text: str, **fields: Any) -> Fragment:
    return fragment(decoded=decode(bytes.fromhex(text)), **fields)


# Quality.


@pytest.mark.parametrize(
    ("kind", "flags", "quality"),
    [
        ("analog_input", 0x01, None),
        ("analog_input", 0x00, Quality.DEVICE_ERROR),
        ("analog_input", 0x04, Quality.DISCONNECTED),
        ("analog_input", 0x27, Quality.DISCONNECTED),
        ("analog_input", 0x02, Quality.STALE),
        ("analog_input", 0x23, Quality.STALE),
        ("analog_input", 0x21, Quality.OUT_OF_RANGE),
        ("analog_input", 0x61, Quality.OUT_OF_RANGE),
        ("analog_input", 0x41, Quality.DEVICE_ERROR),
        ("analog_input", 0x19, None),
        ("analog_input", 0x81, None),
        ("binary_input", 0x21, Quality.DEVICE_ERROR),
        ("binary_input", 0x41, None),
        ("counter", 0x61, None),
        ("binary_output", 0x21, None),
        ("octet_string", 0x01, None),
    ],
)
def test_what_flags_say_of_a_value(kind: PointType, flags: int, quality: Quality | None) -> None:
    assert quality_of(kind, flags, TOLERATED) is quality


@pytest.mark.parametrize(
    ("kind", "flags", "tolerate", "quality"),
    [
        ("counter", 0x21, (), Quality.DEVICE_ERROR),
        ("counter", 0x41, (), Quality.DEVICE_ERROR),
        ("binary_input", 0x09, (), Quality.DEVICE_ERROR),
        ("binary_input", 0x11, (), Quality.DEVICE_ERROR),
        ("analog_input", 0x21, ("over-range",), None),
        ("analog_input", 0x03, ("restart",), None),
        ("analog_input", 0x02, ("restart",), Quality.DEVICE_ERROR),
    ],
)
def test_what_is_tolerated_is_for_the_profile_to_say(
    kind: PointType, flags: int, tolerate: Any, quality: Quality | None
) -> None:
    assert quality_of(kind, flags, tolerate) is quality


def test_flags_by_name() -> None:
    assert names_of("analog_input", 0xFF) == list(FLAG_NAMES["analog_input"].values())
    assert names_of("double_bit_input", 0x21) == ["online", "chatter"]
    assert names_of("octet_string", 0xFF) == []


# Present values.


def test_present_values_are_one_sample_of_the_time_they_came() -> None:
    body = (
        "01 02 00 01 02 81 11  03 02 00 00 00 81  1e 01 00 00 01 01 e9000000 21 05000000  6e 02 00 00 00 4131"
    )
    assert readings().take(heard(body)) == [
        Sample(
            NOW,
            {
                "door": True,
                "lamp": False,
                "lamp-flags": "online local-forced",
                "breaker": "on",
                "voltage": 23.3,
                "name": "A1",
            },
            {"current": Quality.OUT_OF_RANGE},
        )
    ]


def test_values_without_flags_count_as_online() -> None:
    (sample,) = readings().take(heard("01 01 00 01 02 03"))
    assert sample.values == {"door": True, "lamp": True, "lamp-flags": "online"}


def test_a_reply_that_nobody_polled_for_is_no_sample() -> None:
    assert readings().take(heard("01 02 00 01 01 81", report=False)) == []


def test_points_that_the_profile_does_not_name_are_passed_over() -> None:
    made = readings()
    assert made.take(heard("1e 01 00 32 33 01 01000000 01 02000000")) == []
    assert made.take(heard("20 01 17 01 32 01 01000000")) == []
    (sample,) = made.take(heard("1e 01 00 01 32" + "01 07000000" * 50))
    assert sample == Sample(NOW, {"current": 7})


def test_what_can_only_be_written_has_no_value() -> None:
    assert readings().take(heard("0a 02 00 00 00 81")) == []


def test_the_last_word_on_a_point_counts() -> None:
    body = "1e 01 00 01 01 {} 05000000  1e 05 00 01 01 {} 0000c03f"
    assert readings().take(heard(body.format("04", "01"))) == [Sample(NOW, {"current": 1.5})]
    assert readings().take(heard(body.format("01", "04"))) == [
        Sample(NOW, {}, {"current": Quality.DISCONNECTED})
    ]


def test_present_values_with_an_index_each() -> None:
    (sample,) = readings().take(heard("1e 01 17 02 01 01 07000000 00 02 01000000"))
    assert sample == Sample(NOW, {"current": 7}, {"voltage": Quality.STALE})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_bad_alone(number: float) -> None:
    points = {f"a{index}": {"type": "analog_input", "index": index} for index in range(3)}
    block = Block(30, 5, range(3), (1.5, number, 2.5), b"\1\1\1")
    (sample,) = readings(points).take(fragment(block))
    assert sample == Sample(NOW, {"a0": 1.5, "a2": 2.5}, {"a1": Quality.NOT_A_NUMBER})


# Events.


def test_events_come_first_with_their_own_times_and_in_their_order() -> None:
    binaries = "02 02 17 03 01 81 e80300000000 02 01 e80300000000 01 01 d00700000000"
    analogs = "20 03 17 01 01 01 09000000 010000000000"
    assert readings().take(heard(binaries + analogs + "1e 01 00 01 01 01 05000000")) == [
        Sample(1_000_000_000, {"door": True, "lamp": False, "lamp-flags": "online"}),
        Sample(2_000_000_000, {"door": False}),
        Sample(1_000_000, {"current": 9}),
        Sample(NOW, {"current": 5}),
    ]


def test_two_events_of_a_point_at_one_time_are_two_samples() -> None:
    body = "02 02 17 03 01 81 e80300000000 01 01 e80300000000 02 81 e80300000000"
    assert readings().take(heard(body)) == [
        Sample(1_000_000_000, {"door": True}),
        Sample(1_000_000_000, {"door": False, "lamp": True, "lamp-flags": "online"}),
    ]


def test_events_are_taken_whether_or_not_somebody_polled() -> None:
    for fields in ({"report": False}, {"unsolicited": True}):
        assert readings().take(heard("20 01 17 01 01 01 09000000", **fields)) == [Sample(NOW, {"current": 9})]


def test_events_without_time_or_by_our_clock_have_the_time_they_came() -> None:
    assert readings().take(heard("02 03 17 01 01 81 0500")) == [Sample(NOW, {"door": True})]
    ours = readings(event_time="gateway")
    assert ours.take(heard("20 03 17 01 01 01 09000000 010000000000")) == [Sample(NOW, {"current": 9})]


def test_the_time_of_a_clock_that_was_not_set_is_still_the_outstations() -> None:
    body = "33 02 07 01 e80300000000 02 03 17 01 01 81 0500"
    assert readings().take(heard(body)) == [Sample(1_005_000_000, {"door": True})]


def test_bad_events_have_their_time_too() -> None:
    assert readings().take(heard("20 03 17 01 01 04 09000000 010000000000")) == [
        Sample(1_000_000, {}, {"current": Quality.DISCONNECTED})
    ]


def test_a_time_beyond_all_measure_is_a_problem_and_not_passed_on() -> None:
    made = readings()
    late = (2**63 - 1) // 1_000_000
    for time, stamp in ((late, late * 1_000_000), (late + 1, NOW), (2**48 - 1, NOW)):
        body = bytes.fromhex("20 03 17 01 01 01 09000000") + time.to_bytes(6, "little")
        (sample,) = made.take(fragment(decoded=decode(body)))
        assert sample == Sample(stamp, {"current": 9})
        assert made.undecoded == (
            "1 events have a time after the year 2261; the time they came at is theirs"
            if stamp == NOW
            else ""
        )


def test_a_repeated_fragment_has_no_new_events() -> None:
    made = readings()
    body = "20 01 17 01 01 01 09000000"
    assert made.take(heard(body, unsolicited=True)) != []
    assert made.take(heard(body, unsolicited=True, repeated=True)) == []


def test_events_sent_again_after_a_lost_connection_are_dropped() -> None:
    made = readings()
    body = "20 05 17 02 01 01 0000c07f 01 01 0000803f"  # without times; the first is no number
    assert len(made.take(heard(body))) == 2
    made.connection_lost()
    assert made.take(heard("")) == []
    assert made.take(heard(body)) == []
    assert len(made.take(heard(body))) == 2


def test_an_answer_that_crossed_the_confirmation_does_not_make_events_sent_again_new() -> None:
    body = "20 05 17 02 01 01 0000c07f 01 01 0000803f"  # without times
    for crossed in (True, False):
        made = readings()
        assert len(made.take(heard(body, unsolicited=True))) == 2
        made.take(heard("", crossed=crossed))
        made.connection_lost()
        assert len(made.take(heard(body))) == (0 if crossed else 2)


def test_events_of_points_not_named_are_known_again_as_well() -> None:
    made = readings()
    made.take(heard("20 01 17 02 01 01 09000000 63 01 09000000"))
    made.connection_lost()
    assert made.take(heard("20 01 17 03 01 01 09000000 63 01 09000000 01 01 07000000")) == [
        Sample(NOW, {"current": 7})
    ]


# Answers.


def test_an_answer_has_the_points_asked_for() -> None:
    blocks = decode(bytes.fromhex("1e 01 00 00 01 01 e9000000 04 05000000  01 02 00 01 01 81")).blocks
    asked = ["voltage", "current", "energy"]
    assert readings().answer(blocks, asked, 5) == Sample(
        5, {"voltage": 23.3}, {"current": Quality.DISCONNECTED, "energy": Quality.DEVICE_ERROR}
    )
    assert readings().answer([], ["energy"], 5, refused=True) == Sample(5, {}, {"energy": Quality.BAD_CONFIG})


def test_what_was_not_read_is_said_until_the_next_fragment() -> None:
    made = readings()
    assert made.take(heard("20 01 17 01 01 01 09000000 63 01 00 00 00")) == [Sample(NOW, {"current": 9})]
    assert made.undecoded == "group 99 variation 1 is not an object that is read here"
    made.take(heard(""))
    assert made.undecoded == ""


# The quick way over whole ranges, against one point at a time.

KINDS: dict[PointType, list[int]] = {
    "analog_input": [1, 2, 3, 5, 6],
    "binary_input": [1, 2],
    "double_bit_input": [2],
    "counter": [1, 5],
}


@st.composite
def ranges(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """Points of one kind, some scaled, some for their flags, and a range that covers some of them."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    scales: list[dict[str, Any]] = (
        [{}, {"scale": 0.1, "offset": 3}] if kind in ("analog_input", "counter") else [{}]
    )
    forms = draw(st.sampled_from([scales[:1], scales[-1:], scales, [*scales, {"field": "flags"}]]))
    indices = draw(st.sets(st.integers(0, 12), min_size=1))
    points = {f"p{i}": {"type": kind, "index": i} | draw(st.sampled_from(forms)) for i in indices}
    group = {"analog_input": 30, "binary_input": 1, "double_bit_input": 3, "counter": 20}[kind]
    variation = draw(st.sampled_from(KINDS[kind]))
    layout = LAYOUTS[group, variation]
    start, stop = sorted((draw(st.integers(0, 12)), draw(st.integers(0, 12))))
    body = bytes((group, variation, 0, start, stop))
    octet = st.sampled_from([0x01, 0x81]) if draw(st.booleans()) else st.integers(0, 255)
    if layout.bits:
        return points, body + draw(st.binary(min_size=2, max_size=2))[: (stop - start) // 8 + 1]
    for _ in range(start, stop + 1):
        body += bytes((draw(octet),)) if layout.flags else b""
        size = struct.calcsize("<" + layout.number)
        body += draw(st.binary(min_size=size, max_size=size)) if layout.number else b""
    return points, body


@given(ranges())
def test_a_range_gives_what_its_points_give_one_by_one(case: tuple[dict[str, Any], bytes]) -> None:
    points, body = case
    made = device(points)
    (block,) = decode(body).blocks
    values: dict[str, Any] = {}
    bad: dict[str, Quality] = {}
    for place, (index, raw) in enumerate(zip(block.indices, block.values, strict=True)):
        point = made.points.get(f"p{index}")
        if point is None:
            continue
        flags = 1 if block.flags is None else block.flags[place]
        value: Value | Quality = quality_of(point.type, flags, made.tolerate) or point.value_of(raw)
        if point.field == "flags":
            value = " ".join(names_of(point.type, flags))
        put: dict[str, Any] = bad if isinstance(value, Quality) else values
        put[point.name] = value
    one = Readings(made)
    for _ in range(2):
        samples = one.take(fragment(block))
        assert samples == ([Sample(NOW, values, bad)] if values or bad else [])
        assert all(
            type(values[name]) is type(got) for sample in samples for name, got in sample.values.items()
        )


@given(st.lists(st.binary(max_size=120), max_size=4), st.booleans())
def test_nothing_that_comes_raises(bodies: list[bytes], lost: bool) -> None:
    made = readings()
    for body in bodies:
        for sample in made.take(fragment(decoded=decode(body))):
            assert sample.values or sample.bad
            assert not sample.values.keys() & sample.bad.keys()
        if lost:
            made.connection_lost()
