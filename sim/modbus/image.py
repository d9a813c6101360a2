"""What a simulated unit holds: its four tables, refreshed from the points' behaviours when they are read."""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from protocols.modbus.config import ModbusDevice, ModbusPoint, Table
from sim.behaviour import Behaviour, behaviours
from sim.modbus.encoder import encoder, field_mask

T = TypeVar("T")


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
    """One point as a unit has it: its addresses, its behaviour, and the behaviours that follow it."""

    def __init__(self, device: ModbusDevice, point: ModbusPoint, behaviour: Behaviour | None) -> None:
        self.point = point
        self.behaviour = behaviour
        self.start = point.address - device.address_base
        self.end = self.start + point.width
        self.followers: list[Behaviour] = []

    @property
    def span(self) -> tuple[int, int]:
        """The first address, and the one after the last."""
        return self.start, self.end

    def written(self, data: bytes, t: float) -> None:
        """Tells the points that follow this one what its memory means now."""
        value = bool(data[0]) if self.point.is_bit else self.point.codec.decode(data)
        if isinstance(value, int | float):
            for follower in self.followers:
                follower.aim(t, value)


class TableImage:
    """One table of a unit: bits as a byte each, registers as two."""

    def __init__(self, points: Sequence[PointImage]) -> None:
        self._step = 1 if any(point.point.is_bit for point in points) else 2
        self._readable = _Cover(point.span for point in points)
        self._writable = _Cover(point.span for point in points if point.point.writable)
        self._base, end = self._readable.reach
        self._memory = bytearray((end - self._base) * self._step)
        moving = []
        for point in points:
            if point.behaviour is not None:
                refresh = self._refresher(point, point.behaviour)
                refresh(0.0)
                if not point.behaviour.steady:
                    moving.append((*point.span, refresh))
        self._moving = _Spans(moving)
        self._followed = _Spans((*point.span, point) for point in points if point.followers)

    def read(self, start: int, count: int, t: float) -> bytes:
        """The memory of `count` addresses at time `t`.

        Raises:
            IllegalAddress: not all of them exist.
        """
        end = start + count
        if (start, end) not in self._readable:
            raise IllegalAddress
        for refresh in self._moving.overlapping(start, end):
            refresh(t)
        return bytes(self._memory[self._place(start, end)])

    def write(self, start: int, data: bytes, t: float) -> None:
        """Replaces memory, and tells the points that follow what was written.

        Raises:
            IllegalAddress: not all of the addresses may be written; none was.
        """
        end = start + len(data) // self._step
        if (start, end) not in self._writable:
            raise IllegalAddress
        self._memory[self._place(start, end)] = data
        for point in self._followed.overlapping(start, end):
            point.written(bytes(self._memory[self._place(*point.span)]), t)

    def _place(self, start: int, end: int) -> slice:
        return slice((start - self._base) * self._step, (end - self._base) * self._step)

    def _refresher(self, point: PointImage, behaviour: Behaviour) -> Callable[[float], None]:
        """Makes the function that brings the point's memory to a time."""
        memory, place = self._memory, self._place(*point.span)
        at, encode, mask = behaviour.at, encoder(point.point), field_mask(point.point)

        def refresh(t: float) -> None:
            memory[place] = encode(at(t))

        def refresh_field(t: float) -> None:
            others = int.from_bytes(memory[place], "big") & ~mask
            memory[place] = (others | int.from_bytes(encode(at(t)), "big")).to_bytes(2, "big")

        return refresh_field if mask else refresh


class UnitImage:
    """All tables of one unit, with the points of every device of a profile that describes it."""

    def __init__(self, devices: Sequence[ModbusDevice]) -> None:
        points = [point for device in devices for point in _images(device)]
        self._tables = {
            table: TableImage([one for one in points if one.point.table == table]) for table in _TABLES
        }

    def __getitem__(self, table: Table) -> TableImage:
        return self._tables[table]


_TABLES: tuple[Table, ...] = ("coil", "discrete", "input", "holding")


def _images(device: ModbusDevice) -> Sequence[PointImage]:
    made = behaviours(device)
    images = {name: PointImage(device, point, made.get(name)) for name, point in device.points.items()}
    for behaviour in made.values():
        if behaviour.follows is not None:
            images[behaviour.follows].followers.append(behaviour)
    return list(images.values())
