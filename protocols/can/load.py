"""How much of a bus's time frames take. Pure.

Bits of a frame: ISO 11898-1, data and remote frame format, from start of frame to the end of intermission,
without stuff bits: the lowest load that the frames can have made (they add less than a quarter to it).
"""

from functools import lru_cache

from protocols.can.frame import BRS, ERROR, EXTENDED, FDF, REMOTE, Frame

_CLASSICAL_BITS = 47
_EXTENDED_BITS = 67
_FD_ARBITRATION_BITS = (29, 48)
"""Of an FD frame at the nominal rate, with 11 and with 29 bits of identifier."""
_FD_DATA_BITS = (28, 32)
"""Of an FD frame beside its payload in the data phase, with a CRC of 17 and of 21 bits."""


@lru_cache(maxsize=1024)
def _bits(extended: bool, length: int, fd: bool) -> tuple[int, int]:
    """Bits of a frame in the arbitration phase and in the data phase."""
    if not fd:
        return (_EXTENDED_BITS if extended else _CLASSICAL_BITS) + 8 * length, 0
    return _FD_ARBITRATION_BITS[extended], _FD_DATA_BITS[length > 16] + 8 * length


class Load:
    """Adds up the time that frames took, at bit rates in bits a second."""

    def __init__(self, bitrate: int, data_bitrate: int | None = None) -> None:
        self._bitrate = bitrate
        self._data_bitrate = data_bitrate or bitrate
        self.busy_s = 0.0
        """Seconds that the bus was in use, since it was opened."""
        self._taken_s = 0.0

    def add(self, frame: Frame) -> None:
        """Counts one frame; error frames take no time that could be known."""
        can_id, flags = frame.can_id, frame.flags
        if can_id & ERROR:
            return
        length = 0 if can_id & REMOTE else len(frame.data)
        slow, fast = _bits(bool(can_id & EXTENDED), length, bool(flags & FDF))
        self.busy_s += slow / self._bitrate + fast / (self._data_bitrate if flags & BRS else self._bitrate)

    def take(self, seconds: float) -> float:
        """Load in percent over the seconds since the last call."""
        busy, self._taken_s = self.busy_s - self._taken_s, self.busy_s
        return min(100.0, 100 * busy / seconds) if seconds > 0 else 0.0
