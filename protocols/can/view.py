"""The raw view of a bus: which frames are passed on, how many, and when they leave."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from protocols.base import Batch
from protocols.can.config import Frames
from protocols.can.frame import ERROR, EXTENDED, EXTENDED_MASK, OWN, Frame
from protocols.can.pcap import Emit, Gatherer

_BURST_S = 0.1
"""With `max_rate`: so much of it may come at once."""
_STEP_NS = 1_000_000_000
"""A stamp that is earlier by more than this is no disorder: the clock was set back."""
_REMEMBERED = 65_536
"""Identifiers of which it is remembered whether they pass."""


class FramesView:
    """Selects frames and gathers them into pcap files, one each batch window. Runs on the loop."""

    def __init__(self, config: Frames, batch: Batch, emit: Emit, lost: Callable[[int, str], None]) -> None:
        self._config = config
        self._window = batch.window
        self._lost = lost
        self._gatherer = Gatherer(batch.bytes, emit)
        self._timer: asyncio.TimerHandle | None = None
        self._passes: dict[int, bool] = {}
        self._tokens = self._burst = max(1.0, (config.max_rate or 0.0) * _BURST_S)
        self._last_ns = 0
        self._all = not config.ids and config.errors and config.own

    def take(self, batch: Sequence[Frame]) -> None:
        """Takes frames in the order of the bus."""
        chosen = batch if self._all else [frame for frame in batch if self._is_wanted(frame)]
        if self._config.max_rate is not None:
            chosen = self._limited(chosen, self._config.max_rate)
        if not chosen:
            return
        self._gatherer.extend(chosen)
        if not self._window:
            self._gatherer.flush()
        elif self._timer is None and not self._gatherer.empty:
            self._timer = asyncio.get_running_loop().call_later(self._window, self.flush)

    def flush(self) -> None:
        """Emits what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gatherer.flush()

    def _is_wanted(self, frame: Frame) -> bool:
        can_id = frame.can_id
        if can_id & ERROR:
            return self._config.errors
        if frame.flags & OWN and not self._config.own:
            return False
        if not self._config.ids:
            return True
        key = can_id & (EXTENDED | EXTENDED_MASK)
        wanted = self._passes.get(key)
        if wanted is None:
            wanted = any(first <= key <= last for first, last in self._config.ids)
            if len(self._passes) >= _REMEMBERED:
                self._passes.clear()
            self._passes[key] = wanted
        return wanted

    def _limited(self, frames: Sequence[Frame], rate: float) -> Sequence[Frame]:
        kept = list(self._within(frames, rate))
        if len(kept) < len(frames):
            self._lost(len(frames) - len(kept), "rate-limit")
        return kept

    def _within(self, frames: Sequence[Frame], rate: float) -> Iterator[Frame]:
        """A token bucket by the frames' own time, so that a slow agent does not pass more or less."""
        for frame in frames:
            if frame.time_ns < self._last_ns - _STEP_NS:
                self._last_ns = frame.time_ns
            passed_s = max(0, frame.time_ns - self._last_ns) * 1e-9
            self._tokens = min(self._burst, self._tokens + passed_s * rate)
            self._last_ns = max(self._last_ns, frame.time_ns)
            if self._tokens >= 1:
                self._tokens -= 1
                yield frame
