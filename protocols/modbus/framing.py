"""Modbus frames on a stream of bytes: MBAP over TCP and TLS, RTU over serial lines and TCP. Pure.

Both take bytes in any pieces and give whole PDUs.
"""

import struct
from typing import NamedTuple

from protocols.modbus import pdu

_MBAP = struct.Struct(">HHHB")
_MAX_RTU = 256  # unit, PDU and CRC (Modbus over Serial Line V1.02, section 2.5.1)


class Frame(NamedTuple):
    """One PDU as it came; `transaction` is 0 on RTU, which has none."""

    transaction: int
    unit: int
    pdu: bytes


class FramingError(Exception):
    """The stream cannot be followed any further; the text says why."""


def mbap(transaction: int, unit: int, body: bytes) -> bytes:
    """A frame of Modbus/TCP (Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3)."""
    return _MBAP.pack(transaction, 0, len(body) + 1, unit) + body


class MbapFramer:
    """Cuts a Modbus/TCP stream into frames, of requests or answers alike."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete.

        Raises:
            FramingError: a header that is none: what follows has no known beginning.
        """
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= _MBAP.size:
            transaction, protocol, length, unit = _MBAP.unpack_from(data, at)
            if protocol or not 2 <= length <= pdu.MAX_PDU + 1:
                raise FramingError(f"no Modbus/TCP header: protocol {protocol}, length {length}")
            stop = at + 6 + length
            if stop > end:
                break
            frames.append(Frame(transaction, unit, data[at + 7 : stop]))
            at = stop
        self._rest = data[at:]
        return frames


def _crc_table() -> tuple[int, ...]:
    def entry(byte: int) -> int:
        for _ in range(8):
            byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
        return byte

    return tuple(entry(byte) for byte in range(256))


_CRC = _crc_table()


def crc(data: bytes | bytearray) -> int:
    """The CRC of an RTU frame (Modbus over Serial Line V1.02, section 6.2.2); 0 over a frame with its CRC."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value


def rtu(unit: int, body: bytes) -> bytes:
    """An RTU frame."""
    frame = bytes((unit,)) + body
    return frame + crc(frame).to_bytes(2, "little")


class RtuAnswerFramer:
    """Finds the answer to one request on an RTU line, among whatever else is on it.

    Only a frame of the asked unit, of the asked function, of the length that the request implies and with
    a right CRC is an answer. All else is passed over, so noise before an answer does no harm.
    """

    def __init__(self, unit: int, request: bytes) -> None:
        self.unit = unit
        self._request = request
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The answer's PDU, once these bytes complete it."""
        buffer = self._buffer
        buffer += data
        while (at := buffer.find(self.unit)) >= 0:
            del buffer[:at]
            length = pdu.answer_length(self._request, bytes(buffer[1:_MAX_RTU]))
            if length == pdu.UNKNOWN and len(buffer) <= _MAX_RTU:
                return bytes(buffer[1:-2]) if len(buffer) > 3 and crc(buffer) == 0 else None
            if 0 <= length <= pdu.MAX_PDU:
                if length == pdu.MORE or length + 3 > len(buffer):
                    return None
                if crc(buffer[: length + 3]) == 0:
                    return bytes(buffer[1 : length + 1])
            del buffer[:1]
        buffer.clear()
        return None


class RtuRequestFramer:
    """Cuts an RTU stream into requests, as a server sees them; after garbage it finds the next by its CRC."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The requests that these bytes complete."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        while buffer:
            length = pdu.request_length(bytes(buffer[1:_MAX_RTU]))
            if length == pdu.UNKNOWN:
                length = len(buffer) - 3
                if length < 1 or crc(buffer) != 0:
                    if len(buffer) < _MAX_RTU:
                        break
                    length = pdu.IMPOSSIBLE
            if length == pdu.MORE or length + 3 > len(buffer):
                break
            if length > 0 and crc(buffer[: length + 3]) == 0:
                frames.append(Frame(0, buffer[0], bytes(buffer[1 : length + 1])))
                del buffer[: length + 3]
            else:
                del buffer[:1]
        return frames

    def silence(self) -> None:
        """The line was still for 3.5 characters: what has come so far is no beginning of a request."""
        self._buffer.clear()
