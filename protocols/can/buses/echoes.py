"""Frames that were handed over and are not yet known to have been on the bus."""

import asyncio
from collections import deque

from protocols.base import DriverError
from protocols.can.frame import FDF, Frame

_Key = tuple[int, bytes, int]


def _key(frame: Frame) -> _Key:
    # BRS and ESI are the controller's to change.
    return frame.can_id, frame.data, frame.flags & FDF


class Echoes:
    """Who waits for which of our own frames to come back; equal ones come back in the order they were sent.

    Who no longer waits keeps the place in the row, or the frame's late echo would be taken for that of an
    equal frame that was sent after it.
    """

    def __init__(self) -> None:
        self._awaited: dict[_Key, deque[asyncio.Future[Frame]]] = {}

    def expect(self, frame: Frame) -> asyncio.Future[Frame]:
        """What the frame's echo will be the result of."""
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(_key(frame), deque()).append(future)
        return future

    def take(self, frame: Frame) -> None:
        """Takes an echo."""
        key = _key(frame)
        row = self._awaited.get(key)
        if row is None:
            return
        future = row.popleft()
        if not row:
            del self._awaited[key]
        if not future.done():
            future.set_result(frame)

    def forget_given_up(self) -> None:
        """Forgets those nobody waits for: echoes may have been lost, theirs perhaps."""
        for key, row in list(self._awaited.items()):
            waiting = deque(future for future in row if not future.done())
            if waiting:
                self._awaited[key] = waiting
            else:
                del self._awaited[key]

    def drop(self, frame: Frame, future: asyncio.Future[Frame]) -> None:
        """Forgets one that nobody waits for, as its echo may have been lost."""
        row = self._awaited.get(_key(frame))
        if row is not None and future in row:
            row.remove(future)
            if not row:
                del self._awaited[_key(frame)]

    def fail(self, error: DriverError) -> None:
        """Nothing will come back any more."""
        for row in self._awaited.values():
            for future in row:
                if not future.done():
                    future.set_exception(DriverError(error.code, str(error)))
        self._awaited.clear()
