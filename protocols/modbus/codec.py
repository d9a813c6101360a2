"""Register bytes to engineering values and back. Pure.

A block of points is compiled once: points of one byte order and of one arithmetic share one `struct`
format, so that a block costs a few calls, whatever the number of its points.
"""

import math
import struct
from array import array
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from protocols.base import Quality, Refused, Value, number

if TYPE_CHECKING:
    from protocols.modbus.config import ModbusPoint

_FORMATS = {
    "bool": "H",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "bcd16": "H",
    "bcd32": "I",
}
# An order is bytes swapped in each word or not, then big or little end first.
_ORDERS = {"ABCD": (False, ">"), "BADC": (True, ">"), "CDAB": (True, "<"), "DCBA": (False, "<")}

Raw = Any
"""What `struct` makes of a point's bytes: an int, a float or bytes."""
Decoded = tuple[dict[str, Value], dict[str, Quality]]
"""The good values of points and, for the others, what is wrong."""
Decode = Callable[[bytes], Decoded]
"""Takes the data of one block."""


def swap_bytes(data: bytes) -> bytes:
    """Swaps the two bytes of each register."""
    words = array("H", data)
    words.byteswap()
    return words.tobytes()


class _Linear:
    """value = raw * scale + offset as (raw * p + o) / q in integers, so that 3 at scale 0.1 is 0.3."""

    __slots__ = ("o", "p", "q")

    def __init__(self, scale: float, offset: float) -> None:
        # By their decimal text: the profile says 0.1, not the binary number next to it.
        factor, shift = Fraction(repr(scale)), Fraction(repr(offset))
        self.q = math.lcm(factor.denominator, shift.denominator)
        self.p = int(factor * self.q)
        self.o = int(shift * self.q)

    @property
    def identity(self) -> bool:
        return (self.p, self.o, self.q) == (1, 0, 1)

    def value(self, raw: int) -> int | float:
        scaled = raw * self.p + self.o
        return scaled if self.q == 1 else scaled / self.q

    def raw(self, value: float) -> int:
        exact = Fraction(value) if isinstance(value, int) else Fraction(repr(value))
        return round((exact * self.q - self.o) / self.p)


