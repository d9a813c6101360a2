"""Waiting for what other tasks and sockets bring about."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition is true.

    Raises:
        TimeoutError: it is not in half a minute.
    """
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
