"""Recordings of CAN buses, read frame by frame: BLF, ASC, candump's log, pcapng, pcap, CSV, TRC and MF4."""

import gzip
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from protocols.can.frame import (
    BRS,
    ERROR,
    ESI,
    EXTENDED,
    EXTENDED_MASK,
    FD_LENGTHS,
    FDF,
    OWN,
    REMOTE,
    STANDARD_MASK,
    Frame,
)
from protocols.can.recordings.blf import read_blf
from protocols.can.recordings.candump import read_candump
from protocols.can.recordings.pcapng import read_pcap
from protocols.can.recordings.table import COLUMNS, read_csv

if TYPE_CHECKING:
    import can

_LINE_MOST: Final = 64 * 1024
_TIME_MOST: Final = 2**63
"""Nanoseconds since 1970 until 2262: what 64 bits hold."""
_MICROSECOND: Final = 1000


def read(path: Path | str) -> "Recording":
    """The frames of a recording, in the order of the file; by its suffix, `.gz` and `.part` aside.

    It can be iterated over again and again; each time it is opened anew. Frames of all channels come.
    `.trc`, `.asc`, python-can's `.csv` and `.mf4` are read by python-can, `.mf4` also needs asammdf.

    Raises:
        ValueError: the suffix says nothing.
        OSError: there is no such file.
    """
    return Recording(Path(path))


class Recording(Iterable[Frame]):
    """A file of frames. Iterating raises ValueError with the place where it is damaged.

    Of a `.part`, which a recorder left behind when it was killed, all that is whole comes; that it ends in
    the middle is no mistake there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        """Bytes of the file, for progress."""
        self._file: BinaryIO | None = None
        self._position = 0
        suffixes = [suffix.lower() for suffix in path.suffixes]
        self._partial = suffixes[-1:] == [".part"]
        if self._partial:
            suffixes.pop()
        self._packed = suffixes[-1:] == [".gz"]
        if self._packed:
            suffixes.pop()
        self._format = suffixes[-1].removeprefix(".") if suffixes else ""
        if self._format not in _READERS:
            known = ", ".join(f".{name}" for name in _READERS)
            raise ValueError(f"{path}: a recording ends in one of {known} (and .gz)")

    @property
    def position(self) -> int:
        """How many bytes of the file were read by now."""
        if self._file is not None and not self._file.closed:
            self._position = self._file.tell()
        return self._position

    def __iter__(self) -> Generator[Frame, None, None]:
        with self.path.open("rb") as file:
            self._file = file
            place = _Place(self.path, file)
            opened = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if self._packed else cast(BinaryIO, file)
            try:
                for frame in _READERS[self._format](opened, place):
                    if not 0 <= frame.time_ns < _TIME_MOST:
                        raise place.wrong("its stamp is not between 1970 and 2262")
                    yield frame
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise place.wrong(str(error)) from None
            except ValueError:
                if not self._partial or self.position < self.size:
                    raise
            self._position = self.size


class _Place:
    """Where a reader is, for what it says."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.line = 0

    def wrong(self, text: str) -> ValueError:
        """What to raise when something is wrong here."""
        where = f"line {self.line}" if self.line else f"before byte {self._file.tell()}"
        return ValueError(f"{self.path}, {where}: {text}")


class _Lines(Iterator[str]):
    """The lines of a text file, counted and none without end. For python-can it stands for the file."""

    def __init__(self, file: BinaryIO, place: _Place) -> None:
        self._file = file
        self._place = place
        self._first = b""

    def put_back(self, line: str) -> None:
        """Gives this line, which was the first, again."""
        self._first, self._place.line = line.encode(), 0

    def __next__(self) -> str:
        line, self._first = self._first or self._file.readline(_LINE_MOST), b""
        if not line:
            raise StopIteration
        self._place.line += 1
        if len(line) == _LINE_MOST:
            raise self._place.wrong(f"a line is longer than {_LINE_MOST} bytes")
        return line.decode("utf-8", "replace")

    def close(self) -> None:
        """Closed by who opened it."""


