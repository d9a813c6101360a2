"""Plays frames in the time that they were recorded in."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice

from protocols.can.frame import ERROR, Frame

Send = Callable[[Frame], Awaitable[object]]

_AHEAD = 2048
"""Frames that are read at once, beside the loop, while the ones before are played."""
_COARSE_S = 0.02
"""Rest of a wait that the event loop, whose timers count in milliseconds, is too coarse for."""
_PROGRESS_S = 0.1
_FAIR = 64
"""Frames that are due at once, after which others on the loop have their turn."""
_LATE_MOST = 100_000


@dataclass
class Played:
    """What was played by now; the same object is told again and again."""

    sent: int = 0
    errors: int = 0
    """Error frames, which nobody can send, passed over."""
    loops: int = 0
    """How often the recording was played to its end."""
    position: float = 0.0
    """Seconds from the recording's first frame to the newest."""
    late: float = 0.0
    """Seconds after its time that the newest frame was handed over."""
    _late: deque[float] = field(default_factory=lambda: deque(maxlen=_LATE_MOST))

    def lateness(self, share: float = 0.99) -> float:
        """Seconds after its time that this share of the newest 100,000 frames were handed over at most."""
        late = sorted(self._late)
        return late[min(len(late) - 1, int(len(late) * share))] if late else 0.0


async def play(
    frames: Iterable[Frame],
    send: Send,
    speed: float = 1.0,
    loop: bool | int = False,
    on_progress: Callable[[Played], None] = lambda played: None,
) -> Played:
    """Sends frames as far apart as their stamps are, until all are sent or it is cancelled.

    The schedule is absolute: a frame that is late makes no other one later. Frames that are due are sent one
    after the other; stamps that go back (the clock was set) count as no time. The next lap begins when the
    last frame is sent.

    Args:
        frames: What to play; to loop it has to be iterable again and again, as `logs.read` gives it.
        send: Sends one; what it raises ends the play.
        speed: 2 plays in half the time.
        loop: Whether to begin again at the end, without end; or how often it is played.
        on_progress: Told at the beginning, about ten times a second, and at the end.

    Raises:
        ValueError: `frames` says where it is damaged.
    """
    times = loop if loop is not True and loop > 1 else 1
    played = Played()
    clock = time.monotonic  # a loop's own time may stand still for a turn, and count milliseconds (uvloop)
    begin, told = None, clock()
    on_progress(played)
    with ThreadPoolExecutor(2, thread_name_prefix="play") as threads:
        while True:
            at_ns, last_ns = 0, None
            async with aclosing(_ahead(frames, threads)) as ahead:
                async for frame in ahead:
                    if last_ns is not None:
                        at_ns += max(0, frame.time_ns - last_ns)
                    last_ns = frame.time_ns
                    if begin is None:
                        begin = clock()
                    due = begin + at_ns * 1e-9 / speed
                    now = clock()
                    if now - told >= _PROGRESS_S:
                        on_progress(played)
                        told = now
                    if now < due:
                        if due - now > _PROGRESS_S:
                            on_progress(played)
                        await _until(due, threads)
                        now = clock()
                    played.position = at_ns * 1e-9
                    if frame.can_id & ERROR:
                        played.errors += 1
                        continue
                    played.late = max(0.0, now - due)
                    played._late.append(played.late)
                    await send(frame)
                    played.sent += 1
                    if played.sent % _FAIR == 0:
                        await asyncio.sleep(0)
            played.loops += 1
            if begin is None or last_ns is None:
                break  # there is nothing in it
            begin += at_ns * 1e-9 / speed
            if loop is not True and played.loops >= times:
                break
            await asyncio.sleep(0)  # a recording without time in it must not hold the loop
    on_progress(played)
    return played


async def _until(due: float, threads: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    if (left := due - time.monotonic()) > _COARSE_S:
        await asyncio.sleep(left - _COARSE_S / 2)
    if (left := due - time.monotonic()) > 0:
        await loop.run_in_executor(threads, time.sleep, left)


async def _ahead(frames: Iterable[Frame], threads: ThreadPoolExecutor) -> AsyncGenerator[Frame, None]:
    """The frames, read beside the loop, a piece ahead of what is played."""
    loop = asyncio.get_running_loop()
    source = iter(frames)
    damage: list[ValueError] = []

    def piece() -> list[Frame]:
        found: list[Frame] = []
        try:
            found.extend(islice(source, _AHEAD))
        except ValueError as error:  # what comes before the damage is played
            damage.append(error)
        return found

    reading = loop.run_in_executor(threads, piece)
    try:
        while found := await reading:
            reading = loop.run_in_executor(threads, piece)
            for frame in found:
                yield frame
    finally:
        await asyncio.wait([reading])  # a generator that is at work cannot be closed
        if isinstance(source, Generator):
            source.close()
    if damage:
        raise damage[0]
