"""Setting an outstation's clock (IEEE 1815-2012, 10.3.3). No request of it is ever sent again."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from protocols.base import DriverError
from protocols.dnp3.fragment import Block, NotSent, Outstation, Reply
from protocols.dnp3.refusals import accepted

_WRITE, _DELAY_MEASURE, _RECORD_CURRENT_TIME = 0x02, 0x17, 0x18
_TIME: Final = b"\x32\x01\x07\x01"
"""Header of one absolute time: group 50 variation 1."""
_RECORDED_TIME: Final = b"\x32\x03\x07\x01"
"""Header of one time at which the outstation recorded its own: group 50 variation 3."""
DELAY: Final = 52
"""Group of time delays: variation 1 coarse, 2 fine; both in milliseconds once they are decoded."""


async def synchronise(outstation: Outstation, procedure: str, now_ms: Callable[[], int]) -> int | None:
    """Sets the clock, and gives the delay of one way in ms, where it was measured.

    `lan`: the outstation notes when a request comes, and is then told when that left; delays on the way are
    taken for nothing. `non-lan`: the delay is measured by a request whose answer says how long it was held.
    `now_ms`: UTC in ms since 1970, by our clock.

    Raises:
        DriverError: the outstation refused or did not answer; after a timeout of the last request it is not
            known whether its clock was set.
    """
    what = f"setting the clock of {outstation.name}"
    delay = None
    asked = time.time_ns()
    if procedure == "lan":
        reply = accepted(await outstation.ask(_RECORD_CURRENT_TIME), what, "set time_sync: non-lan")
        since = (time.time_ns() - (reply.sent_ns or asked)) // 1_000_000
        body = _RECORDED_TIME + _octets(now_ms() - since)
    else:
        reply = accepted(await outstation.ask(_DELAY_MEASURE), what, "set time_sync: lan, or never")
        took = (reply.time_ns - (reply.sent_ns or asked)) // 1_000_000
        delay = max(0, (took - _held(what, reply)) // 2)
        body = _TIME + _octets(now_ms() + delay)
    try:
        accepted(await outstation.ask(_WRITE, body), what)
    except NotSent:
        raise
    except DriverError as error:
        if error.code == "device-error":
            raise
        raise DriverError(error.code, f"{error}; whether its clock was set is not known") from error
    return delay


def _octets(time_ms: int) -> bytes:
    return time_ms.to_bytes(6, "little")


def _held(what: str, reply: Reply) -> int:
    held = delay_ms(reply.blocks)
    if held is None:
        why = reply.problem or "it does not say how long it held the request"
        text = f"{what} failed: {why}; set time_sync: lan, or never"
        raise DriverError("device-error", text)
    return held


def delay_ms(blocks: Sequence[Block]) -> int | None:
    """The time delay that a response carries, in ms; None if it has none."""
    return next((int(one.values[0]) for one in blocks if one.group == DELAY and one.values), None)
