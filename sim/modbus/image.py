"""What a simulated unit holds: its four tables, refreshed from the points' behaviours when they are read."""

import bisect
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from protocols.base import Value
from protocols.modbus.codec import PointCodec, swap_bytes
from protocols.modbus.config import ModbusDevice, ModbusPoint, Table
from sim.behaviour import Behaviour, behaviours

T = TypeVar("T")

_LARGEST = {"float16": 65504.0, "float32": struct.unpack(">f", b"\x7f\x7f\xff\xff")[0], "float64": 1.7e308}


class IllegalAddress(Exception):  # the name that the standard gives it
    """Some address of a request belongs to no point, or to none that may be written: exception 2."""


class _Spans(Generic[T]):
    """Things that lie at addresses `start` up to `end`, to be found by overlap."""

    def __init__(self, spans: Iterable[tuple[int, int, T]]) -> None:
        self._spans = sorted(spans, key=lambda span: span[:2])
        self._starts = [start for start, _, _ in self._spans]
        self._widest = max((end - start for start, end, _ in self._spans), default=0)

    def overlapping(self, start: int, end: int) -> Iterator[T]:
        first = bisect.bisect_right(self._starts, start - self._widest)
        for at, until, thing in self._spans[first : bisect.bisect_left(self._starts, end)]:
            if until > start and at < end:
                yield thing


class _Cover:
    """The addresses that some span covers."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(spans):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, span: tuple[int, int]) -> bool:
        place = bisect.bisect_right(self._starts, span[0]) - 1
        return place >= 0 and span[1] <= self._ends[place]

    @property
    def reach(self) -> tuple[int, int]:
        """The lowest address, and the one after the highest."""
        return (self._starts[0], self._ends[-1]) if self._starts else (0, 0)


class PointImage:
    """One point in its table's memory."""

    def __init__(self, device: ModbusDevice, point: ModbusPoint, behaviour: Behaviour | None) -> None:
        self.point = point
        self.behaviour = behaviour
        self.start = point.address - device.address_base
        self.end = self.start + point.width
        self.followers: list[Behaviour] = []
        self.mask = _mask(point)
        self._low, self._high = _range(point)

    @property
    def span(self) -> tuple[int, int]:
        """The first address, and the one after the last."""
        return self.start, self.end

    def bytes_of(self, value: Value) -> bytes:
        """The value in memory; a number that the type cannot hold saturates, as in a real device."""
        if self.point.is_bit:
            return b"\1" if value else b"\0"
        if self.point.kind in ("integer", "number") and isinstance(value, int | float):
            value = min(max(value, self._low), self._high)
        return self.point.codec.encode(value)

    def written(self, data: bytes, t: float) -> None:
        """Tells the points that follow this one what its memory means now."""
        value = bool(data[0]) if self.point.is_bit else self.point.codec.decode(data)
        if isinstance(value, int | float):
            for follower in self.followers:
                follower.aim(t, value)


def _mask(point: ModbusPoint) -> int:
    """The bits of the register in memory that are the point's, or 0: all that it covers."""
    if point.is_bit or not point.codec.is_field:
        return 0
    mask = struct.pack(point.codec.endian + "H", point.codec.mask)
    return int.from_bytes(swap_bytes(mask) if point.codec.swapped else mask, "big")


def _range(point: ModbusPoint) -> tuple[float, float]:
    """The lowest and highest value in engineering units that a number's type can hold."""
    if point.kind not in ("integer", "number"):
        return -math.inf, math.inf
    if point.type in _LARGEST:
        reach = _LARGEST[point.type] * abs(point.scale)
        return point.offset - reach, point.offset + reach
    low, high = map(point.codec.linear.value, PointCodec.raw_range(point))
    return min(low, high), max(low, high)


class TableImage:
    """One table of a unit: bits as a byte each, registers as two."""

    def __init__(self, points: Sequence[PointImage]) -> None:
        self._step = 1 if any(point.point.is_bit for point in points) else 2
        self._readable = _Cover(point.span for point in points)
        self._writable = _Cover(point.span for point in points if point.point.writable)
        self._base, end = self._readable.reach
        self._memory = bytearray((end - self._base) * self._step)
        for point in points:
            if point.behaviour is not None:
                self._put(point, point.behaviour.at(0.0))
        self._moving = _Spans(
            (*point.span, point) for point in points if point.behaviour and not point.behaviour.steady
        )
        self._followed = _Spans((*point.span, point) for point in points if point.followers)

    def read(self, start: int, count: int, t: float) -> bytes:
        """The memory of `count` addresses at time `t`.

        Raises:
            IllegalAddress: not all of them exist.
        """
        if (start, start + count) not in self._readable:
            raise IllegalAddress
        for point in self._moving.overlapping(start, start + count):
            assert point.behaviour is not None
            self._put(point, point.behaviour.at(t))
        return bytes(self._memory[self._place(start) : self._place(start + count)])

    def write(self, start: int, data: bytes, t: float) -> None:
        """Replaces memory, and tells the points that follow what was written.

        Raises:
            IllegalAddress: not all of the addresses may be written; none was.
        """
        end = start + len(data) // self._step
        if (start, end) not in self._writable:
            raise IllegalAddress
        self._memory[self._place(start) : self._place(end)] = data
        for point in self._followed.overlapping(start, end):
            point.written(bytes(self._memory[self._place(point.start) : self._place(point.end)]), t)

    def _place(self, address: int) -> int:
        return (address - self._base) * self._step

    def _put(self, point: PointImage, value: Value) -> None:
        place = self._place(point.start)
        data = point.bytes_of(value)
        if point.mask:
            held = int.from_bytes(self._memory[place : place + 2], "big")
            data = (held & ~point.mask | int.from_bytes(data, "big")).to_bytes(2, "big")
        self._memory[place : place + len(data)] = data


class UnitImage:
    """All tables of one unit, with the points of every device of a profile that describes it."""

    def __init__(self, devices: Sequence[ModbusDevice]) -> None:
        points = [point for device in devices for point in _images(device)]
        self._tables = {
            table: TableImage([one for one in points if one.point.table == table]) for table in _TABLES
        }
        self.names = [device.name for device in devices]

    def __getitem__(self, table: Table) -> TableImage:
        return self._tables[table]


_TABLES: tuple[Table, ...] = ("coil", "discrete", "input", "holding")


def _images(device: ModbusDevice) -> Sequence[PointImage]:
    made = behaviours(device)
    images = {name: PointImage(device, point, made.get(name)) for name, point in device.points.items()}
    for behaviour in made.values():
        if behaviour.follows is not None:
            images[behaviour.follows].followers.append(behaviour)
            start = made[behaviour.follows].at(0.0)
            assert isinstance(start, int | float)  # only numbers and booleans are followed
            behaviour.aim(0.0, start)
    return list(images.values())
