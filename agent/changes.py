"""`report: change`: only what changed leaves, and everything now and then."""

import time
from collections.abc import Mapping

from protocols.base import Quality, Sample, Value

_NEVER = object()


class ChangeFilter:
    """Keeps the last value sent of each point; after `refresh` seconds a point is sent again anyway."""

    def __init__(self, refresh: float) -> None:
        self._refresh = refresh
        self._last: dict[str, Value | Quality] = {}
        self._sent: dict[str, float] = {}
        self._seen: Mapping[str, Value] | None = None
        self._due = 0.0

    def changed(self, sample: Sample) -> Sample | None:
        """The part of a sample that is news, or None."""
        now = time.monotonic()
        if sample.values is self._seen and not sample.bad and now < self._due:
            return None
        values = {name: value for name, value in sample.values.items() if self._is_news(name, value, now)}
        bad = {name: why for name, why in sample.bad.items() if self._is_news(name, why, now)}
        self._seen = sample.values
        self._due = min((self._sent[name] for name in sample.values), default=now) + self._refresh
        return Sample(sample.time_ns, values, bad) if values or bad else None

    def forget(self) -> None:
        """Everything is news again."""
        self._last.clear()
        self._seen = None

    def _is_news(self, name: str, value: Value | Quality, now: float) -> bool:
        last = self._last.get(name, _NEVER)
        # A quality equals its text, and True equals 1: the type counts too.
        if last == value and type(last) is type(value) and now < self._sent[name] + self._refresh:
            return False
        self._last[name] = value
        self._sent[name] = now
        return True
