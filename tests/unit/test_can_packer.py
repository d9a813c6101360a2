"""Packing of written points into what the bus last carried, counters and rounds."""

import math
from typing import Any

import pytest
from can_databases import messages
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocols.base import DriverError
from protocols.can.config import CanDevice
from protocols.can.config import Message as Settings
from protocols.can.point import CanPoint
from protocols.can.signals.database import Message, Signal, from_cantools
from protocols.can.signals.decoder import compile_decoder
from protocols.can.signals.encoder import extract
from protocols.can.signals.packer import Packer


def packer(message: Message, points: dict[str, dict[str, Any]], **settings: Any) -> Packer:
    """A packer for a message without a file; `points` by their signals' names."""
    connection = {"interface": "virtual", "channel": "none", "fd": True}
    content = {"protocol": "can", "connection": connection, "frames": {}}
    device = CanDevice.model_validate(content)
    device.__dict__["messages"] = {message.name: Settings.model_validate(settings)}
    made: dict[str, CanPoint] = {}
    for name, fields in points.items():
        made[name] = CanPoint(signal=name, access="rw", **fields)
        made[name]._name = name
        made[name].bind(message, message.signals[name])
    device.__dict__["points"] = made
    return Packer(message, device)


@settings(max_examples=150)
@given(st.data())
def test_what_is_written_is_there_and_nothing_else_changed(data: st.DataObject) -> None:
    message = from_cantools(data.draw(messages()))
    frames = st.binary(min_size=message.length, max_size=message.length)
    before, other = data.draw(frames), data.draw(frames)
    decode = compile_decoder(message, {name: name for name in message.signals})
    wanted = decode(other)
    good = {
        name: value
        for name, value in wanted.items()
        if message.signals[name].selector is None
        and not message.signals[name].is_multiplexer
        and (not isinstance(value, float) or math.isfinite(value))
        and (message.signals[name].length <= 48 or message.signals[name].is_float)
    }
    chosen = data.draw(st.sets(st.sampled_from(sorted(good)))) if good else set()
    of = message.signals
    assume(chosen and not any(_overlaps(of[a], of[b]) for a in chosen for b in chosen if a != b))
    after = packer(message, {name: {} for name in message.signals}).next(before, {n: good[n] for n in chosen})
    for name, signal in message.signals.items():
        if name in chosen:
            assert decode(after)[name] == good[name]
        elif not any(_overlaps(signal, message.signals[one]) for one in chosen):
            assert extract(after, signal) == extract(before, signal)


def _overlaps(one: Signal, other: Signal) -> bool:
    return bool(_bits(one) & _bits(other))


def _bits(signal: Signal) -> set[tuple[int, int]]:
    if signal.little:
        return {divmod(bit, 8) for bit in range(signal.start, signal.start + signal.length)}
    return {(bit // 8, 7 - bit % 8) for bit in range(signal.first_bit, signal.end_bit)}


PLAIN = Message(
    "m",
    0x100,
    8,
    False,
    None,
    {
        "a": Signal("a", 0, 16, True, scale=0.5, initial=2.0),
        "b": Signal("b", 23, 8, False, signed=True),
        "n": Signal("n", 32, 4, True),
        "c": Signal("c", 40, 8, True),
    },
)


def test_before_anything_was_seen_the_rest_is_as_the_point_or_the_database_says() -> None:
    made = packer(PLAIN, {"a": {}, "b": {"initial": -1}})
    assert made.next(None, {}) == bytes.fromhex("0400ff0000000000")
    assert made.next(None, {"a": 100}) == bytes.fromhex("c800ff0000000000")


@pytest.mark.parametrize("last", [b"", b"\x01\x00", bytes(range(12))])
def test_a_frame_of_another_length_is_cut_or_filled(last: bytes) -> None:
    payload = packer(PLAIN, {"a": {}, "b": {}}).next(last, {"b": 5})
    assert len(payload) == 8
    assert payload[2] == 5
    assert payload[:2] == last[:2].ljust(2, b"\0")


def test_a_counter_counts_each_frame_and_a_round_has_all_of_them() -> None:
    made = packer(PLAIN, {"a": {}}, counter={"signal": "n", "last": 3})
    assert [made.next(None, {})[4] for _ in range(6)] == [0, 1, 2, 3, 0, 1]
    assert [payload[4] for payload in made.round(None, {"a": 1})] == [0, 1, 2, 3]
    assert len(packer(PLAIN, {"a": {}}).round(None, {})) == 1


MULTIPLEXED = Message(
    "mux",
    0x101,
    4,
    False,
    None,
    {
        "page": Signal("page", 0, 8, True, is_multiplexer=True),
        "x": Signal("x", 8, 8, True, selector="page", selected_by=frozenset({1, 2})),
        "y": Signal("y", 16, 8, True, selector="page", selected_by=frozenset({2}), initial=9),
        "z": Signal("z", 8, 16, True, selector="page", selected_by=frozenset({3})),
    },
)


def test_a_multiplexed_signal_brings_its_page_and_first_values_with_it() -> None:
    made = packer(MULTIPLEXED, {"page": {}, "x": {}, "y": {}, "z": {}})
    assert made.next(bytes.fromhex("03ffff00"), {"x": 5}) == bytes.fromhex("0105ff00")
    assert made.next(bytes.fromhex("02060700"), {"x": 5}) == bytes.fromhex("02050700")  # the page stays
    assert made.next(bytes.fromhex("03ffff00"), {"y": 1}) == bytes.fromhex("02000100")
    assert made.next(bytes.fromhex("03ffff00"), {"x": 1, "page": 2}) == bytes.fromhex("0201ff00")


def test_what_cannot_be_in_one_frame_is_said() -> None:
    made = packer(MULTIPLEXED, {"page": {}, "x": {}, "z": {}})
    with pytest.raises(DriverError, match="x is not in a frame with what else is written"):
        made.next(None, {"page": 3, "x": 1})
    with pytest.raises(DriverError, match="not in a frame"):
        made.next(None, {"x": 1, "z": 1})
