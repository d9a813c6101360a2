"""An absolute poll schedule. Pure."""


class Schedule:
    """Cycles at start + n * period: they do not drift, and what was missed is not made up."""

    def __init__(self, period: float, start: float) -> None:
        self._period = period
        self._start = start
        self._cycle = -1

    def next(self, now: float) -> tuple[float, int]:
        """When the next cycle is due (first: at once), and how many were missed since the last one."""
        if self._cycle < 0:
            self._cycle = 0
            return self._start, 0
        cycle = max(self._cycle, int((now - self._start) // self._period)) + 1
        missed = cycle - self._cycle - 1
        self._cycle = cycle
        return self._start + cycle * self._period, missed
