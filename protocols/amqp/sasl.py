"""The server's side of SASL (AMQP 1.0 part 5, section 5.3), as bytes in and bytes out.

proton's built-in server offers ANONYMOUS only, and PLAIN just where it was compiled with Cyrus SASL and
configured by files; clients use proton's own.
"""

import enum
import struct
from collections.abc import Callable
from typing import Any

import proton

from protocols.amqp.performatives import PeerError, get_object

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
_AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
_MAX_FRAME = 4096
_SYMBOL: Any = proton.Data.SYMBOL
_UNDESCRIBED: Any = proton.UNDESCRIBED
_MECHANISMS, _INIT, _OUTCOME = 0x40, 0x41, 0x44

Verify = Callable[[str, str], bool]
"""Takes user name and password, says whether they are good."""


class SaslState(enum.Enum):
    """Where the negotiation stands."""

    GOING_ON = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class SaslServer:
    """One connection's negotiation. Mechanisms: PLAIN where `verify` is given, ANONYMOUS where allowed."""

    def __init__(self, verify: Verify | None, anonymous: bool) -> None:
        self._verify = verify
        self._anonymous = anonymous
        self._buffer = b""
        self._header_seen = False
        self.state = SaslState.GOING_ON
        self.user: str | None = None

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What is offered, best first."""
        return ("PLAIN",) * (self._verify is not None) + ("ANONYMOUS",) * self._anonymous

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Takes bytes of the peer; gives bytes to send, and those that follow a finished negotiation."""
        self._buffer += data
        answer = b""
        while self.state is SaslState.GOING_ON:
            step = self._frame() if self._header_seen else self._header()
            if step is None:
                return answer, b""
            answer += step
        rest, self._buffer = self._buffer, b""
        return answer, rest if self.state is SaslState.DONE else b""

    def _header(self) -> bytes | None:
        if len(self._buffer) < 8:
            return None
        if self._buffer[:8] == SASL_HEADER:
            self._buffer = self._buffer[8:]
            self._header_seen = True
            offer = proton.Array(_UNDESCRIBED, _SYMBOL, *map(proton.symbol, self.mechanisms))
            return SASL_HEADER + _frame(_MECHANISMS, offer)
        if self._buffer[:8] == _AMQP_HEADER and self._anonymous:
            self.state = SaslState.DONE  # without a SASL layer: the same as ANONYMOUS
            return b""
        self.state = SaslState.FAILED  # part 2, section 2.2: name the protocol we want, then close
        return SASL_HEADER

    def _frame(self) -> bytes | None:
        if len(self._buffer) < 8:
            return None
        size, offset, kind = struct.unpack_from(">IBB", self._buffer)
        if not 8 <= size <= _MAX_FRAME or not 8 <= offset * 4 <= size or kind != 1:
            self.state = SaslState.FAILED
            return b""
        if len(self._buffer) < size:
            return None
        body, self._buffer = self._buffer[offset * 4 : size], self._buffer[size:]
        good = self._authenticate(body)
        self.state = SaslState.DONE if good else SaslState.FAILED
        return _frame(_OUTCOME, proton.ubyte(0 if good else 1))

    def _authenticate(self, body: bytes) -> bool:
        init = _decode_init(body)
        if init is None:
            return False
        mechanism, response = init
        if mechanism == "ANONYMOUS":
            return self._anonymous
        if mechanism != "PLAIN" or self._verify is None:
            return False
        parts = response.split(b"\0")  # RFC 4616: authorization identity, user name, password
        try:
            _, user, password = (part.decode() for part in parts)
        except ValueError:  # not three parts, or not UTF-8
            return False
        if not self._verify(user, password):
            return False
        self.user = user
        return True


def _frame(descriptor: int, field: Any) -> bytes:
    data = proton.Data()
    data.put_described()
    data.enter()
    data.put_ulong(descriptor)
    data.put_list()
    data.enter()
    data.put_object(field)
    data.exit()
    data.exit()
    body = bytes(data.encode())
    return struct.pack(">IBBH", 8 + len(body), 2, 1, 0) + body


def _decode_init(body: bytes) -> tuple[str, bytes] | None:
    """The mechanism and initial response of a sasl-init; None for anything else."""
    data = proton.Data()
    try:
        data.decode(body)
        described = get_object(data)
    except (proton.ProtonException, PeerError):
        return None
    if not isinstance(described, proton.Described) or described.descriptor != _INIT:
        return None
    match described.value:
        case [str(mechanism), (bytes() | memoryview()) as response, *_]:
            return mechanism, bytes(response)
        case [str(mechanism), *_]:
            return mechanism, b""
    return None
