"""Which requests carry out a write. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import msgspec

from protocols.base import Value
from protocols.modbus import pdu
from protocols.modbus.codec import pack_bits
from protocols.modbus.config import ModbusDevice, ModbusPoint

Kind = Literal["coils", "registers", "mask"]


class Step(msgspec.Struct, frozen=True):
    """One request's worth of a write; `start` counts from 0, as on the wire.

    `data` is packed coils or registers; of a mask it is one register with the bits to set, and `mask` has
    all bits that change.
    """

    kind: Kind
    start: int
    count: int
    data: bytes
    points: tuple[str, ...]
    mask: int = 0xFFFF


class _Item(NamedTuple):
    place: int
    kind: Kind
    point: ModbusPoint
    value: Value

    @property
    def end(self) -> int:
        return self.point.address + self.point.width


def steps(device: ModbusDevice, values: Mapping[str, Value]) -> list[Step]:
    """The fewest steps that write the values: neighbours go together, in the order of their first one.

    Raises:
        Refused: a value that its point cannot hold.
    """
    items = [_item(device.points[name], place, value) for place, (name, value) in enumerate(values.items())]
    groups: list[list[_Item]] = []
    for kind, members in groupby(
        sorted(items, key=lambda item: (item.kind, item.point.address)), lambda i: i.kind
    ):
        groups.extend(_neighbours(device, kind, members))
    groups.sort(key=lambda group: min(item.place for item in group))
    return [_step(group, device.address_base) for group in groups]


def _item(point: ModbusPoint, place: int, value: Value) -> _Item:
    if point.is_bit:
        return _Item(place, "coils", point, value)
    return _Item(place, "mask" if point.codec.is_field else "registers", point, value)


def _neighbours(device: ModbusDevice, kind: Kind, items: Iterator[_Item]) -> Iterator[list[_Item]]:
    most = min(pdu.MAX_WRITE_BITS, device.max_bits)
    if kind == "registers":
        most = min(pdu.MAX_WRITE_REGISTERS, device.max_registers)
    group: list[_Item] = []
    for item in items:
        if group and not _joins(device, kind, group, item, most):
            yield group
            group = []
        group.append(item)
    yield group


def _joins(device: ModbusDevice, kind: Kind, group: Sequence[_Item], item: _Item, most: int) -> bool:
    first = group[0].point
    if kind == "mask":
        return item.point.address == first.address
    fits = item.end - first.address <= most and not device.one_request_per_point
    return fits and item.point.address == group[-1].end


def _step(group: Sequence[_Item], base: int) -> Step:
    kind, first = group[0].kind, group[0].point
    start = first.address - base
    points = tuple(item.point.name for item in group)
    count = group[-1].end - first.address
    if kind == "coils":
        return Step(kind, start, count, pack_bits([bool(item.value) for item in group]), points)
    if kind == "registers":
        return Step(
            kind, start, count, b"".join(item.point.codec.encode(item.value) for item in group), points
        )
    bits = mask = 0
    for item in sorted(group, key=lambda item: item.place):  # where fields overlap, the last one given holds
        field = item.point.codec.wire_mask
        bits = bits & ~field | int.from_bytes(item.point.codec.encode(item.value))
        mask |= field
    return Step(kind, start, 1, bits.to_bytes(2), points, mask)
