"""One line and the outstations on it, whatever carries its octets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from py1815.link import FrameReader

from sim.dnp3.session import Session

_LONGEST_S: Final = 0.05
_SHORTEST_S: Final = 0.002
"""Between looks at what has changed."""


class Line:
    """Hands frames to the sessions of a line; of several connections the newest is the line."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self._carrier: object = None
        self._hang_up: Callable[[], None] = lambda: None
        self._reader = FrameReader()
        self._is_cut = False

    def opened(self, carrier: object, write: Callable[[bytes], None], hang_up: Callable[[], None]) -> None:
        """A connection is there: the one before, if any, is closed. During a restart none is taken."""
        if self._is_cut or any(session.restarting for session in self._sessions):
            hang_up()
            return
        before, self._hang_up, self._carrier = self._hang_up, hang_up, carrier
        before()
        self._reader = FrameReader()
        for session in self._sessions:
            session.opened(write, hang_up)

    def received(self, carrier: object, data: bytes) -> None:
        """Octets came on a connection."""
        if carrier is self._carrier:
            for frame in self._reader.feed(data):
                for session in self._sessions:
                    session.frame(frame)

    def closed(self, carrier: object) -> None:
        """A connection is gone."""
        if carrier is self._carrier:
            self._carrier, self._hang_up = None, lambda: None
            for session in self._sessions:
                session.closed()

    def cut(self) -> None:
        """For tests: closes the connection and every new one until `restore`; serial lines stay open."""
        self._is_cut = True
        self._hang_up()

    def restore(self) -> None:
        """For tests: ends `cut`."""
        self._is_cut = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Lets time pass for the outstations meanwhile.

        Raises (on leaving):
            Exception: what made it stop early.
        """
        task = asyncio.create_task(self._run(), name="simulated DNP3 line")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            for session in self._sessions:
                session.tick()
            wait = min(session.outstation.wait_ms for session in self._sessions) / 1000
            await asyncio.sleep(min(max(wait, _SHORTEST_S), _LONGEST_S))
