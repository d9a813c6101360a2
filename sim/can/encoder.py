"""Scaled values to the bits of a payload. Pure, and apart from the driver's own codec.

A number that its signal cannot hold saturates, as in a real device.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

from protocols.can.signals.database import Signal

Bits = Callable[[Any], int]
"""A value as its bits in a payload that is read as one little-endian number."""

_FLOATS = {16: "<e", 32: "<f", 64: "<d"}
_LARGEST = {16: 65504.0, 32: struct.unpack("<f", b"\xff\xff\x7f\x7f")[0], 64: 1.7976931348623157e308}


def placed(signal: Signal, length: int) -> Bits:
    """Makes the function that puts a raw value, signed or not, at its place in `length` bytes."""
    mask = (1 << signal.length) - 1
    if signal.little:
        shift = signal.first_bit
        return lambda raw: (raw & mask) << shift
    shift = 8 * length - signal.end_bit
    return lambda raw: int.from_bytes(((raw & mask) << shift).to_bytes(length, "big"), "little")


def encoder(signal: Signal, length: int) -> Bits:
    """Makes the function that puts a scaled value or a label at its place in `length` bytes."""
    place, scale, offset = placed(signal, length), signal.scale, signal.offset
    number = _float_bits(signal) if signal.is_float else _whole(signal)
    low, high = signal.raw_range
    codes = {
        label: code for code, label in sorted(signal.choices.items(), reverse=True) if low <= code <= high
    }

    def labelled(value: Any) -> int:
        return place(codes[value] if isinstance(value, str) else number((value - offset) / scale))

    if scale == 0:  # some files have such
        return lambda value: place(0)
    if codes:
        return labelled
    if scale == 1 and offset == 0:
        return lambda value: place(number(value))
    return lambda value: place(number((value - offset) / scale))


def _whole(signal: Signal) -> Bits:
    low, high = signal.raw_range
    # `not >` rather than `<=`: what is not a number must not stop a node.
    return lambda raw: low if not raw > low else high if raw >= high else round(raw)


def _float_bits(signal: Signal) -> Bits:
    pack, largest = struct.Struct(_FLOATS[signal.length]).pack, _LARGEST[signal.length]

    def bits(raw: Any) -> int:
        held = math.copysign(largest, raw) if abs(raw) > largest else raw
        return int.from_bytes(pack(held), "little")

    return bits
