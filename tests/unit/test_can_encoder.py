"""Packing: the bytes of cantools, exact rounding, and what a point accepts."""

import math
from typing import Any

import pytest
from can_databases import messages
from cantools.database.errors import EncodeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocols.base import Refused, Value
from protocols.can.point import CanPoint
from protocols.can.signals.database import Message, Signal, from_cantools
from protocols.can.signals.decoder import compile_decoder, compile_points
from protocols.can.signals.encoder import initial_values, pack, place, raw_of, selection


def _signal(length: int = 8, **fields: Any) -> Signal:
    return Signal("s", 0, length, True, **fields)


def _point(signal: Signal, **fields: Any) -> CanPoint:
    point = CanPoint(signal="s", access="rw", **fields)
    point._name = "p"
    point.bind(Message("m", 1, 8, False, None, {"s": signal}), signal)
    return point


@settings(max_examples=150)
@given(st.data())
def test_equal_to_cantools(data: st.DataObject) -> None:
    """Values that were decoded from any frame are packed to the bytes to which cantools packs them."""
    original = data.draw(messages())
    message = from_cantools(original)
    # Over 53 bits what cantools rounds to depends on floats: see `test_no_bit_is_lost`.
    assume(all(signal.length <= 53 or signal.is_float for signal in message.signals.values()))
    frame = data.draw(st.binary(min_size=message.length, max_size=message.length))
    values = compile_decoder(message, {name: name for name in message.signals})(frame)
    assume(all(not isinstance(value, float) or math.isfinite(value) for value in values.values()))
    try:
        expected = original.encode(dict(values), padding=True, strict=False)
    except EncodeError:  # a multiplexer value of which the file says nothing
        return
    assert pack(message, values) == expected


def test_bits_of_no_signal_are_padding() -> None:
    signals = {"a": Signal("a", 4, 4, True), "b": Signal("b", 15, 4, False)}
    for padding, expected in ((0x00, "50a00000"), (0xFF, "5fafffff"), (0x55, "55a55555")):
        message = Message("m", 1, 4, False, None, signals, padding=padding)
        assert pack(message, {"a": 5, "b": 10}) == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("signal", "value", "raw"),
    [
        (_signal(scale=0.1), 0.3, 3),
        (_signal(scale=0.1), 25.5, 255),
        (_signal(scale=0.1), 0.35, 4),
        (_signal(scale=0.5), 0.74, 1),
        (_signal(scale=0.5), 0.75, 2),
        (_signal(scale=0.5), 1.25, 2),
        (_signal(scale=2, offset=-40), -39, 0),
        (_signal(scale=-1, signed=True), 128, -128),
        (_signal(choices={3: "x", 300: "y", 4: "x"}), "x", 3),
        (_signal(), True, 1),
        (_signal(scale=0, offset=7), 7, 0),
        (_signal(32, is_float=True), 0.1, 0.10000000149011612),
    ],
)
def test_rounding(signal: Signal, value: Value, raw: int | float) -> None:
    assert raw_of(signal, value) == raw


def test_no_bit_is_lost() -> None:
    """Where cantools goes by way of a float, and loses ten bits."""
    assert raw_of(_signal(64, scale=0.5), (1 << 62) + 1) == (1 << 63) + 2
    assert raw_of(_signal(64, scale=1, offset=0.5), (1 << 62) + 1) == (1 << 62)


