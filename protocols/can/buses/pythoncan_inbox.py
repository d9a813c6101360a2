"""What waits between the threads of a bus and the loop. Bounded: what did not fit is counted in its place."""

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from protocols.can.frame import ERROR, Frame

if TYPE_CHECKING:
    from protocols.can.buses.pythoncan_threads import Job

BATCH_MOST: Final = 512
"""Frames that are handed over at once: the loop has other work too."""


class Batch:
    """Frames in the order of the bus, whose sending they complete, and how many were lost after them."""

    __slots__ = ("errors", "frames", "lost", "taken")

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.errors: list[Frame] = []
        self.taken: list[tuple[Job, Frame]] = []
        self.lost = 0


class Inbox:
    """Any thread may put; the loop takes. `wake` is called once until all was taken, not for each frame."""

    def __init__(self, room: int, wake: Callable[[], None]) -> None:
        self._room = room
        self._wake = wake
        self._lock = threading.Lock()
        self._batches: deque[Batch] = deque()
        self._waiting = 0
        self._awake = False

    def put(self, frame: Frame, job: "Job | None" = None) -> None:
        """Takes a frame, or counts it as lost; `job`, which it completes, is told in any case."""
        with self._lock:
            batch = self._newest()
            fits = self._waiting < self._room
            if fits and (batch.lost or len(batch.frames) >= BATCH_MOST):
                self._batches.append(batch := Batch())
            if fits:
                batch.frames.append(frame)
                self._waiting += 1
                if frame.can_id & ERROR:
                    batch.errors.append(frame)
            else:
                batch.lost += 1
            if job is not None:
                batch.taken.append((job, frame))
            wake, self._awake = not self._awake, True
        if wake:
            self._wake()

    def lose(self, count: int = 1) -> None:
        """Counts what came and could not be read."""
        with self._lock:
            self._newest().lost += count
            wake, self._awake = not self._awake, True
        if wake:
            self._wake()

    def take(self) -> tuple[Batch | None, bool]:
        """The oldest batch, and whether there are more."""
        with self._lock:
            batch = self._batches.popleft() if self._batches else None
            if batch is not None:
                self._waiting -= len(batch.frames)
            self._awake = bool(self._batches)
            return batch, self._awake

    def _newest(self) -> Batch:
        if not self._batches:
            self._batches.append(Batch())
        return self._batches[-1]
