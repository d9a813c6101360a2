"""Frames as SocketCAN has them (linux/can.h: can_frame, canfd_frame), and which of them a bus can carry."""

import struct
from typing import Final

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
    format_id,
)

CLASSIC: Final = struct.Struct("=IBBxx8s")
"""can_id, len, padding, data. len8_dlc (a data length code of 9 to 15 for 8 bytes) is not kept."""
FD: Final = struct.Struct("=IBBxx64s")
"""can_id, len, flags, data."""
FD_MTU: Final = FD.size
"""MTU of an interface that carries CAN FD (CANFD_MTU)."""

MAX_CLASSIC: Final = 8
"""Bytes of payload in a classical frame."""


def pack(frame: Frame) -> bytes:
    """The frame as the kernel takes it; `why_unsendable` has to be empty."""
    if frame.flags & FDF:
        return FD.pack(frame.can_id, len(frame.data), frame.flags & (BRS | ESI | FDF), frame.data)
    return CLASSIC.pack(frame.can_id, len(frame.data), 0, frame.data)


def why_unsendable(frame: Frame, fd: bool) -> str:
    """Why a bus (that carries CAN FD or does not) cannot carry this frame; empty if it can."""
    name, length = format_id(frame.can_id), len(frame.data)
    largest = EXTENDED_MASK if frame.can_id & EXTENDED else STANDARD_MASK
    if frame.can_id & ERROR:
        return "error frames are told by a controller and cannot be sent"
    if not 0 <= frame.can_id & ~(EXTENDED | REMOTE) <= largest:
        return f"an identifier of {29 if frame.can_id & EXTENDED else 11} bits is at most 0x{largest:X}"
    if not frame.flags & FDF:
        if frame.flags & (BRS | ESI):
            return f"{name}: only CAN FD frames have BRS and ESI"
        if length > MAX_CLASSIC:
            return f"{name}: a classical frame holds at most 8 bytes, not {length}"
        return ""
    if not fd:
        return f"{name} is a CAN FD frame, and the profile does not say fd: true"
    if frame.can_id & REMOTE:
        return f"{name}: CAN FD has no remote frames"
    if length not in FD_LENGTHS:
        return f"{name}: a CAN FD frame holds 0 to 8, 12, 16, 20, 24, 32, 48 or 64 bytes, not {length}"
    return ""
