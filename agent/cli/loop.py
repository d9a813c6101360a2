"""The event loop of a command: uvloop where it is installed, and signals that end it cleanly."""

import asyncio
import contextlib
import math
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TypeVar

from agent.cli.exits import Exit, tell

T = TypeVar("T")

_EXIT_GRACE_S = 1.0
"""How long threads may take to end after all else has."""

Main = Callable[[asyncio.Event], Coroutine[None, None, T]]
"""What a command does until it is done or its event is set, which SIGINT and SIGTERM do."""


def execute(main: Main[T]) -> T:
    """Runs a command's coroutine to its end. A second signal cancels it.

    Raises:
        KeyboardInterrupt: it was cancelled by a second signal.
    """
    failure: BaseException | None = None
    last_resort: threading.Timer | None = None
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                return runner.run(_until_signal(main))
            except BaseException as error:
                failure = error
                raise
            finally:
                # A name that is being looked up cannot be interrupted, and the runner waits for its thread.
                last_resort = threading.Timer(_EXIT_GRACE_S, _leave, (failure,))
                last_resort.daemon = True
                last_resort.start()
    finally:
        if last_resort is not None:
            last_resort.cancel()


def _leave(failure: BaseException | None) -> None:
    os._exit(Exit.OK if failure is None else tell(failure))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _until_signal(main: Main[T]) -> T:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        return await main(stop)
    except asyncio.CancelledError:
        if stop.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def every(period: float, stop: asyncio.Event, seconds: float | None) -> AsyncIterator[None]:
    """Yields each `period` seconds until `stop` is set, and at last when the time is over."""
    clock = asyncio.get_running_loop().time
    end = math.inf if seconds is None else clock() + seconds
    while (left := end - clock()) > 0 and not await wait(stop, min(period, left)):
        yield


async def wait(stop: asyncio.Event, seconds: float | None) -> bool:
    """Waits until `stop` is set or the time (None: no limit) is over; says whether it was set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()
