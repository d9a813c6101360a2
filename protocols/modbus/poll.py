"""An absolute poll schedule. Pure."""


class Schedule:
    """Cycles at start + n * period: they do not drift, and what was missed is not made up."""

    def __init__(self, period: float, start: float) -> None:
        self._period = period
        self._start = start
        self._cycle = -1

    def next(self, now: float) -> tuple[float, int]:
        """When the next cycle is due, and how many were missed since the last one."""
        cycle = max(self._cycle + 1, int((now - self._start) // self._period) + 1 if now > self._start else 0)
        missed = cycle - self._cycle - 1
        self._cycle = cycle
        return self._start + cycle * self._period, missed
