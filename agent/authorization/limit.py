"""How often one sender may command: a token bucket for each, in bounded memory. Pure."""

from collections import OrderedDict

import msgspec

from agent.authorization.config import RateLimit

_OTHERS = ""
"""Whoever has no name, and whoever comes when all buckets are in use."""


class _Bucket(msgspec.Struct):
    level: float
    at: float


class _Senders:
    """The buckets of so many senders, and one for all others."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._others = _Bucket(limit.burst, 0.0)

    def bucket(self, sender: str, now: float) -> _Bucket:
        """A sender's own bucket, or that of all who have none."""
        if sender == _OTHERS:
            return self._others
        if (bucket := self._buckets.get(sender)) is not None:
            self._buckets.move_to_end(sender)
            return bucket
        if len(self._buckets) >= self._limit.senders:
            idle = next(iter(self._buckets.values()))
            if idle.level + (now - idle.at) * self._limit.per_second < self._limit.burst:
                return self._others  # to forget one that is in use would give it a new allowance
            self._buckets.popitem(last=False)
        bucket = self._buckets[sender] = _Bucket(self._limit.burst, now)
        return bucket


class Limiter:
    """Takes one from a sender's allowance for each command. Times are in seconds of one steady clock."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        # Apart: names that are made up fill their own table alone.
        self._unproven, self._proven = _Senders(limit), _Senders(limit)
        self._together = _Bucket(limit.burst * limit.together, 0.0)

    def take(self, sender: str, now: float, *, proven: bool = False) -> float:
        """0 if the sender may go on, else the seconds after which it may come again.

        Who is not `proven` to be that sender takes from what all of these have together, too.
        """
        senders = self._proven if proven else self._unproven
        wait = self._draw(senders.bucket(sender, now), now)
        return wait if wait or proven else self._draw(self._together, now, self._limit.together)

    def _draw(self, bucket: _Bucket, now: float, times: float = 1.0) -> float:
        """Takes one from a bucket of so many times one sender's size and rate, or says when it has one."""
        rate, burst = self._limit.per_second * times, self._limit.burst * times
        level = min(burst, bucket.level + max(0.0, now - bucket.at) * rate)
        bucket.at = now
        if level < 1:
            bucket.level = level
            return (1 - level) / rate
        bucket.level = level - 1
        return 0.0
