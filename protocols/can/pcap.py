"""Raw frames as little pcap files: the bodies of `frames` events (wire.md section 2). Pure.

Nanosecond pcap (draft-ietf-opsawg-pcap) with link type 227, LINKTYPE_CAN_SOCKETCAN: each packet is the
kernel's `struct can_frame` or `struct canfd_frame` with the identifier in network byte order, just as tcpdump
captures them.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from protocols.can.frame import FDF, Frame

_HEADER: Final = struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 0x40000, 227)
_CLASSICAL: Final = struct.Struct(">IIIIIBBBB8s").pack
_FD: Final = struct.Struct(">IIIIIBBBB64s").pack
_FD_SIZE: Final = 72
_FD_FLAGS: Final = 0x07
_SECOND: Final = 1_000_000_000

_CLASSICAL_RECORD: Final = 32
RECORD_MOST: Final = 16 + _FD_SIZE
"""Bytes that a frame takes at most."""


Emit = Callable[[bytes, int], None]
"""Takes a complete file and the time of its first frame."""


class Gatherer:
    """Collects records until they are emitted as one file, at the latest when `most` bytes are reached."""

    def __init__(self, most: int, emit: Emit) -> None:
        self._room = most - len(_HEADER) - RECORD_MOST
        self._emit = emit
        self._records: list[bytes] = []
        self._bytes = 0
        self._first_ns = 0

    def extend(self, frames: Sequence[Frame]) -> None:
        """Takes frames; may emit at once, also more than once."""
        records, room = self._records, self._room
        for time_ns, can_id, data, flags in frames:
            if not records:
                self._first_ns = time_ns
            seconds, nanoseconds = divmod(time_ns, _SECOND)
            if flags & FDF:
                fd_flags = flags & _FD_FLAGS
                records.append(
                    _FD(seconds, nanoseconds, _FD_SIZE, _FD_SIZE, can_id, len(data), fd_flags, 0, 0, data)
                )
                self._bytes += RECORD_MOST
            else:
                records.append(_CLASSICAL(seconds, nanoseconds, 16, 16, can_id, len(data), 0, 0, 0, data))
                self._bytes += _CLASSICAL_RECORD
            if self._bytes > room:
                self.flush()
                records = self._records

    @property
    def empty(self) -> bool:
        """Nothing waits to be emitted."""
        return not self._records

    def flush(self) -> None:
        """Emits what was gathered, if anything."""
        if self._records:
            body = _HEADER + b"".join(self._records)
            self._records, self._bytes = [], 0
            self._emit(body, self._first_ns)
