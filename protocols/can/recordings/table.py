"""Frames as a table: the columns of CSV and Parquet files, and CSV back to frames. Pure but for the file."""

import calendar
import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final

from protocols.can.frame import (
    BRS,
    ERROR,
    ESI,
    EXTENDED,
    EXTENDED_MASK,
    FD_LENGTHS,
    FDF,
    LOCAL,
    OWN,
    REMOTE,
    STANDARD_MASK,
    Frame,
)
from protocols.can.recordings.stream import StreamWriter
from protocols.timestamps import rfc3339

COLUMNS: Final = ("time", "id", "extended", "type", "direction", "fd", "brs", "esi", "length", "data")
"""time in UTC, id as a number, extended, fd, brs and esi as 0 or 1, type data, remote or error, direction
rx or tx, data in hex. The id of an error frame is its error class (linux/can/error.h)."""

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_KINDS: Final = {"data": 0, "remote": REMOTE, "error": ERROR}
_SECOND: Final = 1_000_000_000


def kind_of(frame: Frame) -> str:
    """`data`, `remote` or `error`."""
    return "error" if frame.can_id & ERROR else "remote" if frame.can_id & REMOTE else "data"


class CsvWriter(StreamWriter):
    """Writes frames as lines; nothing is lost but whether OWN or LOCAL."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        file.write(f"{','.join(COLUMNS)}\n".encode())

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        lines = []
        for frame in frames:
            time_ns, can_id, data, flags = frame
            identifier = can_id & (EXTENDED_MASK if can_id & (EXTENDED | ERROR) else STANDARD_MASK)
            direction = "tx" if flags & (OWN | LOCAL) else "rx"
            bits = f"{bool(flags & FDF):d},{bool(flags & BRS):d},{bool(flags & ESI):d}"
            payload = "" if can_id & REMOTE else data.hex()
            lines.append(
                f"{rfc3339(time_ns)},0x{identifier:X},{bool(can_id & EXTENDED):d},{kind_of(frame)},"
                f"{direction},{bits},{len(data)},{payload}\n"
            )
        self._file.write("".join(lines).encode())


def read_csv(lines: Iterator[str], wrong: Callable[[str], Exception]) -> Iterator[Frame]:
    """The frames in what `CsvWriter` wrote, after its header.

    Args:
        lines: The text after its first line.
        wrong: Makes the exception that is raised where a line is none.
    """
    for line in lines:
        if line.strip():
            try:
                (row,) = csv.reader(io.StringIO(line))
                yield _frame(row)
            except (ValueError, csv.Error) as error:
                raise wrong(f"it is no line of such a table: {error}") from None


def _frame(row: Sequence[str]) -> Frame:
    if len(row) != len(COLUMNS):
        raise ValueError(f"it has {len(row)} columns, and not {len(COLUMNS)}")
    when, identifier, extended, kind, direction, fd, brs, esi, length, data = row
    can_id, count, payload = int(identifier, 16), int(length), bytes.fromhex(data)
    if not 0 <= can_id <= (EXTENDED_MASK if extended == "1" or kind == "error" else STANDARD_MASK):
        raise ValueError(f"{identifier} is no identifier")
    if count not in (FD_LENGTHS if fd == "1" else range(9)) or (kind != "remote" and len(payload) != count):
        raise ValueError(f"a frame cannot have {length} bytes")
    if kind not in _KINDS:
        raise ValueError(f"{kind!r:.20} is no type of frame")
    flags = (FDF if fd == "1" else 0) | (BRS if brs == "1" else 0) | (ESI if esi == "1" else 0)
    return Frame(
        _nanoseconds(when),
        can_id | _KINDS[kind] | (EXTENDED if extended == "1" else 0),
        bytes(count) if kind == "remote" else payload,
        flags | (OWN if direction == "tx" else 0),
    )


def _nanoseconds(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.40} is no time in UTC")
    seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    return seconds * _SECOND + int((match[2] or "0").ljust(9, "0"))
