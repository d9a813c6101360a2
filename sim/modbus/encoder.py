"""Engineering values to a simulated unit's memory. Pure.

A number that its type cannot hold saturates, as in a real device.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

from protocols.modbus.codec import PointCodec, swap_bytes
from protocols.modbus.config import ModbusPoint

Encode = Callable[[Any], bytes]

_LARGEST = {"float16": 65504.0, "float32": struct.unpack(">f", b"\x7f\x7f\xff\xff")[0], "float64": 1.7e308}
_DIRECT = {"int16", "uint16", "int32", "uint32", "float32"}


def encoder(point: ModbusPoint) -> Encode:
    """Makes the function that turns the point's values into memory: a byte for a bit, else its registers."""
    if point.is_bit:
        return lambda value: b"\1" if value else b"\0"
    if point.kind not in ("integer", "number"):
        return point.codec.encode
    low, high = _limits(point)
    encode = _number_encoder(point)

    def saturated(value: Any) -> bytes:
        return encode(low if value < low else high if value > high else value)

    return saturated


def _limits(point: ModbusPoint) -> tuple[float, float]:
    """The lowest and highest value in engineering units that a number's type can hold."""
    if point.type in _LARGEST:
        reach = min(_LARGEST[point.type] * abs(point.scale), _LARGEST["float64"])
        return point.offset - reach, point.offset + reach
    low, high = sorted(map(point.codec.linear.value, PointCodec.raw_range(point)))
    if point.codec.integral:
        return low, high
    # They are rounded: one step inwards is surely inside, and rounds to the same registers.
    return math.nextafter(low, high), math.nextafter(high, low)


def _number_encoder(point: ModbusPoint) -> Encode:
    """The codec's own, or for common types one without checks: the numbers are within limits already."""
    codec = point.codec
    if point.type not in _DIRECT or codec.is_field or codec.swapped:
        return codec.encode
    pack = struct.Struct(codec.endian + codec.format).pack
    scale, offset = codec.scale, codec.offset
    if codec.is_float:
        return lambda value: pack((value - offset) / scale)
    if codec.linear.identity:
        return lambda value: pack(round(value))
    return lambda value: pack(round((value - offset) / scale))


def field_mask(point: ModbusPoint) -> int:
    """The bits of its register in memory that are the point's; 0: all of the memory that it covers."""
    if point.is_bit or not point.codec.is_field:
        return 0
    mask = struct.pack(point.codec.endian + "H", point.codec.mask)
    return int.from_bytes(swap_bytes(mask) if point.codec.swapped else mask, "big")
