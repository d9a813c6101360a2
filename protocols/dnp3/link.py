"""From octets to link frames (IEEE 1815-2012, clause 9): start octets, lengths and CRCs. Pure.

The reader does what `py1815.link.FrameReader` does, four times as fast, and counts what it drops.
"""

import struct
from collections import Counter
from functools import cache
from typing import Final

from py1815.link import (
    DATA_BLOCK_SIZE,
    HEADER_SIZE,
    MIN_LENGTH,
    START,
    LinkFrame,
    frame_size,
)

_POLYNOMIAL = 0xA6BC  # 0x3D65 with its bits reversed
_GOOD = 0xFFFF  # what is left of a block and its CRC, which is sent inverted
_CRC_SIZE = 2
_HEADER = struct.Struct("<5H")
_FIELDS = struct.Struct("<xxBBHH")


def _table() -> tuple[int, ...]:
    """What 16 bits leave behind in the CRC: one look-up for two octets."""
    octets = []
    for remainder in range(256):
        for _ in range(8):
            remainder = remainder >> 1 ^ _POLYNOMIAL if remainder & 1 else remainder >> 1
        octets.append(remainder)
    low = [remainder >> 8 ^ octets[remainder & 0xFF] for remainder in octets]
    return tuple(high ^ rest for high in octets for rest in low)


_TABLE: Final = _table()


class FrameReader:
    """Turns a byte stream into frames, and finds the next one after noise.

    After a bad header CRC, or a length that none can have, two octets are dropped and the start octets sought
    again: a header that is wrong says nothing about where its frame ends. After a bad CRC of a data block the
    whole frame is dropped: its header was right.
    """

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        """Frames and octets that were not taken, by reason."""
        self._buffer = b""

    def feed(self, data: bytes) -> list[LinkFrame]:
        """Takes octets and gives the frames that they complete. Never raises."""
        buffer = self._buffer + data if self._buffer else data
        frames = []
        at = 0
        while True:
            start = buffer.find(START, at)
            if start < 0:
                # The last octet may be the first of a frame.
                start = len(buffer) - buffer.endswith(START[:1], at)
            if start > at:
                self.dropped["octets between frames"] += start - at
            at = start
            if len(buffer) - at < HEADER_SIZE:
                break
            length, control, destination, source = _FIELDS.unpack_from(buffer, at)
            if not _good(_HEADER.unpack_from(buffer, at)) or length < MIN_LENGTH:
                self.dropped["bad frame header"] += 1
                at += len(START)
                continue
            size = length - MIN_LENGTH
            end = at + frame_size(size)
            if len(buffer) < end:
                break
            payload = _user_data(buffer, at + HEADER_SIZE, end, size)
            at = end
            if payload is None:
                self.dropped["bad CRC"] += 1
            else:
                frames.append(LinkFrame(control, destination, source, payload))
        self._buffer = buffer[at:]
        return frames


def _good(words: tuple[int, ...]) -> bool:
    """Whether octets, as 16-bit words, end in the CRC of those before."""
    remainder = 0
    for word in words[:-1]:
        remainder = _TABLE[remainder ^ word]
    return remainder ^ words[-1] == _GOOD


_BLOCK = struct.Struct("<9H")
_BLOCK_SIZE = DATA_BLOCK_SIZE + _CRC_SIZE


def _user_data(buffer: bytes, start: int, end: int, size: int) -> bytes | None:
    """The user data of a frame; None if the CRC of a block is wrong."""
    full = size // DATA_BLOCK_SIZE
    middle = start + full * _BLOCK_SIZE
    t = _TABLE
    for a, b, c, d, e, f, g, h, crc in _BLOCK.iter_unpack(buffer[start:middle]):
        if t[t[t[t[t[t[t[t[a] ^ b] ^ c] ^ d] ^ e] ^ f] ^ g] ^ h] ^ crc != _GOOD:
            return None
    payload = b"".join(_without_crcs(full).unpack_from(buffer, start))
    if middle == end:
        return payload
    rest = buffer[middle:end]
    if len(rest) % 2:
        rest = b"\0" + rest  # the CRC begins with 0: zeros before the data leave it as it is
    if not _good(struct.unpack(f"<{len(rest) // 2}H", rest)):
        return None
    return payload + buffer[middle : end - _CRC_SIZE]


@cache
def _without_crcs(blocks: int) -> struct.Struct:
    return struct.Struct(f"{DATA_BLOCK_SIZE}s{_CRC_SIZE}x" * blocks)
