"""What is counted of commands: plain numbers, read when somebody scrapes. Pure."""

from bisect import bisect_left
from typing import Final

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets that times of commands are counted in, in seconds."""

OPS: Final = (
    *("ping", "describe", "read", "write", "call", "reserve", "renew", "release"),
    *("enable", "disable", "mode", "safe", "fault", "scenario", "record"),
)
"""All ops of wire.md section 4: the only values of the label `op`, beside UNKNOWN."""

STATUSES: Final = ("ok", "rejected", "failed", "indeterminate")
"""All statuses of a result (wire.md section 4)."""

CODES: Final = (
    *("malformed", "unknown-op", "unknown-device", "unknown-point", "read-only", "out-of-range", "bad-type"),
    *("not-leased", "lease-held", "lease-expired", "unauthorized", "disabled", "expired", "too-large"),
    *("rate-limited", "wrong-mode", "busy"),
    *("device-error", "timeout", "disconnected", "verify-mismatch", "partial"),
)
"""All codes of a result that is not ok (wire.md section 4): the only values of the label `code`."""

UNKNOWN: Final = "unknown"
"""The label of an op that the contract does not know, whatever its sender called it."""

OTHER: Final = "other"
"""The label of a code or reason that is on no list."""


class Durations:
    """A histogram of seconds."""

    __slots__ = ("buckets", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        """How many fell in each bucket and in no smaller one; the last is for all that took longer."""
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Counts one; a clock that was set back meanwhile makes it zero."""
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += max(0.0, seconds)


class CommandCounts:
    """How commands ended. No label comes from a sender: what is on no list is `unknown` or `other`."""

    def __init__(self) -> None:
        self.outcomes = {(op, status): 0 for op in (*OPS, UNKNOWN) for status in STATUSES}
        self.codes = dict.fromkeys((*CODES, OTHER), 0)
        self.durations: dict[str, Durations] = {}
        """By op, of those that came."""
        self.repeated = 0
        """Commands that came again and were answered by their recorded result."""

    def finished(self, op: str, status: str, code: str, seconds: float) -> None:
        """Counts a command that has its result."""
        known = op if op in OPS else UNKNOWN
        self.outcomes[known, status] += 1
        if code:
            self.codes[code if code in self.codes else OTHER] += 1
        durations = self.durations.get(known)
        if durations is None:
            durations = self.durations[known] = Durations()
        durations.add(seconds)