def _blf(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    return read_blf(file, place.wrong)


def _candump(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    return read_candump(_Lines(file, place), place.wrong)


def _pcap(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    return read_pcap(file, place.wrong)


def _csv(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    lines = _Lines(file, place)
    head = next(lines, "")
    if head.strip() == ",".join(COLUMNS):
        yield from read_csv(lines, place.wrong)
    elif head.startswith("timestamp,arbitration_id,"):
        import can

        lines.put_back(head)
        yield from _by_python_can(can.CSVReader(cast(Any, lines)), place)
    else:
        raise place.wrong("it is no table of frames, of ours or of python-can's")


def _asc(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    import can

    reader = can.ASCReader(cast(Any, _Lines(file, place)), relative_timestamp=False)
    last_ns: int | None = None
    for frame in _by_python_can(reader, place):
        if reader.timestamps_format == "relative":  # to the line before, of which python-can knows nothing
            since_ns = 0 if last_ns is None else frame.time_ns - round(reader.start_time * 1e6) * _MICROSECOND
            last_ns = frame.time_ns if last_ns is None else last_ns + since_ns
            yield frame._replace(time_ns=last_ns)
        else:
            yield frame


def _trc(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    import can

    yield from _by_python_can(can.TRCReader(cast(Any, _Lines(file, place))), place)


def _mf4(file: BinaryIO, place: _Place) -> Iterator[Frame]:
    import can  # first: python-can does without MF4 when asammdf was imported before

    try:
        reader = can.MF4Reader(file)
    except NotImplementedError:
        raise ModuleNotFoundError("MF4 files need asammdf", name="asammdf") from None
    except Exception as error:  # asammdf raises whatever it stumbled over
        raise place.wrong(f"it is no MF4 file: {error}") from error
    try:
        yield from _by_python_can(reader, place)
    finally:
        reader.stop()


def _by_python_can(reader: "Iterable[can.Message]", place: _Place) -> Iterator[Frame]:
    messages = iter(reader)
    while True:
        try:
            message = next(messages, None)
            frame = None if message is None else _of_message(message)
        except ValueError as error:
            raise error if str(error).startswith(str(place.path)) else place.wrong(str(error)) from None
        except Exception as error:  # python-can does not check what it reads
            raise place.wrong(f"python-can cannot read it ({type(error).__name__}: {error})") from error
        if frame is None:
            return
        yield frame


def _of_message(message: "can.Message") -> Frame:
    stamp, flags = message.timestamp, 0 if message.is_rx else OWN
    if not math.isfinite(stamp) or stamp < 0:
        raise ValueError(f"{stamp} is no time")
    time_ns = round(stamp * 1_000_000) * _MICROSECOND
    if message.is_error_frame:
        data = bytes(message.data[:8]).ljust(8, b"\0")
        return Frame(time_ns, ERROR | (message.arbitration_id & EXTENDED_MASK), data, flags)
    if not 0 <= message.arbitration_id <= (EXTENDED_MASK if message.is_extended_id else STANDARD_MASK):
        raise ValueError(f"0x{message.arbitration_id:X} is no identifier")
    can_id = message.arbitration_id | (EXTENDED if message.is_extended_id else 0)
    data = bytes(message.data)
    # python-can takes an FD frame without data in ASC for a remote one: CAN FD has none (ISO 11898-1).
    if message.is_fd or len(data) > 8:
        flags |= FDF | (BRS if message.bitrate_switch else 0) | (ESI if message.error_state_indicator else 0)
    elif message.is_remote_frame:
        if not 0 <= message.dlc <= 8:
            raise ValueError(f"a remote frame that asks for {message.dlc} bytes")
        return Frame(time_ns, can_id | REMOTE, bytes(message.dlc), flags)
    if len(data) not in FD_LENGTHS:
        raise ValueError(f"no frame has {len(data)} bytes")
    return Frame(time_ns, can_id, data, flags)


_READERS: Final[dict[str, Callable[[BinaryIO, _Place], Iterator[Frame]]]] = {
    "blf": _blf,
    "asc": _asc,
    "log": _candump,
    "pcapng": _pcap,
    "pcap": _pcap,
    "csv": _csv,
    "trc": _trc,
    "mf4": _mf4,
}