class PointCodec:
    """Turns the registers of one point into its value and back."""

    def __init__(self, point: "ModbusPoint") -> None:
        self._point = point
        self.type = point.type
        self.length = point.length or 0
        self.labels = dict(point.labels or {})
        self._codes = {label: code for code, label in self.labels.items()}
        self.swapped, self.endian = _ORDERS[point.order]
        self.format = f"{self.length + self.length % 2}s" if self.length else _FORMATS[point.type]
        self._struct = struct.Struct(self.endian + self.format)
        low, high = _bit_span(point)
        self.shift = low
        self.mask = ((1 << (high - low + 1)) - 1) << low
        self.scale, self.offset = point.scale, point.offset
        self.linear = _Linear(point.scale, point.offset)
        self._low, self._high = self.raw_range(point)

    @staticmethod
    def size(point: "ModbusPoint") -> int:
        """Bytes of a point in registers."""
        return point.length or struct.calcsize(_FORMATS[point.type])

    @staticmethod
    def raw_range(point: "ModbusPoint") -> tuple[int, int]:
        """Lowest and highest integer that an integer point can hold, before scale and offset."""
        if point.type.startswith("bcd"):
            return 0, 10 ** (PointCodec.size(point) * 2) - 1
        if point.bits is not None:
            low, high = point.bits
            return 0, (1 << (high - low + 1)) - 1
        codes = 1 << PointCodec.size(point) * 8
        return (-codes // 2, codes // 2 - 1) if point.type.startswith("int") else (0, codes - 1)

    @property
    def name(self) -> str:
        """The point's name; a device names its points after they were made."""
        return self._point.name

    @property
    def is_field(self) -> bool:
        """Only some bits of its register are the point's."""
        return self.mask != 0xFFFF

    @property
    def wire_mask(self) -> int:
        """The bits of the register, as it is on the wire, that are the point's."""
        return int.from_bytes(self._registers(self.mask))

    @property
    def is_float(self) -> bool:
        """An IEEE 754 number."""
        return self.type.startswith("float")

    @property
    def integral(self) -> bool:
        """Its numbers are integers also after scale and offset."""
        return not self.is_float and self.linear.q == 1

    def decode(self, data: bytes) -> Value | Quality:
        """The value of the point's registers, or why they hold none."""
        return self.value(self._struct.unpack(swap_bytes(data) if self.swapped else data)[0])

    def encode(self, value: Value) -> bytes:
        """The registers that hold a value; of a bit or a field of bits, with all other bits 0.

        Raises:
            Refused: `out-of-range` (the type cannot hold it) or `bad-type` (no hexadecimal text).
        """
        try:
            return self._registers(self._raw(value))
        except (struct.error, OverflowError):
            raise Refused("out-of-range", f"{self.name} = {value!r:.60} does not fit {self.type}") from None

    def _registers(self, raw: Raw) -> bytes:
        data = self._struct.pack(raw)
        return swap_bytes(data) if self.swapped else data

    def meaning(self, value: Value) -> Value:
        """The value that is read back after this one was written: rounded as the registers round it.

        Raises:
            Refused: as `encode`.
        """
        meant = self.decode(self.encode(value))
        if isinstance(meant, Quality):
            raise Refused("out-of-range", f"{self.name} = {value!r:.60} cannot be held by {self.type}")
        return meant

    def value(self, raw: Raw) -> Value | Quality:
        """The value of what `struct` unpacked."""
        if self.type == "bool":
            return bool(raw & self.mask)
        if self.type == "string":
            return _text(raw[: self.length])
        if self.type == "bytes":
            return str(raw[: self.length].hex())
        if self.is_float:
            number = raw * self.scale + self.offset
            return number if math.isfinite(number) else Quality.NOT_A_NUMBER
        return self._integer(raw)

    def _integer(self, raw: int) -> Value | Quality:
        if self.is_field:
            raw = (raw & self.mask) >> self.shift
        if self.type.startswith("bcd"):
            digits = f"{raw:x}"
            if not digits.isdecimal():
                return Quality.OUT_OF_RANGE
            raw = int(digits)
        if self.labels:
            return self.labels.get(raw, Quality.OUT_OF_RANGE)
        return self.linear.value(raw)

    def _raw(self, value: Value) -> Raw:
        if self.type == "bool":
            return self.mask if value else 0
        if self.type == "string":
            return self._string(str(value))
        if self.type == "bytes":
            return self._bytes(str(value))
        if self.is_float:
            raw = (number(value) - self.offset) / self.scale
            if not math.isfinite(raw):
                raise OverflowError
            return raw
        raw = self._codes[str(value)] if self.labels else self.linear.raw(_number(value))
        if not self._low <= raw <= self._high:
            raise OverflowError
        return int(str(raw), 16) if self.type.startswith("bcd") else raw << self.shift

    def _string(self, text: str) -> bytes:
        data = text.encode(errors="surrogatepass")
        if len(data) > self.length:
            raise Refused("out-of-range", f"{self.name} holds at most {self.length} bytes; got {len(data)}")
        if "\0" in text:
            raise Refused("out-of-range", f"{self.name}: a NUL would end the text in the device")
        return data

    def _bytes(self, text: str) -> bytes:
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise Refused("bad-type", f"{self.name} takes hexadecimal text; got {text!r:.60}") from None
        if len(data) != self.length:
            raise Refused("out-of-range", f"{self.name} takes {self.length} bytes; got {len(data)}")
        return data


def _bit_span(point: "ModbusPoint") -> tuple[int, int]:
    if point.bit is not None:
        return point.bit, point.bit
    return point.bits or (0, 15)


def _number(value: Value) -> int | float:
    if isinstance(value, int | float):
        return value
    raise OverflowError  # no number at all: `accept` has refused it before


def _text(data: bytes) -> str | Quality:
    # Devices pad with NULs or with blanks; what is no UTF-8 is no text.
    try:
        return data.partition(b"\0")[0].decode().rstrip(" ")
    except UnicodeDecodeError:
        return Quality.OUT_OF_RANGE


class _Group:
    """Points of a block that one `struct` unpacks and one rule turns into values."""

    def __init__(self, codecs: Sequence[PointCodec], offsets: Sequence[int]) -> None:
        self.names = [codec.name for codec in codecs]
        self._codecs = codecs
        layout, end = codecs[0].endian, 0
        for codec, offset in zip(codecs, offsets, strict=True):
            layout += f"{offset * 2 - end}x{codec.format}"
            end = offset * 2 + struct.calcsize("=" + codec.format)
        self.unpack = struct.Struct(layout).unpack_from

    def decode(self, data: bytes) -> Decoded:
        return self._each(self.unpack(data))

    def _each(self, raws: tuple[Raw, ...]) -> Decoded:
        values: dict[str, Value] = {}
        bad: dict[str, Quality] = {}
        for codec, raw in zip(self._codecs, raws, strict=True):
            value = codec.value(raw)
            if isinstance(value, Quality):
                bad[codec.name] = value
            else:
                values[codec.name] = value
        return values, bad


class _Plain(_Group):
    def decode(self, data: bytes) -> Decoded:
        return dict(zip(self.names, self.unpack(data), strict=True)), {}


class _Bits(_Group):
    def __init__(self, codecs: Sequence[PointCodec], offsets: Sequence[int]) -> None:
        super().__init__(codecs, offsets)
        self._masks = [codec.mask for codec in codecs]

    def decode(self, data: bytes) -> Decoded:
        bits = [raw & mask != 0 for raw, mask in zip(self.unpack(data), self._masks, strict=True)]
        return dict(zip(self.names, bits, strict=True)), {}


class _Scaled(_Group):
    def __init__(self, codecs: Sequence[PointCodec], offsets: Sequence[int]) -> None:
        super().__init__(codecs, offsets)
        self._linear = [(codec.linear.p, codec.linear.o, codec.linear.q) for codec in codecs]

    def decode(self, data: bytes) -> Decoded:
        pairs = zip(self.unpack(data), self._linear, strict=True)
        return dict(zip(self.names, [(raw * p + o) / q for raw, (p, o, q) in pairs], strict=True)), {}


class _Floats(_Group):
    def __init__(self, codecs: Sequence[PointCodec], offsets: Sequence[int]) -> None:
        super().__init__(codecs, offsets)
        scaled = any(codec.scale != 1.0 or codec.offset != 0.0 for codec in codecs)
        self._linear = [(codec.scale, codec.offset) for codec in codecs] if scaled else None

    def decode(self, data: bytes) -> Decoded:
        raws = self.unpack(data)
        numbers: Sequence[float] = raws
        if self._linear is not None:
            numbers = [raw * scale + offset for raw, (scale, offset) in zip(raws, self._linear, strict=True)]
        if math.isfinite(sum(numbers)):  # one NaN or infinity makes the sum one
            return dict(zip(self.names, numbers, strict=True)), {}
        return self._each(raws)


def _rule(codec: PointCodec) -> type[_Group]:
    if codec.is_float:
        return _Floats
    if codec.type == "bool":
        return _Bits
    if codec.length or codec.labels or codec.is_field or codec.type.startswith("bcd"):
        return _Group
    if codec.linear.identity:
        return _Plain
    return _Group if codec.integral else _Scaled


def _groups(points: Sequence["ModbusPoint"], offsets: Sequence[int]) -> list[tuple[bool, _Group]]:
    layers: dict[tuple[bool, str, type[_Group], int], tuple[list[PointCodec], list[int]]] = {}
    for offset, _, point in sorted(zip(offsets, range(len(points)), points, strict=True)):
        codec = point.codec
        layer = 0  # points that overlap cannot stand in one format
        while True:
            codecs, places = layers.setdefault((codec.swapped, codec.endian, _rule(codec), layer), ([], []))
            if not codecs or places[-1] * 2 + struct.calcsize("=" + codecs[-1].format) <= offset * 2:
                break
            layer += 1
        codecs.append(codec)
        places.append(offset)
    return [(swapped, rule(*entry)) for (swapped, _, rule, _), entry in layers.items()]


def compile_registers(points: Sequence["ModbusPoint"], offsets: Sequence[int]) -> Decode:
    """A decoder of a block of registers; `offsets` are the points' registers in the block."""
    (first_swapped, first), *others = _groups(points, offsets)
    any_swapped = first_swapped or any(swapped for swapped, _ in others)

    def decode(data: bytes) -> Decoded:
        views = (data, swap_bytes(data) if any_swapped else data)
        values, bad = first.decode(views[first_swapped])
        for swapped, group in others:
            more, worse = group.decode(views[swapped])
            values.update(more)
            bad.update(worse)
        return values, bad

    return decode


_BITS = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))


def unpack_bits(data: bytes) -> list[bool]:
    """Bits as functions 1, 2 and 15 pack them: the first is the lowest of the first byte."""
    return list(chain.from_iterable(map(_BITS.__getitem__, data)))


def pack_bits(bits: Sequence[bool]) -> bytes:
    """The reverse of `unpack_bits`, filled up with 0."""
    return sum(1 << place for place, bit in enumerate(bits) if bit).to_bytes((len(bits) + 7) // 8, "little")


def compile_bits(points: Sequence["ModbusPoint"], offsets: Sequence[int]) -> Decode:
    """A decoder of a block of coils or discrete inputs; `offsets` are the points' places in the block."""
    names = [point.name for point in points]
    pick = itemgetter(*offsets, offsets[0])  # one more, so that it always gives a tuple

    def decode(data: bytes) -> Decoded:
        return dict(zip(names, pick(unpack_bits(data)), strict=False)), {}

    return decode
