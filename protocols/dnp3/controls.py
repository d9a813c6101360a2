"""Controls as octets: what a write of a point sends, and what an outstation's echo says of each. Pure.

A control is answered by itself with its status in the last octet (IEEE 1815-2012, annex A, groups 12, 41).
"""

import enum
import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from py1815.control import AnalogOutput, ControlRelayOutputBlock, encode_analog_output, encode_crob

from protocols.base import Value
from protocols.dnp3 import objects
from protocols.dnp3.fragment import Block, Reply
from protocols.dnp3.point import Dnp3Point, Operation

MOST_CONTROLS: Final = 100
"""Controls in one request: with whatever headers they fit the 2048 octets that outstations take."""

_ANALOG_COMMAND_GROUP: Final = 41


class Code(enum.IntEnum):
    """Control codes: operation type in bits 0 to 3, clear in bit 5, trip/close code in bits 6 and 7."""

    PULSE_ON = 0x01
    PULSE_OFF = 0x02
    LATCH_ON = 0x03
    LATCH_OFF = 0x04
    CLOSE = 0x41
    TRIP = 0x81


_CLEAR: Final = 0x20

_CODES: Final[dict[Operation, tuple[Code, Code]]] = {
    "latch": (Code.LATCH_OFF, Code.LATCH_ON),
    "pulse": (Code.PULSE_OFF, Code.PULSE_ON),
    "pulse-on": (Code.PULSE_ON, Code.PULSE_ON),  # false was refused by the point
    "trip-close": (Code.TRIP, Code.CLOSE),
}


class Control(msgspec.Struct, frozen=True):
    """One control, as it is sent."""

    name: str
    """As people call it: the point's name."""
    group: int
    variation: int
    index: int
    octets: bytes
    """The object, its status 0."""


def relay(
    name: str,
    index: int,
    code: int,
    *,
    count: int = 1,
    on_s: float = 0.0,
    off_s: float = 0.0,
    clear: bool = False,
) -> Control:
    """A control relay output block; times in seconds, sent in milliseconds."""
    block = ControlRelayOutputBlock(
        code | (_CLEAR if clear else 0), count, round(on_s * 1000), round(off_s * 1000)
    )
    return Control(name, *objects.CROB, index, encode_crob(block))


def setpoint(name: str, index: int, output: objects.AnalogOutput, raw: float) -> Control:
    """An analog output.

    Raises:
        ControlError: the raw value does not fit the output.
    """
    variation = objects.ANALOG_COMMAND[output]
    return Control(
        name, _ANALOG_COMMAND_GROUP, variation, index, encode_analog_output(AnalogOutput(raw, variation))
    )


def control_of(point: Dnp3Point, value: Value) -> Control:
    """What a write of this value, which the point has accepted, sends."""
    if point.type == "analog_output":
        return setpoint(point.name, point.index, point.output, point.raw_of(value))
    return relay(
        point.name,
        point.index,
        _CODES[point.operation][bool(value)],
        count=point.count,
        on_s=point.on_time,
        off_s=point.off_time,
        clear=point.clear,
    )


def encode(controls: Sequence[Control]) -> bytes:
    """Object headers and objects of a request, in this order.

    Neighbours of one group and variation share a header: qualifier 17, or 28 where an index or the count
    needs 16 bits.
    """
    return b"".join(
        _with_header(*key, list(run))
        for key, run in groupby(controls, lambda one: (one.group, one.variation))
    )


def _with_header(group: int, variation: int, run: Sequence[Control]) -> bytes:
    narrow = len(run) < 256 and all(one.index < 256 for one in run)
    number = "<B" if narrow else "<H"
    head = bytes((group, variation, 0x17 if narrow else 0x28)) + struct.pack(number, len(run))
    return head + b"".join(struct.pack(number, one.index) + one.octets for one in run)


def statuses(controls: Sequence[Control], reply: Reply) -> list[int | None]:
    """The status that the echo gives each control; None where it is not the echo of that control.

    An echo holds the same controls in the same order. One that holds more, or anything that cannot be read,
    answers something else than this request and counts for none.
    """
    echoes = list(_echoes(reply.blocks))
    if reply.problem or len(echoes) > len(controls):
        return [None] * len(controls)
    found: list[int | None] = [
        octets[-1]
        if key == (one.group, one.variation, one.index) and octets[:-1] == one.octets[:-1]
        else None
        for one, (key, octets) in zip(controls, echoes, strict=False)
    ]
    return found + [None] * (len(controls) - len(found))


def _echoes(blocks: Sequence[Block]) -> Iterator[tuple[tuple[int, int, int], Any]]:
    for block in blocks:
        if not block.indices:  # a time, say: no control, and so no echo of one
            yield (block.group, block.variation, -1), b""
        for index, octets in zip(block.indices, block.values, strict=False):
            yield (block.group, block.variation, index), octets
