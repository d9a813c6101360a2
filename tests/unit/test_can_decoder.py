"""The generated decoder: equal to cantools on made-up and on public databases; points and their quality."""

import math
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import canmatrix  # type: ignore[import-untyped]
import pytest
from can_databases import decoded, differences, loaded, messages, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.base import Quality
from protocols.can.point import CanPoint
from protocols.can.signals.database import Message, Signal, from_cantools
from protocols.can.signals.decoder import DecodePoints, compile_decoder, compile_points

PUBLIC = sorted(
    path for path in Path(canmatrix.__file__).parent.rglob("*") if path.suffix in (".dbc", ".arxml")
)


def _frames(length: int) -> st.SearchStrategy[bytes]:
    whole = st.binary(min_size=length, max_size=length)
    return st.one_of(whole, whole, st.binary(max_size=length + 3), st.just(bytes(length)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equal_to_cantools(data: st.DataObject) -> None:
    message = data.draw(messages())
    names = data.draw(st.sets(st.sampled_from([signal.name for signal in message.signals]), min_size=1))
    decode = compile_decoder(from_cantools(message), {name: name for name in names})
    for frame in data.draw(st.lists(_frames(message.length), min_size=3, max_size=8)):
        expected = {name: value for name, value in decoded(message, frame).items() if name in names}
        assert seen(decode(frame)) == seen(expected)


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.name)
def test_equal_to_cantools_on_public_files(path: Path) -> None:
    assert differences(loaded(path), random.Random(1)) == []


def test_public_files_are_there() -> None:
    assert sum(len(loaded(path)) for path in PUBLIC) > 300


def _compile(signals: Mapping[str, Signal], length: int = 8) -> tuple[Message, Any]:
    message = Message("m", 1, length, False, None, signals)
    return message, compile_decoder(message, {name: name for name in signals})


def _signal(start: int, length: int, **fields: Any) -> Signal:
    return Signal("s", start, length, **{"little": True} | fields)


@pytest.mark.parametrize(
    ("signal", "data", "value"),
    [
        (_signal(0, 16), "3412", 0x1234),
        (_signal(7, 16, little=False), "1234", 0x1234),
        (_signal(4, 8), "3412", 0x23),
        (_signal(3, 8, little=False), "1234", 0x23),
        (_signal(0, 8, signed=True), "ff00", -1),
        (_signal(0, 8, signed=True), "8000", -128),
        (_signal(0, 8, scale=0.5, offset=-40), "6500", 10.5),
        (_signal(0, 8, scale=2, offset=1), "0300", 7),
        (_signal(0, 16, is_float=True), "003c", 1.0),
        (_signal(7, 16, is_float=True, little=False), "3c00", 1.0),
        (_signal(0, 8, choices={3: "three"}), "0300", "three"),
        (_signal(0, 8, choices={3: "three"}), "0400", 4),
    ],
)
def test_values(signal: Signal, data: str, value: Any) -> None:
    _, decode = _compile({"s": signal}, 2)
    assert seen(decode(bytes.fromhex(data))) == seen({"s": value})


def test_signals_around_one_that_lies_across_nine_bytes_are_read_from_their_own() -> None:
    lies = [Signal("first", 7, 16, False), Signal("across", 6, 64, False), Signal("after", 23, 9, False)]
    message = Message("m", 1, 16, True, None, {signal.name: signal for signal in lies})
    decode = compile_decoder(message, {signal.name: signal.name for signal in lies})
    for data in (bytes(range(1, 17)), b"\x01" + bytes(15)):
        bits = int.from_bytes(data, "big")
        expected = {
            "first": bits >> 112,
            "across": bits >> 63 & (1 << 64) - 1,
            "after": bits >> 103 & 0x1FF,
        }
        assert decode(data) == expected


def test_names_are_never_code() -> None:
    name = "x': __import__('os')._exit(3), '"
    signals = {name: Signal(name, 0, 8, True, choices={1: "'] = 1 #"})}
    _, decode = _compile(signals)
    assert decode(b"\1" + bytes(7)) == {name: "'] = 1 #"}


def test_a_factor_that_is_no_number_is_never_code() -> None:
    bad: Any = "__import__('os')._exit(3)"
    with pytest.raises(ValueError, match="is no factor"):
        _compile({"s": _signal(0, 8, scale=bad, offset=1)})


def test_signals_that_no_frame_has_are_never_decoded() -> None:
    signals = {
        "long": Signal("long", 60, 8, True),
        "lost": Signal("lost", 0, 8, True, selector="nobody", selected_by=frozenset({1})),
        "a": Signal("a", 0, 8, True, is_multiplexer=True, selector="b", selected_by=frozenset({1})),
        "b": Signal("b", 0, 8, True, is_multiplexer=True, selector="a", selected_by=frozenset({1})),
        "good": Signal("good", 0, 8, True),
    }
    _, decode = _compile(signals)
    assert decode(bytes([1] * 8)) == {"good": 1}


def test_only_signals_that_are_selected_are_decoded() -> None:
    signals = {
        "outer": Signal("outer", 0, 8, True, is_multiplexer=True),
        "inner": Signal(
            "inner", 8, 8, True, is_multiplexer=True, selector="outer", selected_by=frozenset({1, 2})
        ),
        "deep": Signal("deep", 16, 8, True, selector="inner", selected_by=frozenset({7})),
        "other": Signal("other", 8, 16, True, selector="outer", selected_by=frozenset({3})),
    }
    message, decode = _compile(signals)
    assert decode(bytes([2, 7, 9, 0, 0, 0, 0, 0])) == {"outer": 2, "inner": 7, "deep": 9}
    assert decode(bytes([2, 8, 9, 0, 0, 0, 0, 0])) == {"outer": 2, "inner": 8}
    assert decode(bytes([3, 7, 9, 0, 0, 0, 0, 0])) == {"outer": 3, "other": 0x0907}
    assert decode(bytes([4, 7, 9, 0, 0, 0, 0, 0])) == {"outer": 4}
    assert decode(bytes([2, 7])) == {"outer": 2, "inner": 7}
    assert compile_decoder(message, {"deep": 5})(bytes([1, 7, 9, 0, 0, 0, 0, 0])) == {5: 9}


def _points(length: int = 8, **points: tuple[Signal, dict[str, Any]]) -> DecodePoints:
    """A decoder of points of one message."""
    signals = {name: signal for name, (signal, _) in points.items()}
    message = Message("m", 1, length, False, None, signals)
    made = []
    for name, (signal, fields) in points.items():
        point = CanPoint(signal="s", **fields)
        point._name = name
        point.bind(message, signal)
        made.append(point)
    return compile_points(message, made)


OFF_ON = {0: "Off", 1: "On"}


def test_points_are_of_their_kind() -> None:
    decode = _points(
        flag=(_signal(0, 1), {}),
        mode=(_signal(1, 1, choices=OFF_ON), {}),
        code=(_signal(1, 1, choices=OFF_ON, scale=2), {}),
        bare=(_signal(1, 1, choices=OFF_ON), {"labels": "no"}),
        level=(_signal(8, 8, scale=0.5), {}),
    )
    values, bad = decode(b"\3\4" + bytes(6))
    assert seen(values) == seen({"flag": True, "mode": "On", "bare": True, "level": 2.0})
    assert bad == {"code": Quality.DEVICE_ERROR}


@pytest.mark.parametrize(
    ("signal", "fields", "raw", "value"),
    [
        (_signal(0, 8, choices=OFF_ON), {}, 1, "On"),
        (_signal(0, 8, choices=OFF_ON), {}, 2, Quality.OUT_OF_RANGE),
        (_signal(0, 8, choices=OFF_ON, scale=0.5), {"labels": "yes"}, 0, "Off"),
        (_signal(0, 8, choices={255: "SNA"}, scale=0.5), {}, 254, 127.0),
        (_signal(0, 8, choices={255: "SNA"}, scale=0.5), {}, 255, Quality.DEVICE_ERROR),
        (_signal(0, 8, choices={255: "SNA"}, scale=0.5), {"labels": "no"}, 255, 127.5),
        (_signal(0, 8, choices={255: "SNA"}, unit="V"), {}, 255, Quality.DEVICE_ERROR),
        (_signal(0, 8, choices={255: "SNA"}), {"unit": "V"}, 254, 254),
        (_signal(0, 8, signed=True, choices={-1: "SNA"}, scale=2), {}, 255, Quality.DEVICE_ERROR),
        (_signal(0, 8, signed=True, choices={-1: "SNA"}, scale=2), {}, 254, -4),
    ],
)
def test_labelled_codes(signal: Signal, fields: dict[str, Any], raw: int, value: Any) -> None:
    values, bad = _points(1, p=(signal, fields))(bytes([raw]))
    expected: Any = ({}, {"p": value}) if isinstance(value, Quality) else ({"p": value}, {})
    assert (values, bad) == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("little", [True, False])
def test_what_is_no_number_is_bad(number: float, little: bool) -> None:
    float32 = _signal(0 if little else 7, 32, little=little, is_float=True, scale=2, choices={1: "one"})
    decode = _points(p=(float32, {}))
    layout = "<f" if little else ">f"
    assert decode(struct.pack(layout, number) + bytes(4)) == ({}, {"p": Quality.NOT_A_NUMBER})
    assert decode(struct.pack(layout, 1.5) + bytes(4)) == ({"p": 3.0}, {})
    assert decode(struct.pack(layout, 1.0) + bytes(4)) == ({"p": 2.0}, {})


def test_what_a_frame_is_too_short_for_is_bad() -> None:
    decode = _points(near=(_signal(0, 8), {}), far=(_signal(56, 8, choices=OFF_ON), {}))
    assert decode(bytes(8)) == ({"near": 0, "far": "Off"}, {})
    assert decode(bytes(9)) == ({"near": 0, "far": "Off"}, {})
    assert decode(bytes(7)) == ({"near": 0}, {"far": Quality.DEVICE_ERROR})
    assert decode(b"") == ({}, {"near": Quality.DEVICE_ERROR, "far": Quality.DEVICE_ERROR})


def test_what_multiplexers_leave_out_is_neither_good_nor_bad() -> None:
    page = Signal("page", 8, 8, True, is_multiplexer=True)
    decode = _points(
        page=(page, {}),
        first=(_signal(16, 8, selector="page", selected_by=frozenset({1})), {}),
        second=(_signal(16, 16, selector="page", selected_by=frozenset({2})), {}),
    )
    assert decode(bytes([0, 1, 5, 6, 0, 0, 0, 0])) == ({"page": 1, "first": 5}, {})
    assert decode(bytes([0, 3, 5, 6, 0, 0, 0, 0])) == ({"page": 3}, {})
    assert decode(bytes([0, 1, 5])) == ({"page": 1, "first": 5}, {})
    assert decode(bytes([0, 2, 5])) == ({"page": 2}, {"second": Quality.DEVICE_ERROR})
    # Nobody knows which one it was.
    assert decode(bytes([0])) == ({}, dict.fromkeys(("page", "first", "second"), Quality.DEVICE_ERROR))


@settings(max_examples=100)
@given(st.data())
def test_points_are_what_signals_are(data: st.DataObject) -> None:
    """Good points of every kind have the value of cantools, and the others have it no more."""
    original = data.draw(messages())
    message = from_cantools(original)
    points = {}
    for name, signal in message.signals.items():
        labels = data.draw(st.sampled_from(("auto", "no", "yes") if signal.choices else ("auto",)))
        points[name] = CanPoint(signal=name, labels=labels)
        points[name]._name = name
        points[name].bind(message, signal)
    decode = compile_points(message, list(points.values()))
    frame = data.draw(_frames(message.length))
    values, bad = decode(frame)
    expected: Mapping[str, Any] = decoded(original, frame)
    if len(frame) >= message.length:
        assert bad.keys() <= expected.keys()
    assert not values.keys() & bad.keys()
    for name, value in values.items():
        if points[name].kind == "boolean" or points[name].labels == "no":
            assert value == original.get_signal_by_name(name).conversion.raw_to_scaled(
                _raw(original, name, frame), decode_choices=False
            )
        else:
            assert seen({name: value}) == seen({name: expected[name]})
    assert values.keys() <= expected.keys() <= values.keys() | bad.keys()
    for name, why in bad.items():
        labelled = not isinstance(expected.get(name), int | float)
        assert (why is Quality.DEVICE_ERROR) == labelled


def _raw(message: Any, name: str, frame: bytes) -> Any:
    signal = message.get_signal_by_name(name)
    ours = from_cantools(message).signals[name]
    alone = Message("m", 1, message.length, False, None, {name: _bare(ours)})
    assert signal.length == ours.length
    return compile_decoder(alone, {name: name})(frame)[name]


def _bare(signal: Signal) -> Signal:
    return Signal(signal.name, signal.start, signal.length, signal.little, signal.signed, signal.is_float)
