"""What database files (DBC, KCD, SYM, ARXML) say, read by cantools and kept without it."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from protocols.base import Value
from protocols.can.frame import EXTENDED, FD_LENGTHS, format_id

FORMATS: Final = ("dbc", "kcd", "sym", "arxml")
"""Kinds of database files, by the end of their name."""


class Signal(msgspec.Struct, frozen=True):
    """One signal as cantools understands the file. Scaled value = raw * scale + offset."""

    name: str
    start: int
    """Start bit as DBC counts it: of the least significant bit (Intel), the most significant (Motorola)."""
    length: int
    little: bool
    """Intel byte order; False: Motorola."""
    signed: bool = False
    is_float: bool = False
    scale: float | int = 1
    """Both this and `offset` are ints where all scaled values of an integer are integers."""
    offset: float | int = 0
    minimum: float | int | None = None
    maximum: float | int | None = None
    unit: str = ""
    comment: str = ""
    choices: Mapping[int, str] = {}
    """Raw value to label."""
    initial: Value | None = None
    """Scaled value at the start, where the file says one."""
    is_multiplexer: bool = False
    selector: str | None = None
    """The multiplexer signal that says whether this one is in the frame, ..."""
    selected_by: frozenset[int] = frozenset()
    """... and its raw values for which it is."""

    @property
    def first_bit(self) -> int:
        """Its first bit in the order of the bytes: for Motorola counted from the top of each byte."""
        return self.start if self.little else self.start // 8 * 8 + 7 - self.start % 8

    @property
    def end_bit(self) -> int:
        """The bit after its last one, counted as `first_bit`: so many bits of payload hold it."""
        return self.first_bit + self.length

    @property
    def integral(self) -> bool:
        """Its scaled values are whole numbers."""
        return not self.is_float and isinstance(self.scale, int) and isinstance(self.offset, int)

    @property
    def raw_range(self) -> tuple[int, int]:
        """The lowest and the highest raw value of an integer signal."""
        codes = 1 << self.length
        return (-codes // 2, codes // 2 - 1) if self.signed else (0, codes - 1)


class Message(msgspec.Struct, frozen=True):
    """One message."""

    name: str
    can_id: int
    """With the EXTENDED bit where it has 29 bits."""
    length: int
    """Bytes of its payload."""
    fd: bool
    cycle: float | None
    """Seconds; None: not sent cyclically."""
    signals: Mapping[str, Signal]
    senders: Sequence[str] = ()
    comment: str = ""
    padding: int = 0
    """The byte that bits of no signal are taken from."""
    unsupported: str = ""
    """Why its signals can neither be read nor written, where that is so: what it is or has."""

    def holds(self, signal: Signal) -> bool:
        """Whether the whole signal lies in the payload; some files have signals that do not."""
        return signal.end_bit <= 8 * self.length


class Database:
    """All messages of some files."""

    def __init__(
        self,
        messages: Sequence[Message] = (),
        ambiguous: Mapping[str, str] = MappingProxyType({}),
        files: Mapping[Path, bytes] = MappingProxyType({}),
    ) -> None:
        self.messages: Mapping[str, Message] = {message.name: message for message in messages}
        self.by_id: Mapping[int, Message] = {message.can_id: message for message in messages}
        self.ambiguous = ambiguous
        """Messages that one file defines twice, by name or by id, and how; they are in neither mapping."""
        self.files = files
        """What was read."""


class _File(msgspec.Struct, frozen=True):
    data: bytes
    messages: Sequence[Message]


_read: dict[tuple[Path, int, int], _File] = {}
_KEPT: Final = 32


def load(files: Sequence[Path], kept: Mapping[Path, bytes] = MappingProxyType({})) -> Database:
    """Reads database files; each is read once while it does not change, and not at all where `kept` has it.

    Raises:
        ValueError: a file cannot be read, or messages of two files have one name or id; says which, and why.
    """
    read = {file: _parse(kept[file], file) if file in kept else _load(file) for file in files}
    names: dict[str, tuple[Path, Message]] = {}
    ids: dict[int, tuple[Path, Message]] = {}
    ambiguous: dict[str, str] = {}
    for file, content in read.items():
        for message in content.messages:
            same_name = names.setdefault(message.name, (file, message))
            same_id = ids.setdefault(message.can_id, (file, message))
            for (where, other), what in ((same_name, "name"), (same_id, "id")):
                if where != file:
                    raise ValueError(f"{_tell(where, other)} and {_tell(file, message)} have the same {what}")
                if other is not message:
                    why = f"{_tell(file, other)} and {_label(message)} have the same {what}"
                    ambiguous |= {other.name: why, message.name: why}
    messages = [
        message for content in read.values() for message in content.messages if message.name not in ambiguous
    ]
    return Database(messages, ambiguous, {file: content.data for file, content in read.items()})


def _label(message: Message) -> str:
    return f"{message.name} (0x{format_id(message.can_id)})"


def _tell(file: Path, message: Message) -> str:
    return f"{_label(message)} of {file.name}"


def _load(file: Path) -> _File:
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        state = file.stat()
        key = (file, state.st_mtime_ns, state.st_size)
        if key not in _read:
            data = file.read_bytes()
            while len(_read) >= _KEPT:
                del _read[next(iter(_read))]
            _read[key] = _parse(data, file)
        return _read[key]
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error


def _parse(data: bytes, file: Path) -> _File:
    return _File(data, list(_messages(data, file)))


def _messages(data: bytes, file: Path) -> Iterator[Message]:
    word = file.suffix.removeprefix(".").lower()
    if word not in FORMATS:
        known = ", ".join(f".{word}" for word in FORMATS)
        raise ValueError(f"{file}: a database file ends in one of {known}")
    import cantools.database

    # It warns of what is ambiguous, of which we tell whoever names it.
    logging.getLogger("cantools.database.can.database").setLevel(logging.ERROR)
    try:
        # strict would refuse files for signals that overlap or do not fit, which many good files have.
        database = cantools.database.load_string(_text(data, word), word, strict=False)
        yield from map(from_cantools, database.messages)  # type: ignore[union-attr]  # only CDD has none
    except Exception as error:  # cantools lets pass what its parsers happen to raise
        cause = getattr(error, f"e_{word}", None) or error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise ValueError(f"{file}: {reason:.300}") from error


def _text(data: bytes, word: str) -> str:
    """The text of a file: XML says its encoding; the others are cp1252 by custom, or UTF-8."""
    encoding = "cp1252"
    if word in ("kcd", "arxml"):
        said = re.match(rb"""(?:\xef\xbb\xbf)?\s*<\?xml[^>]*\bencoding=["']([\w.-]+)["']""", data)
        encoding = said[1].decode() if said else "utf-8"
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(encoding, errors="replace")


def from_cantools(found: Any) -> Message:
    """What a message of cantools says."""
    return Message(
        name=found.name,
        can_id=found.frame_id | (EXTENDED if found.is_extended_frame else 0),
        length=found.length,
        fd=bool(found.is_fd or 8 < found.length <= FD_LENGTHS[-1]),
        cycle=found.cycle_time / 1000 if found.cycle_time else None,
        signals={signal.name: _signal(signal) for signal in found.signals},
        senders=tuple(found.senders),
        comment=found.comment or "",
        # Only ARXML says it; the pattern that cantools has for the others its own `encode` leaves out too.
        padding=found.unused_bit_pattern if found.autosar else 0,
        unsupported=_unsupported(found),
    )


def _unsupported(found: Any) -> str:
    if found.is_container:
        return "is an AUTOSAR container"
    return "has more bytes than a frame" if found.length > FD_LENGTHS[-1] else ""


def _signal(found: Any) -> Signal:
    conversion = found.conversion
    scale, offset = conversion.scale, conversion.offset
    if not (math.isfinite(scale) and math.isfinite(offset)):
        raise ValueError(f"signal {found.name}: its factor and its offset should be finite numbers")
    if float(scale).is_integer() and float(offset).is_integer():
        scale, offset = int(scale), int(offset)
    low, high = _finite(found.minimum), _finite(found.maximum)
    return Signal(
        name=found.name,
        start=found.start,
        length=found.length,
        little=found.byte_order == "little_endian",
        signed=found.is_signed,
        is_float=conversion.is_float,
        scale=scale,
        offset=offset,
        # The same twice means that there is none: 0 and 0 is what editors of DBC write.
        minimum=None if low == high else low,
        maximum=None if low == high else high,
        unit="" if found.unit in (None, "-") else found.unit,
        comment=found.comment or "",
        choices={int(raw): str(label) for raw, label in (conversion.choices or {}).items()},
        initial=_initial(found.initial),
        is_multiplexer=found.is_multiplexer,
        selector=found.multiplexer_signal if found.multiplexer_ids is not None else None,
        selected_by=frozenset(found.multiplexer_ids or ()),
    )


def _finite(value: Any) -> float | int | None:
    return value if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def _initial(value: Any) -> Value | None:
    """An initial value: a label is an object of its own in cantools, and DBC has floats for integers too."""
    if not isinstance(value, int | float):
        return None if value is None else str(value)
    number = _finite(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number
