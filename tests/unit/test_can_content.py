"""Payloads that a simulated CAN node makes: bits of signals, counters, selector values."""

import math
from pathlib import Path
from typing import Any

import pytest
from can_rig import decoded, message, write_database
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.can import config
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.encoder import pack
from protocols.can.signals.protect import protect
from sim import waveforms
from sim.behaviour import Behaviour
from sim.can.content import MOST_PAGES, Content, first_value, selections
from sim.can.encoder import encoder

PLAIN = config.Message()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_database(tmp_path)


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
        value = data.draw(st.floats(-6000, 6000, width=16))
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
