"""How fast values may change: the values that a point had within the last second. Pure."""

from collections import deque
from typing import NamedTuple

WINDOW_S = 1.0
"""A `max_rate` holds within any time of this length."""
_ROUNDING = 1e-9


class Span(NamedTuple):
    """The values that may be written now; none where `low` is above `high`."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value lies in it, but for the rounding of floating-point numbers."""
        slack = _ROUNDING * max(1.0, abs(self.low), abs(self.high))
        return self.low - slack <= value <= self.high + slack

    def within(self, least: float | None, most: float | None) -> "Span":
        """What a point's own limits leave of it."""
        low = self.low if least is None else max(self.low, least)
        return Span(low, self.high if most is None else min(self.high, most))

    def __str__(self) -> str:
        if self.low > self.high:
            return "nothing else for a second"
        return f"from {self.low:.9g} to {self.high:.9g}"


class Rates:
    """The values of points in the last second, by device and point; times are seconds of a steady clock."""

    def __init__(self) -> None:
        self._past: dict[tuple[str, str], deque[tuple[float, float]]] = {}

    def saw(self, key: tuple[str, str], value: float, now: float) -> None:
        """Takes a reading: the value in force now."""
        self._past.setdefault(key, deque()).append((now, value))

    def wrote(self, key: tuple[str, str], value: float, now: float) -> None:
        """Takes a value that was written: until now the one before it was in force."""
        past = self._past.setdefault(key, deque())
        if past:
            past.append((now, past[-1][1]))
        past.append((now, value))
        self._forget(past, now)

    def allowed(self, key: tuple[str, str], max_rate: float, now: float) -> Span:
        """What may be written now, for a point whose value in force was just seen."""
        past = self._past[key]
        self._forget(past, now)
        values = [value for _, value in past]
        return Span(max(values) - max_rate, min(values) + max_rate)

    @staticmethod
    def _forget(past: deque[tuple[float, float]], now: float) -> None:
        while past[0][0] <= now - WINDOW_S:
            past.popleft()
