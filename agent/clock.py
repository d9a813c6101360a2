"""Time, read in one place: the wall clock for stamps, a steady one for intervals, and how far to trust them.

The agent asks `clock.now_ns()` and `clock.steady()` by these names, so that a test can step them.
"""

import ctypes
import functools
import time
from pathlib import Path

import msgspec

_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000


class ClockStatus(msgspec.Struct, frozen=True):
    """What the kernel's clock discipline says: `offset_s` is its last known error in seconds."""

    synchronised: bool
    offset_s: float


def now_ns() -> int:
    """The wall clock: UTC in nanoseconds since 1970. People and time services may step it."""
    return time.time_ns()


def steady() -> float:
    """Seconds since the machine's boot, also while it was suspended. Nothing steps it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def boot_id() -> str:
    """Tells one boot of the machine from another (random(4), boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Moment(msgspec.Struct, frozen=True):
    """One instant by all clocks, as it is kept over a restart."""

    at: float
    """Seconds on the timeline."""
    boot: str
    steady: float
    wall_ns: int


class Timeline:
    """Seconds that only go forward, also over restarts of the agent, whatever the wall clock does meanwhile.

    Within one boot of the machine it follows the steady clock; only over a reboot it has to believe the wall
    clock, and then never goes back.
    """

    def __init__(self, last: Moment | None = None) -> None:
        start = steady()
        if last is None:
            began = 0.0
        elif last.boot == boot_id():
            began = last.at + max(0.0, start - last.steady)
        else:
            began = last.at + max(0.0, (now_ns() - last.wall_ns) / 1e9)
        self._offset = began - start

    def now(self) -> float:
        """Seconds since the timeline began."""
        return steady() + self._offset

    def moment(self) -> Moment:
        """This instant, to go on from after a restart."""
        return Moment(self.now(), boot_id(), steady(), now_ns())

    def wall_ns(self, at: float) -> int:
        """What the wall clock shows at an instant of the timeline, as far as can be said now."""
        return now_ns() + round((at - self.now()) * 1e9)


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2) as far as it is read; the kernel fills all 208 bytes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def clock_status() -> ClockStatus:
    """Asks the kernel (adjtimex(2), read only) whether a time service keeps the clock."""
    timex = _Timex()
    if _libc().adjtimex(ctypes.byref(timex)) < 0:
        return ClockStatus(synchronised=False, offset_s=0.0)
    scale = 1e-9 if timex.status & _STA_NANO else 1e-6
    return ClockStatus(not timex.status & _STA_UNSYNC, round(timex.offset * scale, 9))
