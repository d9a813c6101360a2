"""How requests and answers are told apart on a line: by transaction over MBAP, by turns over RTU. Pure."""

from collections.abc import Sequence
from typing import Protocol

from protocols.modbus import pdu
from protocols.modbus.config import Connection, Rtu, Tcp, Tls
from protocols.modbus.framing import Frame, MbapFramer, RtuAnswerFramer, mbap, rtu

MAX_LATE = 1000
"""Unanswered transactions after which a line is given up."""

_FAST = 19200  # above it the silence is fixed (Modbus over Serial Line V1.02, section 2.5.1.1)
_FAST_SILENCE = 0.00175


class Wire(Protocol):
    """The framing of one open line, with what it knows of the requests under way."""

    serial: bool
    """Answers carry no transaction: one request at a time, and a late answer must be waited out."""
    silence: float
    """Seconds that the line must be still before a request."""

    def begin(self, unit: int, request: bytes) -> tuple[int, bytes]:
        """A request's key, which its answer will have as `transaction`, and its frame."""

    def feed(self, data: bytes) -> Sequence[Frame]:
        """The answers that these bytes complete.

        Raises:
            FramingError: the stream cannot be followed any further.
        """

    def end(self, key: int, answered: bool) -> bool:
        """The request is over; False if too many were not answered for the line to go on."""

    def duration(self, frame: bytes, request: bytes) -> float:
        """Seconds that a request and its answer take on the line itself."""


class MbapWire:
    """Modbus/TCP. The transaction of a request that was not answered is not used again before it is."""

    serial = False
    silence = 0.0

    def __init__(self) -> None:
        self._framer = MbapFramer()
        self._last = 0
        self._open: set[int] = set()
        self._late: set[int] = set()

    def begin(self, unit: int, request: bytes) -> tuple[int, bytes]:
        """A request's transaction and its frame."""
        key = self._last + 1 & 0xFFFF
        while key in self._open or key in self._late:
            key = key + 1 & 0xFFFF
        self._last = key
        self._open.add(key)
        return key, mbap(key, unit, request)

    def feed(self, data: bytes) -> Sequence[Frame]:
        """The answers that these bytes complete, late ones too: their transactions may be used again."""
        frames = self._framer.feed(data)
        if self._late:
            self._late.difference_update(frame.transaction for frame in frames)
        return frames

    def end(self, key: int, answered: bool) -> bool:
        """The transaction is over, or late."""
        self._open.discard(key)
        if not answered:
            self._late.add(key)
        return len(self._late) <= MAX_LATE

    def duration(self, frame: bytes, request: bytes) -> float:
        """Nothing worth counting."""
        return 0.0


class RtuWire:
    """RTU: one request at a time."""

    serial = True

    def __init__(self, char_time: float = 0.0, silence: float = 0.0) -> None:
        self._char_time = char_time
        self.silence = silence
        self._framer: RtuAnswerFramer | None = None

    @classmethod
    def on(cls, port: Rtu) -> "RtuWire":
        """The wire of a serial port, with the times that follow from its speed."""
        bits = 1 + 8 + (port.parity != "none") + port.stopbits
        char_time = bits / port.baudrate
        return cls(char_time, _FAST_SILENCE if port.baudrate > _FAST else 3.5 * char_time)

    def begin(self, unit: int, request: bytes) -> tuple[int, bytes]:
        """Key 0 and the frame."""
        self._framer = RtuAnswerFramer(unit, request)
        return 0, rtu(unit, request)

    def feed(self, data: bytes) -> Sequence[Frame]:
        """The answer, if these bytes complete it; what comes unasked is dropped."""
        answer = self._framer.feed(data) if self._framer is not None else None
        return () if answer is None or self._framer is None else (Frame(0, self._framer.unit, answer),)

    def end(self, key: int, answered: bool) -> bool:
        """What still comes is dropped."""
        self._framer = None
        return True

    def duration(self, frame: bytes, request: bytes) -> float:
        """The time of all characters both ways."""
        return (len(frame) + pdu.usual_answer_size(request) + 3) * self._char_time


def wire_for(connection: Connection) -> Wire:
    """The framing that a connection speaks."""
    if isinstance(connection, Tcp | Tls):
        return MbapWire()
    return RtuWire.on(connection) if isinstance(connection, Rtu) else RtuWire()
