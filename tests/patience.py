"""The event loop that tests run on: one that a busy machine does not hurry."""

import asyncio
import selectors
import threading
import time

SLICE_S = 0.01
"""The longest that the loop waits at once."""
STEP_S = 0.02
"""The most that its clock goes on between two looks at it."""


class PatientLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while the machine does not let this process run.

    Where both ends of a test share a loop, a process that stands still for a second is a second of silence
    to neither: no time-out ends before the loop has looked for what was there in time. Waiting counts whole.
    The clock never goes faster than the machine's, so nothing is early by either.
    """

    def __init__(self) -> None:
        self._looked = self._now = time.monotonic()
        self._one_at_a_time = threading.Lock()  # simulated devices look at this clock from threads
        super().__init__(_Slices())

    def time(self) -> float:
        """Seconds, of which those that this process was stopped for count as `STEP_S` at most."""
        with self._one_at_a_time:
            looked = time.monotonic()
            self._now += min(looked - self._looked, STEP_S)
            self._looked = looked
            return self._now


class _Slices(selectors.DefaultSelector):
    """Waits for `SLICE_S` at most, so that a loop that waits looks at its clock."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; nothing says only that the slice is over."""
        return super().select(SLICE_S if timeout is None else min(timeout, SLICE_S))
