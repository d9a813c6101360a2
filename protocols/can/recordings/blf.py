"""Vector's binary log format (BLF), as far as CAN frames go. Pure but for the file that is given.

No specification is public: layouts are as the `vector_blf` library and python-can describe them, and tests
hold both directions against python-can. An own writer, because stamps of python-can's are floats (240 ns off
today) and its file has no start time until it is closed: after a power cut all stamps would be gone. An own
reader, because python-can's inflates whatever it is given, and says of a damaged file neither that nor where.
"""

import datetime
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import BinaryIO, Final

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, EXTENDED_MASK, FDF, LOCAL, OWN, REMOTE, Frame

CONTAINER: Final = 128 * 1024
"""Bytes of objects that are compressed together at most when writing."""
_CONTAINER_MOST: Final = 16 * 1024 * 1024
"""A container that says it holds more is not believed (Vector writes 128 KiB)."""

_HEADER: Final = struct.Struct("<4sL8BQQLL8H8H")
_HEADER_SIZE: Final = 144
_OBJECT: Final = struct.Struct("<4sHHLL")
_STAMP: Final = struct.Struct("<LHHQ")
_LOG_CONTAINER: Final = struct.Struct("<H6xL4x")
_CAN: Final = struct.Struct("<HBBL8s")
_CAN_FD: Final = struct.Struct("<HBBLLBBB5x64s")
_CAN_FD_64: Final = struct.Struct("<BBBBLLLLLLLHBBL")
_ERROR_EXT: Final = struct.Struct("<HHLBBBxLLH2x8s")

_TYPE_CAN, _TYPE_CONTAINER, _TYPE_ERROR_EXT, _TYPE_CAN_2, _TYPE_FD, _TYPE_FD_64 = 1, 10, 73, 86, 100, 101
_DIRECTION, _REMOTE_FLAG = 0x01, 0x80
_EDL, _BRS, _ESI = 0x01, 0x02, 0x04
_REMOTE_64, _EDL_64, _BRS_64, _ESI_64 = 0x0010, 0x1000, 0x2000, 0x4000
_TEN_MICROSECONDS, _NANOSECONDS = 1, 2
_HEAD: Final = _OBJECT.size + _STAMP.size
_DLC_OF: Final = {length: dlc for dlc, length in enumerate((*range(9), 12, 16, 20, 24, 32, 48, 64))}
_ID: Final = EXTENDED | EXTENDED_MASK


