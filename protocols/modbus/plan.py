"""Which requests serve these points. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from protocols.base import PlannedRequest
from protocols.modbus.config import ModbusDevice, ModbusPoint, Table

READ_FUNCTIONS: dict[Table, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_BITS_PER_REGISTER = 16


class Limits(NamedTuple):
    """How far points may be put together: addresses in one request, and unused ones between two points."""

    registers: int
    bits: int
    gap: int

    @classmethod
    def of(cls, device: ModbusDevice) -> "Limits":
        """The limits that a device's profile sets."""
        return cls(device.max_registers, device.max_bits, device.gap)


class Block(msgspec.Struct, frozen=True):
    """Addresses that one request reads; `start` counts from 0, as on the wire."""

    table: Table
    start: int
    count: int
    points: tuple[ModbusPoint, ...]
    offsets: tuple[int, ...]

    @property
    def function(self) -> int:
        """The function code that reads the table."""
        return READ_FUNCTIONS[self.table]


class Poll(msgspec.Struct, frozen=True):
    """Blocks that are read together, once each `period` seconds."""

    period: float
    blocks: tuple[Block, ...]


def join(points: Iterable[ModbusPoint], base: int, limits: Limits) -> list[Block]:
    """The fewest blocks that read all points and no more than `limits.gap` unused addresses in a row.

    Sorted by start, each block takes what still fits: a point that could have gone into an earlier block
    fits into the later one too, so that no other division has fewer.
    """
    blocks: list[Block] = []
    by_table: dict[Table, list[ModbusPoint]] = {}
    for point in points:
        by_table.setdefault(point.table, []).append(point)
    for table, members in by_table.items():
        bits = table in ("coil", "discrete")
        most = limits.bits if bits else limits.registers
        gap = limits.gap * _BITS_PER_REGISTER if bits else limits.gap
        group: list[ModbusPoint] = []
        end = 0
        for point in sorted(members, key=lambda member: (member.address, member.width)):
            after = point.address + point.width
            if group and (point.address > end + gap or after > group[0].address + most):
                blocks.append(_block(group, base))
                group = []
            end = max(end, after) if group else after
            group.append(point)
        blocks.append(_block(group, base))
    return blocks


def alone(points: Iterable[ModbusPoint], base: int) -> list[Block]:
    """One block for each point."""
    return [_block([point], base) for point in points]


def _block(points: Sequence[ModbusPoint], base: int) -> Block:
    start = points[0].address
    return Block(
        table=points[0].table,
        start=start - base,
        count=max(point.address + point.width for point in points) - start,
        points=tuple(points),
        offsets=tuple(point.address - start for point in points),
    )


def blocks_of(device: ModbusDevice, points: Iterable[ModbusPoint]) -> list[Block]:
    """The blocks that read some points of a device, as its profile allows."""
    if device.one_request_per_point:
        return alone(points, device.address_base)
    return join(points, device.address_base, Limits.of(device))


def polls_of(device: ModbusDevice) -> list[Poll]:
    """What is polled how often; points of one rate go together, the fastest first."""
    rates: dict[float, list[ModbusPoint]] = {}
    for point in device.points.values():
        if point.readable:
            rates.setdefault(point.poll or device.poll, []).append(point)
    return [Poll(period, tuple(blocks_of(device, points))) for period, points in sorted(rates.items())]


def describe(device: ModbusDevice) -> list[PlannedRequest]:
    """The poll plan as people read it; addresses as the profile counts them."""
    base = device.address_base
    return [_describe(block, base, poll.period) for poll in polls_of(device) for block in poll.blocks]


def _describe(block: Block, base: int, period: float) -> PlannedRequest:
    bits = block.table in ("coil", "discrete")
    first = block.start + base
    span = f"{first}..{first + block.count - 1}" if block.count > 1 else f"{first}"
    return PlannedRequest(
        what=f"read {block.table} {span} (function {block.function})",
        points=tuple(point.name for point in block.points),
        size=block.count,
        size_unit="bits" if bits else "registers",
        period=period,
    )
