"""An absolute poll schedule. Pure."""


class Schedule:
    """Cycles at start + n * period, each within its period: no drift, and what was missed is skipped."""

    def __init__(self, period: float, start: float) -> None:
        self._period = period
        self._start = start
        self._cycle = -1

    @property
    def due(self) -> float:
        """When the next cycle begins; in the past, if it is late but still within its period."""
        return self._start + (self._cycle + 1) * self._period

    def begin(self, now: float) -> int:
        """Begins the cycle of this time, and says how many were missed since the last one."""
        before = self._cycle
        self._cycle = max(before + 1, int((now - self._start) // self._period))
        return self._cycle - before - 1