@pytest.mark.parametrize(
    ("signal", "value", "why"),
    [
        (_signal(), 256, "its 8 bits hold 0 to 255"),
        (_signal(), -1, "its 8 bits hold 0 to 255"),
        (_signal(signed=True), 128, "its 8 bits hold -128 to 127"),
        (_signal(scale=0.1, offset=-40), -40.1, "its 8 bits hold -40 to -14.5"),
        (_signal(scale=-0.5), 1, "its 8 bits hold -127.5 to 0"),
        (_signal(), math.nan, "no raw value means this"),
        (_signal(), -math.inf, "no raw value means this"),
        (_signal(scale=0), 1, "no raw value means this"),
        (_signal(16, is_float=True), 65520, "a float of 16 bits does not hold it"),
        (_signal(64, is_float=True), 10**400, "a float of 64 bits does not hold it"),
        (_signal(choices={1: "On"}), "on", "no code of it is labelled 'on'"),
        (_signal(choices={300: "On"}), "On", "no code of it is labelled 'On'"),
        (_signal(), 10**400, "its 8 bits hold 0 to 255"),
    ],
)
def test_what_a_signal_cannot_hold(signal: Signal, value: Value, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        raw_of(signal, value)
    message = Message("m", 1, 8, False, None, {"s": signal})
    with pytest.raises(ValueError, match=f"^s = .*: {why}$"):
        pack(message, {"s": value})


def test_every_signal_needs_a_value() -> None:
    message = Message("m", 1, 2, False, None, {"s": _signal(), "t": Signal("t", 8, 8, True)})
    with pytest.raises(ValueError, match=r"^t has no value$"):
        pack(message, {"s": 1})


MULTIPLEXED = {
    "page": Signal("page", 0, 8, True, scale=1, offset=1, is_multiplexer=True),
    "sub": Signal("sub", 8, 8, True, is_multiplexer=True, selector="page", selected_by=frozenset({3, 2})),
    "deep": Signal("deep", 16, 8, True, selector="sub", selected_by=frozenset({7})),
    "other": Signal("other", 8, 16, True, selector="page", selected_by=frozenset({4})),
    "common": Signal("common", 24, 8, True, initial=9),
}


def test_multiplexed_signals_are_packed_where_they_are_selected() -> None:
    message = Message("m", 1, 4, False, None, MULTIPLEXED, padding=0xFF)
    assert pack(message, {"page": 3, "sub": 7, "deep": 5, "common": 9}) == bytes([2, 7, 5, 9])
    assert pack(message, {"page": 3, "sub": 6, "common": 9}) == bytes([2, 6, 0xFF, 9])
    assert pack(message, {"page": 5, "other": 0x201, "common": 9}) == bytes([4, 1, 2, 9])
    assert pack(message, {"page": 1, "common": 9}) == bytes([0, 0xFF, 0xFF, 9])
    assert selection(message, MULTIPLEXED["deep"]) == {"page": 3, "sub": 7}
    assert selection(message, MULTIPLEXED["common"]) == {}


def test_initial_values() -> None:
    message = Message("m", 1, 4, False, None, MULTIPLEXED | {"low": Signal("low", 0, 8, True, offset=-40)})
    point = CanPoint(signal="common", initial=4)
    point.bind(message, MULTIPLEXED["common"])
    plain = CanPoint(signal="deep")
    plain.bind(message, MULTIPLEXED["deep"])
    expected = {"page": 1, "sub": 0, "deep": 0, "other": 0, "low": -40}
    assert initial_values(message, []) == expected | {"common": 9}
    assert initial_values(message, [point, plain]) == expected | {"common": 4}


@given(st.data())
def test_a_signal_is_placed_alone(data: st.DataObject) -> None:
    little = data.draw(st.booleans())
    first, length = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 24))
    signal = Signal("s", first if little else first // 8 * 8 + 7 - first % 8, length, little)
    payload, raw = data.draw(st.binary(min_size=8, max_size=8)), data.draw(st.integers(0, (1 << length) - 1))
    placed = place(payload, signal, raw)
    decode = compile_decoder(Message("m", 1, 8, False, None, {"s": signal}), {"s": "s"})
    assert decode(placed) == {"s": raw}
    held = decode(payload)["s"]
    assert isinstance(held, int)
    assert place(placed, signal, held) == payload


SNA = {255: "not available"}


@pytest.mark.parametrize(
    ("point", "value", "meaning"),
    [
        (_point(_signal(scale=0.1)), 0.3, 3 * 0.1),
        (_point(_signal(scale=0.1), max=25.5), 25.5, 255 * 0.1),
        (_point(_signal(scale=0.1, maximum=25.4)), 25.4, 254 * 0.1),
        (_point(_signal(scale=0.1, maximum=0.3)), 0.1 + 0.2, 3 * 0.1),
        (_point(_signal(scale=0.5)), 0.7, 0.5),
        (_point(_signal(scale=5)), 7, 5),
        (_point(_signal(1)), True, True),
        (_point(_signal(choices={0: "Off", 1: "On"})), "On", "On"),
        (_point(_signal(choices=SNA), unit="V"), 254, 254),
        (_point(_signal(choices=SNA), labels="no"), 255, 255),
        (_point(_signal(32, is_float=True)), 0.1, 0.10000000149011612),
        (_point(_signal(32, is_float=True, scale=0.5, offset=1)), 2, 2.0),
    ],
)
def test_accepted(point: CanPoint, value: Value, meaning: Value) -> None:
    assert point.accept(value) == value
    assert point.meaning(value) == meaning
    assert type(point.meaning(value)) is type(meaning)


@pytest.mark.parametrize(
    ("point", "value", "code", "text"),
    [
        (_point(_signal(scale=0.1)), 25.6, "out-of-range", "does not fit: its 8 bits hold 0 to 25.5"),
        (_point(_signal(scale=0.5), max=0.7), 0.75, "out-of-range", "p = 0.75 is above its max 0.7"),
        (_point(_signal(scale=5), max=8), 8, "out-of-range", "p = 10 is above its max 8"),
        (_point(_signal(scale=5), min=7), 7, "out-of-range", "p = 5 is below its min 7"),
        (_point(_signal(minimum=10)), 9, "out-of-range", "p = 9 is below the database's minimum 10"),
        (_point(_signal(maximum=10)), 11, "out-of-range", "p = 11 is above the database's maximum 10"),
        (_point(_signal(choices=SNA), unit="V"), 255, "out-of-range", "its code means 'not available'"),
        (_point(_signal(choices=SNA), unit="V"), 1.5, "bad-type", "takes a value of type integer"),
        (_point(_signal(choices=SNA)), 255, "bad-type", "takes a value of type enumeration"),
        (_point(_signal(choices=SNA)), "no", "out-of-range", "takes one of not available"),
        (_point(_signal(1)), 1, "bad-type", "takes a value of type boolean"),
        (_point(_signal(16, is_float=True)), 1e9, "out-of-range", "a float of 16 bits does not hold it"),
    ],
)
def test_refused(point: CanPoint, value: Value, code: str, text: str) -> None:
    with pytest.raises(Refused, match=text) as refused:
        point.accept(value)
    assert refused.value.code == code


@given(st.data())
def test_what_is_accepted_is_what_is_read_back(data: st.DataObject) -> None:
    message = from_cantools(data.draw(messages()))
    always = [each for each in message.signals.values() if not each.selector]
    assume(always)
    signal = data.draw(st.sampled_from(always))
    point = CanPoint(signal=signal.name, access="rw")
    point.bind(message, signal)
    value = data.draw(
        st.one_of(st.integers(-300, 300), st.floats(-300, 300), st.booleans(), st.sampled_from(["label 1"]))
    )
    try:
        point.accept(value)
    except Refused:
        return
    alone = Message("m", 1, message.length, False, None, {signal.name: signal})
    decode = compile_points(alone, [point])
    assert decode(pack(alone, {signal.name: value})) == ({"": point.meaning(value)}, {})
