"""Writes Vector's text format (ASC); python-can reads it. Pure but for the file.

Own code, because python-can 4.6.1 writes the milliseconds of the start without leading zeros: what began at
.005 is read back as .5.
"""

import time
from collections.abc import Sequence
from typing import BinaryIO, Final

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, EXTENDED_MASK, FDF, LOCAL, OWN, REMOTE, Frame
from protocols.can.recordings.stream import StreamWriter

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DLC_OF: Final = {length: dlc for dlc, length in enumerate((*range(9), 12, 16, 20, 24, 32, 48, 64))}
_FLAG_FDF, _FLAG_BRS, _FLAG_ESI = 1 << 12, 1 << 13, 1 << 14


class AscWriter(StreamWriter):
    """Writes frames as lines, with stamps since the first.

    Lost are: what is under a microsecond, what an error frame says and its direction, and stamps before the
    first one's. The start is in local time without saying which, as Vector's tools have it.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._start_us: int | None = None

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        if not frames:
            return
        if self._start_us is None:
            self._begin(frames[0].time_ns)
        start_us, lines = self._start_us or 0, []
        for time_ns, can_id, data, flags in frames:
            seconds, rest = divmod(max(0, time_ns // 1000 - start_us), 1_000_000)
            lines.append(f"{seconds:4d}.{rest:06d} {_event(can_id, data, flags)}\n")
        self._file.write("".join(lines).encode())

    def _begin(self, time_ns: int) -> None:
        # Only milliseconds go into the header: the first stamp has what is left.
        milliseconds = time_ns // 1_000_000
        self._start_us = milliseconds * 1000
        started = _local(milliseconds)
        self._file.write(
            f"date {started}\nbase hex  timestamps absolute\ninternal events logged\n"
            f"Begin Triggerblock {started}\n   0.000000 Start of measurement\n".encode()
        )

    def finish(self) -> None:
        """Completes the file; it is still open.

        Raises:
            OSError: the file does not take it.
        """
        if self._start_us is None:
            self._begin(time.time_ns())
        self._file.write(b"End TriggerBlock\n")
        self._file.flush()


def _local(milliseconds: int) -> str:
    """A date as Vector writes it, whatever the locale is."""
    t = time.localtime(milliseconds // 1000)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    clock = f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{milliseconds % 1000:03d}"
    return f"{day} {month} {t.tm_mday:02d} {clock} {t.tm_year}"


def _event(can_id: int, data: bytes, flags: int) -> str:
    if can_id & ERROR:
        return "1  ErrorFrame"
    identifier = f"{can_id & EXTENDED_MASK:X}{'x' if can_id & EXTENDED else ''}"
    direction = "Tx" if flags & (OWN | LOCAL) else "Rx"
    if not flags & FDF:
        kind = f"r {len(data):x}" if can_id & REMOTE else f"d {len(data):x} {data.hex(' ').upper()}"
        return f"1  {identifier:<15} {direction:<4} {kind}".rstrip()
    brs, esi = bool(flags & BRS), bool(flags & ESI)
    more = _FLAG_FDF | brs * _FLAG_BRS | esi * _FLAG_ESI
    return (
        f"CANFD   1 {direction:<4} {identifier:>8}  {'':>32} {brs:d} {esi:d} {_DLC_OF.get(len(data), 15):x} "
        f"{len(data):2d} {data.hex(' ').upper()} {0:>8} {0:>4} {more:>8X} {0:>8} {0:>8} {0:>8} {0:>8} {0:>8}"
    )
