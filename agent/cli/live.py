"""A picture that is drawn again and again: in place on a terminal, one below the other elsewhere."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.cli.loop import every

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Picture = Callable[[float, int, int | None], "RenderableType"]
"""Draws what is known at a wall-clock time, in so many columns and at most so many lines (None: no limit)."""

REFRESH_S = 0.25
PLAIN_REFRESH_S = 5.0


async def show(console: "Console", stop: asyncio.Event, seconds: float | None, picture: Picture) -> None:
    """Draws until `stop` is set or the time is over; the last picture stays.

    Args:
        console: Where to draw; in place if it is a terminal.
        stop: Ends it.
        seconds: Ends it too; None: no limit.
        picture: What to draw.
    """
    if not console.is_terminal:
        async for _ in every(PLAIN_REFRESH_S, stop, seconds):
            console.print(picture(time.time(), console.width, None))
        return
    from rich.live import Live

    # No refresh thread of rich's own: all drawing happens here, on the loop.
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        async for _ in every(REFRESH_S, stop, seconds):
            live.update(picture(time.time(), *console.size), refresh=True)
