"""Frames out of a socket, many at a time: `recvmmsg(2)` into arrays that are used again and again.

It knows of no bus: any socket will do whose datagrams are `struct can_frame` or `struct canfd_frame`.
"""

import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Final

from protocols.can.buses.layout import CLASSIC, FD, MAX_CLASSIC
from protocols.can.frame import BRS, ERROR, ESI, FDF, LOCAL, OWN, REMOTE, Frame

BATCH: Final = 128
"""Most frames of one call."""

# asm-generic/socket.h and linux/net_tstamp.h; Python's socket module has none of them.
SO_TIMESTAMPNS: Final = 35
SO_TIMESTAMPING: Final = 37
SO_RXQ_OVFL: Final = 40
SO_MEMINFO: Final = 55
_STAMP_RX_HARDWARE, _STAMP_RX_SOFTWARE, _STAMP_SOFTWARE, _STAMP_RAW_HARDWARE = 1 << 2, 1 << 3, 1 << 4, 1 << 6
_MEMINFO: Final = struct.Struct("=32xI")
"""Of what SO_MEMINFO gives, SK_MEMINFO_DROPS (linux/sock_diag.h): the counter that SO_RXQ_OVFL shows."""

_MSG_DONTROUTE: Final = 0x04
_MSG_CONFIRM: Final = 0x800
_SENT: Final = _MSG_DONTROUTE | _MSG_CONFIRM
_SENDER: Final = {0: 0, _MSG_DONTROUTE: LOCAL, _MSG_CONFIRM: OWN, _SENT: OWN}
"""Who sent a frame, by its message flags (kernel documentation, networking/can, chapter 4.1.7)."""

# Native sizes and alignment (`@`), so that this is right on 32-bit machines too; `0P` pads at the end.
_VECTOR: Final = struct.Struct("@PN")
_HEADER: Final = struct.Struct("@PIPNPNi0PI0P")
"""struct mmsghdr: name, its length, vectors, their number, control, its length, flags; bytes received."""
_GOT: Final = struct.Struct(f"@{struct.calcsize('@PIPNP')}xNi0PI0P")
"""Of that what a call fills in: length of the control messages, flags, bytes received."""


def _control(data: str) -> str:
    """A control message (struct cmsghdr: length, level, type) whose data alone is unpacked; padded."""
    return f"{struct.calcsize('@Nii')}x{data}0N"


_DROPS: Final = _control("I")
_STAMP: Final = _control("ll")
"""Data of SO_TIMESTAMPNS: struct timespec."""
_STAMPS: Final = _control(f"ll{struct.calcsize('@ll')}xll")
"""Data of SO_TIMESTAMPING: three of struct timespec; of software, no longer used, of hardware."""


