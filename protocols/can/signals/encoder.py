"""Values of signals to the bytes of a frame. Pure.

The bytes are those of cantools' `encode`, but for rounding: the raw value is worked out exactly, from the
decimal text of value, scale and offset, so that 64 bits with a scale of 0.1 lose nothing.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from protocols.base import Value
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.decoder import FLOATS, route

if TYPE_CHECKING:
    from protocols.can.point import CanPoint


def raw_of(signal: Signal, value: Value) -> int | float:
    """The raw value of a scaled value or of a label, rounded to the nearest (half to even).

    Raises:
        ValueError: the signal cannot hold it; the text says why, without the signal's name.
    """
    if isinstance(value, str):
        low, high = signal.raw_range
        for raw, label in signal.choices.items():
            if label == value and low <= raw <= high:
                return raw
        raise ValueError(f"no code of it is labelled {value!r:.60}")
    if not isinstance(value, int | float) or not (isinstance(value, int) or math.isfinite(value)):
        raise ValueError("no raw value means this")
    if signal.scale == 0:
        if value != signal.offset:
            raise ValueError("no raw value means this")
        return 0
    if signal.is_float:
        return _float_raw(signal, value)
    raw = round((_exact(value) - _exact(signal.offset)) / _exact(signal.scale))
    low, high = signal.raw_range
    if not low <= raw <= high:
        first, last = sorted(exact_value(signal, end) for end in (low, high))
        raise ValueError(f"its {signal.length} bits hold {first:.16g} to {last:.16g}")
    return raw


def _exact(number: float | int) -> Fraction:
    # By its decimal text: the file says 0.1, not the binary number next to it.
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _float_raw(signal: Signal, value: float) -> float:
    """The raw value of a float signal, as its bits hold it."""
    layout = FLOATS[signal.length]
    try:
        number = (value - signal.offset) / signal.scale
        return float(struct.unpack(layout, struct.pack(layout, number))[0])
    except OverflowError:
        raise ValueError(f"a float of {signal.length} bits does not hold it") from None


def exact_value(signal: Signal, raw: int) -> int | float:
    """The scaled value of an integer signal, as near as a float can be: 3 at scale 0.1 is 0.3."""
    value = raw * _exact(signal.scale) + _exact(signal.offset)
    return int(value) if signal.integral else float(value)


def scaled_value(signal: Signal, raw: int | float) -> int | float:
    """The scaled value as the decoder gives it: 3 at scale 0.1 is 0.30000000000000004."""
    if signal.scale == 1 and signal.offset == 0:
        return raw
    return raw * signal.scale + signal.offset


def pack(message: Message, values: Mapping[str, Value]) -> bytes:
    """The payload with scaled values or labels of all signals that it has; bits of none are padding.

    Multiplexed signals are packed where the value of their multiplexer selects them, and need no value else.

    Raises:
        ValueError: a value is missing or does not fit; says whose.
    """
    little = big = used_little = used_big = 0
    bits = 8 * message.length
    for signal in message.signals.values():
        if not message.holds(signal) or not _selected(message, signal, values):
            continue
        number, mask = _bits(signal, _raw(signal, values)), (1 << signal.length) - 1
        if signal.little:
            little |= number << signal.start
            used_little |= mask << signal.start
        else:
            big |= number << bits - signal.end_bit
            used_big |= mask << bits - signal.end_bit
    payload = int.from_bytes(little.to_bytes(message.length, "little")) | big
    used = int.from_bytes(used_little.to_bytes(message.length, "little")) | used_big
    padding = int.from_bytes(bytes([message.padding]) * message.length)
    return (payload | padding & ~used).to_bytes(message.length)


def place(payload: bytes, signal: Signal, raw: int | float) -> bytes:
    """The payload with other bits for one signal."""
    order, shift = _lies(payload, signal)
    mask = (1 << signal.length) - 1
    number = int.from_bytes(payload, order) & ~(mask << shift) | _bits(signal, raw) << shift
    return number.to_bytes(len(payload), order)


def extract(payload: bytes, signal: Signal) -> int:
    """The bits of one signal, without a sign."""
    order, shift = _lies(payload, signal)
    return int.from_bytes(payload, order) >> shift & (1 << signal.length) - 1


def _lies(payload: bytes, signal: Signal) -> tuple[Literal["little", "big"], int]:
    """As what number the payload is to be read, and how many of its bits are below the signal."""
    return ("little", signal.start) if signal.little else ("big", 8 * len(payload) - signal.end_bit)


def _raw(signal: Signal, values: Mapping[str, Value]) -> int | float:
    if signal.name not in values:
        raise ValueError(f"{signal.name} has no value")
    try:
        return raw_of(signal, values[signal.name])
    except ValueError as error:
        raise ValueError(f"{signal.name} = {values[signal.name]!r:.60}: {error}") from None


def _bits(signal: Signal, raw: int | float) -> int:
    if signal.is_float:
        return int.from_bytes(struct.pack(FLOATS[signal.length], raw))
    return int(raw) & (1 << signal.length) - 1


def _selected(message: Message, signal: Signal, values: Mapping[str, Value]) -> bool:
    steps = route(message, signal)
    return steps is not None and all(_raw(selector, values) in ids for selector, ids in steps)


def selection(message: Message, signal: Signal) -> Mapping[str, int | float]:
    """Values of its multiplexers with which a signal is in a frame: the lowest where several select it.

    Signals of one selection may be written in one frame. Empty for those that are in every frame.
    """
    steps = route(message, signal) or ()
    return {selector.name: scaled_value(selector, min(values)) for selector, values in steps}


def initial_values(message: Message, points: Iterable["CanPoint"]) -> dict[str, Value]:
    """What each signal is before it is written: as its point says, or the database, or a raw value of 0.

    `points` are those of this message.
    """
    values: dict[str, Value] = {
        name: scaled_value(signal, 0) if signal.initial is None else signal.initial
        for name, signal in message.signals.items()
    }
    values |= {point.bound[1].name: point.initial for point in points if point.initial is not None}
    return values
