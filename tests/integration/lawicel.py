"""A CAN adapter that speaks Lawicel's ASCII protocol on a pty, written from its manual.

CAN232 manual, version 3 (Lawicel AB), chapter "Available CAN232 commands": Sn sets the bit rate, O opens, L
opens for listening only, C closes; tiiildd.. and Tiiiiiiiildd.. carry frames, riiil and Riiiiiiiil remote
ones; each line ends with CR, the adapter answers CR, after a frame zCR or ZCR, and BEL where it refuses. The
lines d, D, b and B of CAN FD are those of the CANable 2.0 firmware, which python-can speaks too.
"""

import asyncio
import os
import re
import tty

from protocols.can.frame import BRS, EXTENDED, FD_LENGTHS, FDF, REMOTE, Frame

_LINE = re.compile(r"([trdb](?=\w{4})|[TRDB](?=\w{9}))((?<=[trdb])\w{3}|(?<=[TRDB])\w{8})(\w)(\w*)")


class Lawicel:
    """The adapter's end of the pty, on the loop."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.sent: list[Frame] = []
        self.refuse: set[int] = set()
        self.wrong: list[str] = []
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(slave)
        self._slave: int | None = slave
        self._unread = b""
        self._unwritten = b""
        asyncio.get_running_loop().add_reader(self._master, self._read)

    @property
    def is_open(self) -> bool:
        """Whether it takes part in the bus: the last of O, L and C says so."""
        return next(
            (word in ("O", "L") for word in reversed(self.commands) if word in ("O", "L", "C")), False
        )

    def hold(self) -> None:
        """Reads nothing any more: its buffer fills."""
        asyncio.get_running_loop().remove_reader(self._master)

    def bus(self, *frames: Frame) -> None:
        """These frames come from the bus."""
        self.write(b"".join(line_of(frame) for frame in frames))

    def write(self, data: bytes) -> None:
        """These bytes come from the adapter."""
        self._unwritten += data
        self._flush()

    def unplug(self) -> None:
        """The adapter is gone."""
        loop = asyncio.get_running_loop()
        if self._master >= 0:
            loop.remove_reader(self._master)
            loop.remove_writer(self._master)
            os.close(self._master)
            self._master = -1
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._unwritten = self._unwritten[os.write(self._master, self._unwritten) :]
        except BlockingIOError:
            pass
        if self._unwritten:
            loop.add_writer(self._master, self._flush)
        else:
            loop.remove_writer(self._master)

    def _read(self) -> None:
        *lines, self._unread = (self._unread + os.read(self._master, 65536)).split(b"\r")
        for line in lines:
            self._take(line.decode())

    def _take(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            self.commands.append(line)
            self.write(b"\r")
            return
        kind, identifier, code, data = match[1], int(match[2], 16), int(match[3], 16), bytes.fromhex(match[4])
        length = FD_LENGTHS[code]
        extended = kind.isupper()
        if len(match[2]) != (8 if extended else 3) or len(data) != (0 if kind in "rR" else length):
            self.wrong.append(line)
        if identifier in self.refuse:
            self.write(b"\a")
            return
        can_id = identifier | (EXTENDED if extended else 0) | (REMOTE if kind in "rR" else 0)
        flags = {"d": FDF, "b": FDF | BRS}.get(kind.lower(), 0)
        self.sent.append(Frame(0, can_id, data if kind not in "rR" else bytes(length), flags))
        self.write(b"Z\r" if extended else b"z\r")


def line_of(frame: Frame) -> bytes:
    """The line that tells of a frame."""
    kind = "r" if frame.can_id & REMOTE else "t"
    if frame.flags & FDF:
        kind = "b" if frame.flags & BRS else "d"
    if frame.can_id & EXTENDED:
        head = f"{kind.upper()}{frame.identifier:08X}"
    else:
        head = f"{kind}{frame.identifier:03X}"
    data = "" if frame.can_id & REMOTE else frame.data.hex().upper()
    return f"{head}{FD_LENGTHS.index(len(frame.data)):X}{data}\r".encode()
