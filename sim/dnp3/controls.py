"""Controls as a request carries them: read, judged, and echoed with a status each. Pure."""

import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from py1815.control import CommandStatus, OperationType, TripCloseCode

from protocols.dnp3.objects import ANALOG_COMMAND, CROB, LAYOUTS, Iin, PointType

_INDEX: Final = {0x17: 1, 0x28: 2}
"""Octets of the count and of each index, by qualifier."""
_ANALOG_GROUP: Final = 41
_ANALOG_FORMAT: Final[Mapping[int, str]] = {
    ANALOG_COMMAND["int32"]: "<i",
    ANALOG_COMMAND["int16"]: "<h",
    ANALOG_COMMAND["float32"]: "<f",
    ANALOG_COMMAND["float64"]: "<d",
}
_QUEUE_BIT: Final = 0x10
_CLEAR_BIT: Final = 0x20


class Malformed(Exception):
    """A request whose controls cannot be told apart: none of them is carried out."""

    def __init__(self, iin: Iin) -> None:
        super().__init__(str(iin))
        self.iin = iin


@dataclasses.dataclass(frozen=True, slots=True)
class Control:
    """One control of a request."""

    kind: PointType
    index: int
    status_at: int
    """Where in the request's objects its status octet lies."""
    value: float = 0.0
    """Of an analog output: what is written."""
    code: int = 0
    count: int = 0
    on_ms: int = 0
    off_ms: int = 0

    @property
    def operation(self) -> int:
        """Operation type of a control relay output block, as `py1815.control.OperationType`."""
        return self.code & 0x0F

    @property
    def trip_close(self) -> int:
        """Trip-close code, as `py1815.control.TripCloseCode`."""
        return self.code >> 6

    @property
    def clear(self) -> bool:
        """What is going on at the point is to be cancelled first."""
        return bool(self.code & _CLEAR_BIT)

    def judged(self) -> CommandStatus:
        """What an outstation that has the point thinks of the control itself."""
        if self.kind == "analog_output":
            return CommandStatus.SUCCESS if math.isfinite(self.value) else CommandStatus.OUT_OF_RANGE
        if self.code & _QUEUE_BIT:
            return CommandStatus.FORMAT_ERROR
        paired = self.trip_close in (TripCloseCode.CLOSE, TripCloseCode.TRIP)
        if paired and self.operation in (OperationType.NUL, OperationType.PULSE_ON):
            return CommandStatus.SUCCESS
        if self.trip_close == TripCloseCode.NUL and self.operation <= OperationType.LATCH_OFF:
            nothing = self.operation == OperationType.NUL and not self.clear
            return CommandStatus.NOT_SUPPORTED if nothing else CommandStatus.SUCCESS
        return CommandStatus.NOT_SUPPORTED


def parse(body: bytes) -> list[Control]:
    """The controls of a request's objects.

    Raises:
        Malformed: a group that is no control, a qualifier without indices, or too few octets.
    """
    controls: list[Control] = []
    at = 0
    while at < len(body):
        at = _header(body, at, controls)
    if not controls:
        raise Malformed(Iin.PARAMETER_ERROR)
    return controls


def _header(body: bytes, at: int, controls: list[Control]) -> int:
    if len(body) - at < 3:
        raise Malformed(Iin.PARAMETER_ERROR)
    group, variation, qualifier = body[at : at + 3]
    if (group, variation) != CROB and (group != _ANALOG_GROUP or variation not in _ANALOG_FORMAT):
        raise Malformed(Iin.OBJECT_UNKNOWN)
    width = _INDEX.get(qualifier)
    if width is None or len(body) < at + 3 + width:
        raise Malformed(Iin.PARAMETER_ERROR)
    count = int.from_bytes(body[at + 3 : at + 3 + width], "little")
    at += 3 + width
    size = LAYOUTS[group, variation].opaque
    if len(body) < at + count * (width + size):
        raise Malformed(Iin.PARAMETER_ERROR)
    for _ in range(count):
        index = int.from_bytes(body[at : at + width], "little")
        at += width
        status_at = at + size - 1
        if group == _ANALOG_GROUP:
            (value,) = struct.unpack_from(_ANALOG_FORMAT[variation], body, at)
            controls.append(Control("analog_output", index, status_at, value))
        else:
            code, repeats, on_ms, off_ms = struct.unpack_from("<BBII", body, at)
            controls.append(Control("binary_output", index, status_at, 0.0, code, repeats, on_ms, off_ms))
        at += size
    return at


def echo(body: bytes, controls: Sequence[Control], statuses: Sequence[CommandStatus]) -> bytes:
    """The request's objects as they came, with a status in each."""
    answer = bytearray(body)
    for control, status in zip(controls, statuses, strict=True):
        answer[control.status_at] = status
    return bytes(answer)
