"""How far the wall clock can be trusted."""

import ctypes
import functools

import msgspec

_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000


class ClockStatus(msgspec.Struct, frozen=True):
    """What the kernel's clock discipline says: `offset_s` is its last known error in seconds."""

    synchronised: bool
    offset_s: float


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
