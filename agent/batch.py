"""Gathers a device's samples into events: one per batch window, encoded as they come."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import islice

import msgspec

from protocols.base import Batch, Quality, Sample, Value
from protocols.timestamps import rfc3339

_HEAD, _TAIL = b'{"samples":[', b"]}"
_encode = msgspec.json.Encoder().encode

Emit = Callable[[bytes, int], None]
"""Takes an event's body and the time of its first sample."""


class Batcher:
    """Collects encoded samples until the window, the count or the size is reached.

    Each sample is encoded when it comes, so that the size is exact and nothing is kept twice.
    """

    def __init__(self, limits: Batch, emit: Emit) -> None:
        self._limits = limits
        self._emit = emit
        self._parts: list[bytes] = []
        self._bytes = 0
        self._first_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._last: tuple[Mapping[str, Value], bytes] = ({}, b"{}")

    def add(self, sample: Sample) -> None:
        """Takes a sample; may emit at once."""
        part = self._encoded(sample)
        room = self._limits.bytes - len(_HEAD) - len(_TAIL)
        if len(part) > room:
            for smaller in _smaller(sample):
                self.add(smaller)
            return
        if self._parts and self._bytes + len(part) > room:
            self.flush()
        if not self._parts:
            self._first_ns = sample.time_ns
        self._parts.append(part)
        self._bytes += len(part) + 1
        if len(self._parts) >= self._limits.samples or not self._limits.window:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limits.window, self.flush)

    def flush(self) -> None:
        """Emits what was gathered, if anything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parts:
            body = _HEAD + b",".join(self._parts) + _TAIL
            self._parts, self._bytes = [], 0
            self._emit(body, self._first_ns)

    def _encoded(self, sample: Sample) -> bytes:
        if sample.values is not self._last[0]:
            self._last = (sample.values, _encode(sample.values))
        bad = b',"bad":' + _encode(sample.bad) if sample.bad else b""
        return b'{"time":"%b","values":%b%b}' % (rfc3339(sample.time_ns).encode(), self._last[1], bad)


def _smaller(sample: Sample) -> tuple[Sample, ...]:
    """Two samples of the same instant with half of the points each; a single value that large is `bad`."""
    if len(sample.values) + len(sample.bad) == 1:
        return (Sample(sample.time_ns, {}, dict.fromkeys(sample.values, Quality.OUT_OF_RANGE)),)
    points: list[tuple[str, Value | Quality]] = [*sample.values.items(), *sample.bad.items()]
    middle = len(points) // 2
    return _part(sample, dict(islice(points, middle))), _part(sample, dict(points[middle:]))


def _part(sample: Sample, names: Mapping[str, Value | Quality]) -> Sample:
    values = {name: value for name, value in sample.values.items() if name in names}
    return Sample(sample.time_ns, values, {name: why for name, why in sample.bad.items() if name in names})
