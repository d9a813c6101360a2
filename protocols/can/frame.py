"""A CAN frame as everything in this package passes it on, and how identifiers are written.

Identifier bits and flags are those of Linux (`linux/can.h`), so that nothing is converted on the way from a
socket to a pcap file.
"""

import re
from typing import Any, Final, NamedTuple

EXTENDED: Final = 0x8000_0000
"""Bit of `can_id`: the identifier has 29 bits (CAN_EFF_FLAG)."""
REMOTE: Final = 0x4000_0000
"""Bit of `can_id`: a remote transmission request (CAN_RTR_FLAG)."""
ERROR: Final = 0x2000_0000
"""Bit of `can_id`: an error frame, told by the controller and not seen on the bus (CAN_ERR_FLAG)."""
STANDARD_MASK: Final = 0x7FF
EXTENDED_MASK: Final = 0x1FFF_FFFF

BRS: Final = 0x01
"""Flag: the data of this FD frame went at the data bit rate (CANFD_BRS)."""
ESI: Final = 0x02
"""Flag: the sender of this FD frame is error passive (CANFD_ESI)."""
FDF: Final = 0x04
"""Flag: a CAN FD frame (CANFD_FDF)."""
OWN: Final = 0x100
"""Flag: sent by this agent, and seen again because the bus took it."""
LOCAL: Final = 0x200
"""Flag: sent by another program on this machine."""

FD_LENGTHS: Final = (*range(9), 12, 16, 20, 24, 32, 48, 64)
"""Payload lengths that a frame can have (ISO 11898-1, table of data length codes); classical CAN: up to 8."""


class Frame(NamedTuple):
    """One frame on a bus.

    `time_ns` is UTC in nanoseconds since 1970, 0 for one that is yet to be sent. `can_id` is the identifier
    (11 or 29 bits) with EXTENDED, REMOTE and ERROR. `data` of a remote frame is as many zeros as it asks for.
    """

    time_ns: int
    can_id: int
    data: bytes
    flags: int = 0

    @property
    def identifier(self) -> int:
        """The arbitration id without flags."""
        return self.can_id & (EXTENDED_MASK if self.can_id & EXTENDED else STANDARD_MASK)


def format_id(can_id: int) -> str:
    """An arbitration id for people: 3 hex digits, or 8 where it has 29 bits."""
    return f"{can_id & EXTENDED_MASK:08X}" if can_id & EXTENDED else f"{can_id & STANDARD_MASK:03X}"


_ID = re.compile(r"(?!0x$)(?:0x)?([0-9a-fA-F]{1,8})(x?)")


def parse_id(text: Any) -> int:
    """The arbitration id in `0x123`, `123` (hex too), `18DAF110x` or a plain number of a profile.

    It has 29 bits where it is over 0x7FF, has 8 hex digits (as candump writes it) or ends in `x`.

    Raises:
        ValueError: it is none.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        identifier, extended = text, text > STANDARD_MASK
    elif isinstance(text, str) and (match := _ID.fullmatch(text.strip())):
        identifier = int(match[1], 16)
        extended = identifier > STANDARD_MASK or len(match[1]) == 8 or bool(match[2])
    else:
        raise ValueError("an arbitration id is written such as 0x123, or 0x18DAF110 or 0x123x for 29 bits")
    if not 0 <= identifier <= EXTENDED_MASK:
        raise ValueError(f"an arbitration id is at most 0x{EXTENDED_MASK:X}")
    return int(identifier) | (EXTENDED if extended else 0)