class BlfWriter:
    """Writes frames into a file that can seek.

    Lost are the direction of error frames, and stamps before that of the first frame.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._objects: list[bytes] = []
        self._size = 0
        self._count = 0
        self._uncompressed = _HEADER_SIZE
        self._start_ns: int | None = None
        self._last_ns = 0
        self._write_header(_HEADER_SIZE)

    @property
    def size(self) -> int:
        """Bytes in the file by now, and about those that wait to be compressed."""
        return self._file.tell() + self._size // 4

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        if self._start_ns is None and frames:
            # The header counts in milliseconds. It is written now, so that what a crash leaves has its time.
            self._start_ns = frames[0].time_ns // 1_000_000 * 1_000_000
            self._write_header(_HEADER_SIZE)
        start_ns, add = self._start_ns or 0, self._objects.append
        for time_ns, can_id, data, flags in frames:
            transmitted = _DIRECTION if flags & (OWN | LOCAL) else 0
            if can_id & ERROR:
                kind, body = (
                    _TYPE_ERROR_EXT,
                    _ERROR_EXT.pack(1, 0, 0, 0, 0, len(data), 0, can_id & EXTENDED_MASK, 0, data),
                )
            elif flags & FDF:
                fd = _EDL | (flags & BRS and _BRS) | (flags & ESI and _ESI)
                dlc, length = _DLC_OF.get(len(data), 15), len(data)
                kind, body = (
                    _TYPE_FD,
                    _CAN_FD.pack(1, transmitted, dlc, can_id & _ID, 0, 0, fd, length, data),
                )
            else:
                transmitted |= can_id & REMOTE and _REMOTE_FLAG
                kind, body = _TYPE_CAN, _CAN.pack(1, transmitted, len(data), can_id & _ID, data)
            size = _HEAD + len(body)
            since = max(0, time_ns - start_ns)
            add(_OBJECT.pack(b"LOBJ", _HEAD, 1, size, kind) + _STAMP.pack(_NANOSECONDS, 0, 0, since) + body)
            self._size += size
            if self._size >= CONTAINER:
                self.flush()
                add = self._objects.append
        if frames:
            self._count += len(frames)
            self._last_ns = max(self._last_ns, frames[-1].time_ns)

    def flush(self) -> None:
        """Writes what waits as a container, so that a crash leaves it.

        Raises:
            OSError: the file does not take it.
        """
        if self._objects:
            objects, self._objects, self._size = b"".join(self._objects), [], 0
            packed = zlib.compress(objects, 1)
            size = _OBJECT.size + _LOG_CONTAINER.size + len(packed)
            self._uncompressed += _OBJECT.size + _LOG_CONTAINER.size + len(objects)
            self._file.write(
                _OBJECT.pack(b"LOBJ", _OBJECT.size, 1, size, _TYPE_CONTAINER)
                + _LOG_CONTAINER.pack(2, len(objects))
                + packed
                + bytes(size % 4)  # so many, and not up to a multiple of 4: as Vector does
            )
        self._file.flush()

    def finish(self) -> None:
        """Completes the file; it is still open.

        Raises:
            OSError: the file does not take it.
        """
        self.flush()
        self._write_header(self._file.tell())

    def _write_header(self, size: int) -> None:
        end = self._file.tell()
        self._file.seek(0)
        fields = (b"LOGG", _HEADER_SIZE, 5, 0, 0, 0, 2, 6, 8, 1, size, self._uncompressed, self._count, 0)
        packed = _HEADER.pack(*fields, *_system_time(self._start_ns), *_system_time(self._last_ns or None))
        self._file.write(packed.ljust(_HEADER_SIZE, b"\0"))
        self._file.seek(max(end, _HEADER_SIZE))


def _system_time(time_ns: int | None) -> Sequence[int]:
    """A SYSTEMTIME of Windows, in UTC; all zero for none."""
    if time_ns is None:
        return (0,) * 8
    t = datetime.datetime.fromtimestamp(time_ns // 1_000_000_000, datetime.UTC)
    millisecond = time_ns // 1_000_000 % 1000
    return t.year, t.month, t.isoweekday() % 7, t.day, t.hour, t.minute, t.second, millisecond


def _nanoseconds(system_time: Sequence[int]) -> int:
    """UTC in nanoseconds; 0 for a SYSTEMTIME that is none."""
    year, month, _, day, hour, minute, second, millisecond = system_time
    try:
        t = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    except ValueError:
        return 0
    return max(0, int(t.timestamp())) * 1_000_000_000 + millisecond * 1_000_000


def read_blf(file: BinaryIO, wrong: Callable[[str], Exception]) -> Iterator[Frame]:
    """The CAN frames of all channels; other objects are passed over.

    Args:
        file: At its beginning.
        wrong: Makes the exception that is raised where the file is no BLF, is damaged, or ends too early.
    """
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or head[:4] != b"LOGG":
        raise wrong("it does not begin as a BLF file")
    fields = _HEADER.unpack(head)
    start_ns, rest = _nanoseconds(fields[14:22]), fields[1] - _HEADER.size
    if not 0 <= rest <= _CONTAINER_MOST:
        raise wrong("its header has an impossible size")
    file.read(rest)
    tail = b""
    while base := file.read(_OBJECT.size):
        objects = _next_container(file, base, wrong)
        tail = yield from _frames(tail + objects, start_ns, wrong)
    if tail.strip(b"\0"):
        raise wrong("it ends in the middle of an object")
    if fields[10] > file.tell():
        raise wrong(f"it ends too early: its header speaks of {fields[10]} bytes")


def _next_container(file: BinaryIO, base: bytes, wrong: Callable[[str], Exception]) -> bytes:
    """The objects in the container whose base header was read; nothing for other things."""
    if len(base) < _OBJECT.size or base[:4] != b"LOBJ":
        raise wrong("here should be an object")
    *_, size, kind = _OBJECT.unpack(base)
    if not _OBJECT.size <= size <= _CONTAINER_MOST:
        raise wrong(f"an object says that it has {size} bytes")
    body = file.read(size - _OBJECT.size)
    file.read(size % 4)
    if len(body) < size - _OBJECT.size:
        raise wrong("it ends in the middle of a container")
    if kind != _TYPE_CONTAINER:
        return b""
    if len(body) < _LOG_CONTAINER.size:
        raise wrong("a container is too short")
    method, _ = _LOG_CONTAINER.unpack_from(body)
    packed = body[_LOG_CONTAINER.size :]
    if method == 0:
        return packed
    if method != 2:
        raise wrong(f"a container is compressed by the unknown method {method}")
    unpacking = zlib.decompressobj()
    try:
        # Not by the size that the file says: what inflates without end is stopped.
        objects = unpacking.decompress(packed, _CONTAINER_MOST)
    except zlib.error as error:
        raise wrong(f"a container is damaged ({error})") from None
    if not unpacking.eof:
        raise wrong("a container is damaged or too large")
    return objects


def _frames(data: bytes, start_ns: int, wrong: Callable[[str], Exception]) -> Generator[Frame, None, bytes]:
    """Yields the frames of whole objects; returns what there is of one that goes on in the next container."""
    at = 0
    while True:
        found = data.find(b"LOBJ", at, at + 8)  # up to 3 bytes of padding stand before it
        if found < 0:
            if len(data) - at < 8:
                return data[at:]
            raise wrong("here should be an object")
        at = found
        if len(data) - at < _HEAD:
            return data[at:]
        _, head, version, size, kind = _OBJECT.unpack_from(data, at)
        if not _HEAD <= size <= _CONTAINER_MOST:
            raise wrong(f"an object says that it has {size} bytes")
        if len(data) - at < size:
            return data[at:]
        if (version in (1, 2)) and (parse := _PARSERS.get(kind)):
            flags, _, _, since = _STAMP.unpack_from(data, at + _OBJECT.size)
            stamp = start_ns + (since * 10_000 if flags == _TEN_MICROSECONDS else since)
            try:
                yield parse(stamp, data[at + head : at + size])
            except (struct.error, ValueError) as error:
                raise wrong(f"an object of type {kind} is wrong: {error}") from None
        at += size


def _classical(stamp: int, body: bytes) -> Frame:
    _, flags, dlc, can_id, data = _CAN.unpack_from(body)
    length = min(dlc, 8)
    if flags & _REMOTE_FLAG:
        return Frame(stamp, _identifier(can_id) | REMOTE, bytes(length), _direction(flags))
    return Frame(stamp, _identifier(can_id), data[:length], _direction(flags))


def _fd(stamp: int, body: bytes) -> Frame:
    _, flags, dlc, can_id, _, _, fd, length, data = _CAN_FD.unpack_from(body.ljust(_CAN_FD.size, b"\0"))
    if not fd & _EDL:
        return _classical(stamp, _CAN.pack(0, flags, dlc, can_id, data[:8]))
    more = FDF | (fd & _BRS and BRS) | (fd & _ESI and ESI)
    return Frame(stamp, _identifier(can_id), _payload(data, length), more | _direction(flags))


def _fd_64(stamp: int, body: bytes) -> Frame:
    _, dlc, length, _, can_id, _, fd, *_, direction, extra, _ = _CAN_FD_64.unpack_from(body)
    end = extra - _HEAD if extra else len(body)
    data = body[_CAN_FD_64.size : end]
    transmitted = OWN if direction else 0
    if not fd & _EDL_64:
        if fd & _REMOTE_64:
            return Frame(stamp, _identifier(can_id) | REMOTE, bytes(min(dlc, 8)), transmitted)
        return Frame(stamp, _identifier(can_id), _payload(data, min(length, 8)), transmitted)
    more = FDF | (fd & _BRS_64 and BRS) | (fd & _ESI_64 and ESI)
    return Frame(stamp, _identifier(can_id), _payload(data, length), more | transmitted)


def _error(stamp: int, body: bytes) -> Frame:
    *_, can_id, _, data = _ERROR_EXT.unpack_from(body)
    return Frame(stamp, ERROR | (can_id & EXTENDED_MASK), data)


_PARSERS: Final[dict[int, Callable[[int, bytes], Frame]]] = {
    _TYPE_CAN: _classical,
    _TYPE_CAN_2: _classical,
    _TYPE_FD: _fd,
    _TYPE_FD_64: _fd_64,
    _TYPE_ERROR_EXT: _error,
}


def _identifier(can_id: int) -> int:
    if can_id & EXTENDED:
        return can_id & _ID
    if can_id > 0x7FF:
        raise ValueError(f"0x{can_id:X} is no identifier of 11 bits")
    return can_id


def _payload(data: bytes, length: int) -> bytes:
    """So many bytes; a writer may leave zeros at the end out."""
    if length > 64:
        raise ValueError(f"{length} bytes of data")
    return data[:length].ljust(length, b"\0")


def _direction(flags: int) -> int:
    return OWN if flags & _DIRECTION else 0
