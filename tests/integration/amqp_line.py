"""A running client of ours, and what it said of its connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from amqp_peer import PATIENCE_S

from protocols.amqp.client import Address, Client, LinkState, Options, Outcome
from protocols.amqp.codec import Message, encode

EVENTS = Address("hil.rig.events.pump", "topic")
COMMANDS = Address("hil.rig.commands", "queue")
HELLO = encode(Message(body=b"hello"))


class Line:
    """A running client and what it said of its connection."""

    def __init__(self, url: str, **options: Any) -> None:
        quick: dict[str, Any] = {"backoff_min": 0.01, "backoff_max": 0.05, "close_timeout": 0.5} | options
        self.states: list[tuple[LinkState, str]] = []
        self.client = Client(Options(url, "line", **quick), self._on_state)
        self._news = asyncio.Event()

    def _on_state(self, state: LinkState, reason: str) -> None:
        self.states.append((state, reason))
        self._news.set()

    async def until(self, state: LinkState, count: int = 1) -> str:
        """Waits for the `count`-th time of a state with a reason, and returns the reason."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reasons = [reason for said, reason in self.states if said is state and reason]
                if len(reasons) >= count:
                    return reasons[count - 1]
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Line]:
    line = Line(url, **options)
    task = asyncio.create_task(line.client.run(), name="client")
    try:
        yield line
    finally:
        task.cancel()
        await asyncio.wait([task])


async def posted(line: Line, address: Address = EVENTS, message: bytes = HELLO) -> Outcome:
    sender = line.client.sender(address)
    async with asyncio.timeout(PATIENCE_S):
        await sender.ready()
        return await sender.post(message)
