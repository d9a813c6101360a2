"""What database files (DBC, KCD, SYM, ARXML) say, read by cantools and kept without it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from protocols.base import Value


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


class Database:
    """All messages of some files."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self.messages: Mapping[str, Message] = {message.name: message for message in messages}
        self.by_id: Mapping[int, Message] = {message.can_id: message for message in messages}

    def encode(self, message: str, values: Mapping[str, Value]) -> bytes:
        """The payload with scaled values (or labels) of all signals that it has; by cantools."""
        raise NotImplementedError


def load(files: Sequence[Path]) -> Database:
    """Reads database files; each is read once while it does not change.

    Raises:
        ValueError: a file cannot be read, or two messages have one name or id; says which, and why.
    """
    raise NotImplementedError
