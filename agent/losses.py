"""What a device lost before it became a sample, counted until it is said."""

from collections import Counter

import msgspec


class Lost(msgspec.Struct, frozen=True):
    """How much was lost for one reason, and between which times (UTC, nanoseconds)."""

    reason: str
    count: int
    first_ns: int
    last_ns: int


class Losses:
    """Counts by reason; each count is said once."""

    def __init__(self) -> None:
        self._by_reason: dict[str, Lost] = {}
        self.totals: Counter[str] = Counter()
        """How much was lost for each reason since the agent started, also what was said."""

    def count(self, reason: str, count: int, first_ns: int, last_ns: int) -> None:
        """Adds to what was lost for a reason."""
        self.totals[reason] += count
        before = self._by_reason.get(reason)
        first = first_ns if before is None else before.first_ns
        self._by_reason[reason] = Lost(reason, count + (before.count if before else 0), first, last_ns)

    def take(self) -> list[Lost]:
        """What was lost since the last call."""
        lost = list(self._by_reason.values())
        self._by_reason.clear()
        return lost
