"""Who may move a device now: one command at a time, and before all of them whoever makes it safe."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from protocols.base import Refused


class Overtaken(Exception):
    """The bench was made safe while a command was being carried out, which was broken off."""


class Turns:
    """The turns of one device. What came before it was made safe never moves it afterwards."""

    def __init__(self, device: str) -> None:
        self.overtakes = 0
        """How often commands were overtaken; one that came at another count is too old to move the device."""
        self._device = device
        self._lock = asyncio.Lock()
        self._going = asyncio.Event()
        self._going.set()
        self._makers = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._mover: asyncio.Task[object] | None = None
        self._broken_off = False

    @contextlib.asynccontextmanager
    async def commanded(self, overtakes: int) -> AsyncIterator[None]:
        """A command's turn; `overtakes` is the count from when it came.

        Raises:
            Refused: `expired`; the device was made safe since the command came.
            Overtaken: the device is to be made safe now, and the body did not end in time.
        """
        await self._wait_to_go()
        try:
            if overtakes != self.overtakes:
                text = (
                    f"device {self._device} was made safe after this command came; send it again if need be"
                )
                raise Refused("expired", text)
            self._mover = asyncio.current_task()
            try:
                yield
            except asyncio.CancelledError:
                if not self._take_back():
                    raise
                text = f"broken off to make device {self._device} safe; it may or may not have had effect"
                raise Overtaken(text) from None
            finally:
                self._take_back()  # a driver may have ended in its own way all the same
                self._mover = None
        finally:
            self._lock.release()

    async def _wait_to_go(self) -> None:
        """Takes the lock, once commands are not held back."""
        while True:
            await self._going.wait()
            await self._lock.acquire()
            if self._going.is_set():
                return
            self._lock.release()

    def _take_back(self) -> bool:
        """Takes back that the mover is broken off; whether it was, and nobody else cancelled it."""
        if not self._broken_off or self._mover is None:
            return False
        self._broken_off = False
        return not self._mover.uncancel()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Time between two commands. Whoever makes the device safe meanwhile does not wait for its end."""
        self._going.clear()
        try:
            async with self._lock:
                pass  # the command that was under way has ended
            yield
        finally:
            self._going.set()

    async def calm(self, within: float) -> None:
        """Returns when nobody makes the device safe any more, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._makers:  # another may have begun before this goes on
                    await self._calm.wait()

    @contextlib.asynccontextmanager
    async def overtaken(self, grace: float) -> AsyncIterator[None]:
        """A turn before all commands: one under way has `grace` seconds to end and is then broken off."""
        self.overtakes += 1
        self._makers += 1
        self._calm.clear()
        have = False
        try:
            if not (have := await self._acquire(grace)) and self._mover is not None:
                self._broken_off = True
                self._mover.cancel()
                # A driver that does not let itself be cancelled keeps nobody from making the device safe.
                have = await self._acquire(grace)
            yield
        finally:
            if have:
                self._lock.release()
            self._makers -= 1
            if not self._makers:
                self._calm.set()

    async def _acquire(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                return await self._lock.acquire()
        except TimeoutError:
            return False
