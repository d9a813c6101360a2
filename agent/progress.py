"""Whether the agent's own parts go on: what a watchdog and a liveness probe ask."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

TICK_S = 1.0
"""How often the parts are looked at."""
LATE_TICKS = 10
"""Looks in a row at which a part stood still, before that counts."""

Part = Callable[[], Iterable[str]]
"""Says at each look which of its parts stand still now, in words that stay the same while they do."""


class Progress:
    """Looks at the parts of an agent each second.

    It counts looks, not seconds: a machine that was suspended, or a process that was stopped for a while,
    holds nothing against them. A loop that hangs looks at nothing, and answers nobody.
    """

    def __init__(self, *parts: Part) -> None:
        self._parts = list(parts)
        self._late: dict[str, int] = {}
        self._log = structlog.get_logger("progress")

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.look()

    def look(self) -> None:
        """Looks once."""
        before = self.stalled()
        still = [sentence for part in self._parts for sentence in part()]
        self._late = {sentence: self._late.get(sentence, 0) + 1 for sentence in still}
        if (now := self.stalled()) != before:
            if now:
                self._log.error("the agent does not go on", reason=now)
            else:
                self._log.info("the agent goes on again")

    def stalled(self) -> str:
        """Which part does not go on, in words; empty while all do.

        A device that is offline, a disk that is full and a broker that is away are no such part.
        """
        return next((sentence for sentence, looks in self._late.items() if looks >= LATE_TICKS), "")

    def follow(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Adds tasks that never end by themselves."""
        followed = list(tasks)
        self._parts.append(lambda: [f"{task.get_name()} has ended" for task in followed if task.done()])


def counting(turns: Callable[[], int], sentence: str) -> Part:
    """A part that counts its turns, and stands still when the number stays."""
    last = -1

    def part() -> list[str]:
        nonlocal last
        before, last = last, turns()
        return [sentence] if last == before else []

    return part