class Receiver:
    """Reads frames from a non-blocking datagram socket, which stays its owner's.

    Of the last batch, `gaps` says before which index how many frames are missing: lost because the socket's
    buffer was full (by the kernel's counter, SO_RXQ_OVFL), or because a datagram was no frame. `marked` has
    the indices of frames that we sent ourselves, and of error frames.
    """

    def __init__(self, sock: socket.socket, *, fd: bool = False, hardware: bool = False) -> None:
        """`fd`: frames can be of CAN FD; `hardware`: take the controller's stamp of a frame that has one."""
        self.gaps: list[tuple[int, int]] = []
        self.marked: list[int] = []
        self.dropped = 0
        """Frames lost so far, also beyond the 32 bits of the kernel's counter."""
        self._socket = sock
        self._hardware = hardware
        self._counter = 0
        if hardware:
            wanted = _STAMP_RX_HARDWARE | _STAMP_RX_SOFTWARE | _STAMP_SOFTWARE | _STAMP_RAW_HARDWARE
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, wanted)
        else:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        stamp = _STAMPS if hardware else _STAMP
        self._stamped = struct.calcsize(f"@{stamp}")
        self._slot = struct.Struct(f"@{stamp}{_DROPS}")
        self._layout = FD if fd else CLASSIC
        frames = ctypes.create_string_buffer(BATCH * self._layout.size)
        control = ctypes.create_string_buffer(BATCH * self._slot.size)
        self._vectors = ctypes.create_string_buffer(BATCH * _VECTOR.size)
        self._headers = ctypes.create_string_buffer(BATCH * _HEADER.size)
        starts = [ctypes.addressof(array) for array in (frames, control, self._vectors)]
        for n in range(BATCH):
            frame, slot, vector = (
                start + n * size
                for start, size in zip(
                    starts, (self._layout.size, self._slot.size, _VECTOR.size), strict=True
                )
            )
            _VECTOR.pack_into(self._vectors, n * _VECTOR.size, frame, self._layout.size)
            _HEADER.pack_into(self._headers, n * _HEADER.size, 0, 0, vector, 1, slot, self._slot.size, 0, 0)
        self._fresh = self._headers.raw
        self._plain = b"" if fd or hardware else self._headers_of_plain_frames()
        # A view keeps its array alive.
        self._frames_view = memoryview(frames).cast("B")
        self._control_view = memoryview(control).cast("B")
        self._headers_view = memoryview(self._headers).cast("B")
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg

    def _headers_of_plain_frames(self) -> bytes:
        """The headers after a call that took classical frames of others, with stamps, and lost none."""
        plain = bytearray(self._fresh)
        for at in range(0, len(plain), _HEADER.size):
            fields = _HEADER.unpack_from(plain, at)
            _HEADER.pack_into(plain, at, *fields[:5], self._stamped, 0, CLASSIC.size)
        return bytes(plain)

    def read(self) -> list[Frame]:
        """What has come, at most BATCH frames; less than that when nothing is left.

        Raises:
            OSError: the socket's own error, such as ENETDOWN.
        """
        self.gaps.clear()
        self.marked.clear()
        count = self._recvmmsg(self._socket.fileno(), self._headers, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            error = ctypes.get_errno()
            if error not in (errno.EAGAIN, errno.EINTR):
                raise OSError(error, os.strerror(error))
            count = 0
        used = count * _HEADER.size
        plain = used <= len(self._plain) and bytes(self._headers_view[:used]) == self._plain[:used]
        frames = self._plain_frames(count) if plain else None
        if frames is None:
            frames = self._parse(count)
        self._headers_view[:used] = self._fresh[:used]
        if count < BATCH:
            # No frame has come since that could tell of the last ones that were dropped.
            memory = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
            self._count(len(frames), *_MEMINFO.unpack(memory))
        return frames

    def _plain_frames(self, count: int) -> list[Frame] | None:
        """What `_parse` gives, sooner: of frames that others sent, with stamps and nothing lost between them.

        None where one is a remote or an error frame.
        """
        frames: list[Frame] = []
        append, new, second, special = frames.append, tuple.__new__, 1_000_000_000, REMOTE | ERROR
        for (can_id, size, _, data), (seconds, rest, _) in zip(
            self._layout.iter_unpack(self._frames_view[: count * self._layout.size]),
            self._slot.iter_unpack(self._control_view[: count * self._slot.size]),
            strict=True,
        ):
            if can_id & special:
                return None
            append(new(Frame, (seconds * second + rest, can_id, data[:size], 0)))
        return frames

    def _parse(self, count: int) -> list[Frame]:
        frames: list[Frame] = []
        append, new, second = frames.append, tuple.__new__, 1_000_000_000
        classic, stamped, counter = CLASSIC.size, self._stamped, self._counter
        slots: Iterable[tuple[int, int, int]] = self._slot.iter_unpack(
            self._control_view[: count * self._slot.size]
        )
        if self._hardware:
            slots = prefer_hardware(slots)
        for (control, told, length), (can_id, size, flags, data), (seconds, rest, drops) in zip(
            _GOT.iter_unpack(self._headers_view[: count * _GOT.size]),
            self._layout.iter_unpack(self._frames_view[: count * self._layout.size]),
            slots,
            strict=True,
        ):
            if length == classic:
                data, flags = data[:size] if size <= MAX_CLASSIC else data[:MAX_CLASSIC], 0
            elif length == FD.size:
                data, flags = data[:size], flags & (BRS | ESI) | FDF
            else:
                self._lose(len(frames), 1)
                continue
            if told or can_id & (REMOTE | ERROR):
                flags |= _SENDER[told & _SENT]
                if can_id & REMOTE:
                    data = bytes(len(data))
                if flags & OWN or can_id & ERROR:
                    self.marked.append(len(frames))
            if control != stamped:
                if control > stamped and drops != counter:
                    self._count(len(frames), drops)
                    counter = self._counter
                elif control < stamped:
                    seconds, rest = divmod(time.time_ns(), second)
            append(new(Frame, (seconds * second + rest, can_id, data, flags)))
        return frames

    def _count(self, index: int, drops: int) -> None:
        more = (drops - self._counter) & 0xFFFF_FFFF
        # The counter of a frame is that of its arrival, and may be older than what SO_MEMINFO said.
        if 0 < more < 0x8000_0000:
            self._counter = drops
            self._lose(index, more)

    def _lose(self, index: int, count: int) -> None:
        self.dropped += count
        self.gaps.append((index, count))


def prefer_hardware(slots: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, int, int]]:
    """Of each datagram's two stamps, by software and by the controller, the one to take; and the drops."""
    for seconds, rest, hardware, hardware_rest, drops in slots:
        yield (hardware, hardware_rest, drops) if hardware or hardware_rest else (seconds, rest, drops)
