"""Between python-can's `Message` and `Frame`. Pure."""

import operator
import time
from typing import TYPE_CHECKING, Final

import structlog

from protocols.can.frame import (
    BRS,
    ERROR,
    ESI,
    EXTENDED,
    EXTENDED_MASK,
    FD_LENGTHS,
    FDF,
    REMOTE,
    STANDARD_MASK,
    Frame,
)

if TYPE_CHECKING:
    import can

ERROR_PROTOCOL: Final = 0x08
"""Class of an error frame: protocol violation, which one is not told (CAN_ERR_PROT of linux/can/error.h)."""

_ERROR_LENGTH: Final = 8
_APART_MOST_NS: Final = 5_000_000_000


def frame_of(message: "can.Message", time_ns: int, linux_errors: bool) -> Frame:
    """The frame that a message is.

    `linux_errors`: the content of the interface's error frames is that of linux/can/error.h. Elsewhere it is
    each vendor's own, and only that there was one is kept.

    Raises:
        ValueError: no frame can be so; python-can does not look.
        TypeError: nor of such types, which some interfaces take from the line.
    """
    identifier, data = int(operator.index(message.arbitration_id)), bytes(message.data)
    length = operator.index(message.dlc)
    if message.is_error_frame:
        if not linux_errors:
            return Frame(time_ns, ERROR | ERROR_PROTOCOL, bytes(_ERROR_LENGTH))
        if len(data) > _ERROR_LENGTH:
            raise ValueError(f"an error frame of {len(data)} bytes")
        return Frame(time_ns, ERROR | identifier & EXTENDED_MASK, data.ljust(_ERROR_LENGTH, b"\0"))
    highest = EXTENDED_MASK if message.is_extended_id else STANDARD_MASK
    if not 0 <= identifier <= highest:
        raise ValueError(f"an arbitration id of 0x{identifier:X}")
    if message.is_extended_id:
        identifier |= EXTENDED
    if message.is_fd:
        if message.is_remote_frame or length not in FD_LENGTHS or len(data) != length:
            raise ValueError(f"a CAN FD frame of {length} bytes with {len(data)}")
        flags = FDF
        if message.bitrate_switch:
            flags |= BRS
        if message.error_state_indicator:
            flags |= ESI
        return Frame(time_ns, identifier, data, flags)
    if not 0 <= length <= 8:
        raise ValueError(f"a frame of {length} bytes")
    if message.is_remote_frame:
        return Frame(time_ns, identifier | REMOTE, bytes(length))
    if len(data) != length:
        raise ValueError(f"a frame of {length} bytes with {len(data)}")
    return Frame(time_ns, identifier, data)


def message_of(frame: Frame) -> "can.Message":
    """The message that sends a frame."""
    import can

    remote = bool(frame.can_id & REMOTE)
    return can.Message(
        arbitration_id=frame.identifier,
        is_extended_id=bool(frame.can_id & EXTENDED),
        is_remote_frame=remote,
        dlc=len(frame.data),
        data=None if remote else frame.data,
        is_fd=bool(frame.flags & FDF),
        bitrate_switch=bool(frame.flags & BRS),
        error_state_indicator=bool(frame.flags & ESI),
        is_rx=False,
    )


class Stamps:
    """The time of frames: the interface's own as long as that is UTC, else when the host got them.

    Some interfaces count from their own start or the host's; one stamp that is over 5 s off tells.
    """

    def __init__(self, bus: str) -> None:
        self._bus = bus
        self._trusted = True

    def of(self, message: "can.Message") -> int:
        """Nanoseconds since 1970."""
        now = time.time_ns()
        if self._trusted:
            stamp = message.timestamp * 1e9
            # Written so that one which is not a number fails.
            if abs(stamp - now) <= _APART_MOST_NS:
                return round(stamp)
            self._trusted = False
            structlog.get_logger("can").warning(
                "the interface's stamps are not UTC: the host's clock is taken instead",
                bus=self._bus,
                stamp_s=message.timestamp,
            )
        return now
