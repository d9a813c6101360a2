"""Counters and checksums of frames that are sent, by named profiles. Pure.

A checksum is one whole byte. What it covers, by profile:

- `sum8`: the sum of all other bytes of the payload, modulo 256.
- `xor8`: the exclusive or of all other bytes.
- `crc8-j1850`: CRC-8 of SAE J1850 (polynomial 0x1D, start 0xFF, inverted) over all other bytes in order.
- `e2e-p01`: AUTOSAR E2E Protocol Specification (PRS), profile 1, variant 1A with both bytes of the Data ID:
  CRC-8 of SAE J1850 with start and final value 0x00 over the Data ID, its low byte first, and all other
  bytes. The checksum is byte 0; the counter is the low half of byte 1 and goes from 0 to 14.
- `e2e-p02`: profile 2 of that document: CRC-8 with polynomial 0x2F, start 0xFF, inverted, over all other
  bytes and the Data ID that the counter chooses. The checksum is byte 0; the counter is the low half of
  byte 1.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from protocols.can.signals.database import Message, Signal
from protocols.can.signals.encoder import place

if TYPE_CHECKING:
    from protocols.can.config import Checksum
    from protocols.can.config import Message as Settings


class Profile(NamedTuple):
    """How one kind of checksum is made."""

    calculate: "Callable[[bytes, int, Checksum], int]"
    """Of all bytes but the checksum, the counter's raw value (0 without one) and the settings."""
    last: int | None = None
    """Where the layout is fixed, the highest counter; else None."""

    @property
    def is_e2e(self) -> bool:
        """An AUTOSAR profile: where checksum and counter lie is fixed."""
        return self.last is not None


def _sum8(data: bytes, count: int, settings: "Checksum") -> int:
    return sum(data) & 0xFF


def _xor8(data: bytes, count: int, settings: "Checksum") -> int:
    return functools.reduce(operator.xor, data, 0)


def _j1850(data: bytes, count: int, settings: "Checksum") -> int:
    from crccheck.crc import Crc8SaeJ1850  # type: ignore[import-untyped]

    return int(Crc8SaeJ1850.calc(data))


def _e2e_p01(data: bytes, count: int, settings: "Checksum") -> int:
    from crccheck.crc import Crc8SaeJ1850

    data_id = settings.data_id or 0
    # The profile undoes the start and final values of the CRC that it is built on.
    return int(Crc8SaeJ1850.calc(data_id.to_bytes(2, "little") + data, initvalue=0)) ^ 0xFF


def _e2e_p02(data: bytes, count: int, settings: "Checksum") -> int:
    from crccheck.crc import Crc8Autosar

    return int(Crc8Autosar.calc(data + bytes([settings.data_ids[count]])))


PROFILES: Final[Mapping[str, Profile]] = {
    "sum8": Profile(_sum8),
    "xor8": Profile(_xor8),
    "crc8-j1850": Profile(_j1850),
    "e2e-p01": Profile(_e2e_p01, last=14),
    "e2e-p02": Profile(_e2e_p02, last=15),
}
"""What `checksum.profile` may say."""

E2E_CHECKSUM: Final = (0, 8)
"""First bit (see `Signal.first_bit`) and length of the checksum in AUTOSAR profiles 1 and 2, ..."""
E2E_COUNTER: Final = (12, 4)
"""... and of the counter."""

DATA_IDS: Final = 16
"""How many Data IDs profile 2 has."""


def lies_at(signal: Signal) -> tuple[int, int]:
    """First bit, counted from the top of each byte, and length of a signal that is within one byte."""
    first = (
        signal.start // 8 * 8 + 8 - signal.start % 8 - signal.length if signal.little else signal.first_bit
    )
    return first, signal.length


def last_count(message: Message, settings: "Settings") -> int:
    """The highest value of a message's counter; 0 where it has none."""
    if settings.counter is None:
        return 0
    if settings.counter.last is not None:
        return settings.counter.last
    profile = None if settings.checksum is None else PROFILES[settings.checksum.profile].last
    return (1 << message.signals[settings.counter.signal].length) - 1 if profile is None else profile


def protect(payload: bytes, message: Message, settings: "Settings", count: int) -> bytes:
    """The payload with the counter and the checksum that the profile says, if it says any.

    `count` is how many frames of the message were sent before: the counter goes from its first value to its
    last, and from then on from 0 to its last.
    """
    raw = 0
    if settings.counter is not None:
        raw = (settings.counter.first + count) % (last_count(message, settings) + 1)
        payload = place(payload, message.signals[settings.counter.signal], raw)
    if settings.checksum is not None:
        signal = message.signals[settings.checksum.signal]
        at = signal.start // 8
        rest = payload[:at] + payload[at + 1 :]
        profile = PROFILES[settings.checksum.profile]
        payload = place(payload, signal, profile.calculate(rest, raw, settings.checksum))
    return payload
