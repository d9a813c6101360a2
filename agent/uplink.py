"""From the outbox to the broker: in order per address, removed on `accepted`."""

import asyncio
from collections import deque
from typing import NamedTuple

import structlog

from agent.store import REPLIES, Outbox, Outgoing
from protocols.amqp.client import (
    Address,
    Client,
    ConnectionLost,
    LinkRefused,
    NotReady,
    Outcome,
    OutcomeKind,
    Sender,
    TooLarge,
)

WINDOW = 64
"""Messages of one channel in flight at once."""
REPLY_PATIENCE_S = 10.0
"""How long a result may hold up others for want of credit at its address."""
RETRY_S = 1.0
"""Pause after a broker gave a message back or refused a link."""


class _Sent(NamedTuple):
    message: Outgoing
    outcome: asyncio.Future[Outcome]


class Uplink:
    """Drains every channel of the outbox by a task of its own, so that none waits for another."""

    def __init__(self, client: Client, outbox: Outbox) -> None:
        self._client = client
        self._outbox = outbox
        self._new: asyncio.Queue[Address] = asyncio.Queue()
        outbox.on_channel = self._new.put_nowait
        self._refused: set[Address] = set()
        self.accepted = 0
        """Messages that the broker took for somebody."""
        self.unrouted = 0
        """Messages that the broker took and nobody listens to."""
        self.dead_letters = 0
        """Messages that the broker refused for good."""
        self._log = structlog.get_logger("uplink")

    async def run(self) -> None:
        """Sends until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                channel = await self._new.get()
                work = self._replies() if channel == REPLIES else self._drain(channel)
                group.create_task(work, name=f"uplink {channel.name or 'replies'}")

    async def flush(self, timeout: float) -> None:
        """Returns when everything has left, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._outbox.empty()
        except TimeoutError:
            self._log.warning("messages could not be sent in time", count=self._outbox.stats().messages)

    # -- topics ---------------------------------------------------------------------------------

    async def _drain(self, channel: Address) -> None:
        sender = self._client.sender(channel)
        window: deque[_Sent] = deque()
        try:
            while True:
                await self._fill(sender, channel, window)
                if window:
                    await self._first_outcome(window)
        finally:
            self._recover(window)
            sender.close()

    async def _fill(self, sender: Sender, channel: Address, window: deque[_Sent]) -> None:
        """Posts what waits, up to the window; with nothing in flight, waits for something to post."""
        while len(window) < WINDOW:
            if not window:
                await self._outbox.wait(channel)
                try:
                    await sender.ready()
                except LinkRefused as error:
                    log = self._log.debug if channel in self._refused else self._log.warning
                    log("the broker refuses the address", address=channel.name, reason=str(error))
                    self._refused.add(channel)
                    await asyncio.sleep(RETRY_S)
                    continue
                self._refused.discard(channel)
            message = self._outbox.take(channel)
            if message is None:
                return
            try:
                window.append(_Sent(message, sender.post(message.data)))
            except NotReady:
                self._outbox.retry([message])
                return
            except TooLarge as error:
                self._bury(message, str(error))

    async def _first_outcome(self, window: deque[_Sent]) -> None:
        message, future = window[0]
        try:
            outcome = await future
        except ConnectionLost:
            self._recover(window)
            return
        window.popleft()
        if not self._settle(message, outcome):
            self._outbox.retry([message])
            await asyncio.sleep(RETRY_S)

    def _recover(self, window: deque[_Sent]) -> None:
        """Empties a window whose connection went: what has no outcome yet is to be sent again."""
        again = []
        for message, future in window:
            known = future.done() and not future.cancelled() and future.exception() is None
            future.cancel()  # else one that fails later complains that nobody asked
            if not known or not self._settle(message, future.result()):
                again.append(message)
        window.clear()
        self._outbox.retry(again)

    # -- replies --------------------------------------------------------------------------------

    async def _replies(self) -> None:
        slots = asyncio.Semaphore(WINDOW)
        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                while (message := self._outbox.take(REPLIES)) is None:
                    await self._outbox.wait(REPLIES)
                task = group.create_task(self._reply(message), name="uplink reply")
                task.add_done_callback(lambda _: slots.release())

    async def _reply(self, message: Outgoing) -> None:
        try:
            async with asyncio.timeout(REPLY_PATIENCE_S):
                outcome = await self._client.reply(message.address.name, message.data)
        except (ConnectionLost, TimeoutError):
            # Others may have credit: this one makes room for them and has its turn again.
            self._log.debug("a result waits", address=message.address.name)
            await asyncio.sleep(RETRY_S)
            self._outbox.postpone(message)
        except TooLarge as error:
            self._bury(message, str(error))
        else:
            if not self._settle(message, outcome):
                await asyncio.sleep(RETRY_S)
                self._outbox.postpone(message)

    # -- outcomes -------------------------------------------------------------------------------

    def _settle(self, message: Outgoing, outcome: Outcome) -> bool:
        """Whether the message is dealt with; if not, it is to be sent again."""
        match outcome.kind:
            case OutcomeKind.ACCEPTED:
                self.accepted += 1
                self._outbox.done(message)
            case OutcomeKind.UNROUTED:
                self.unrouted += 1
                self._outbox.done(message)
            case OutcomeKind.REJECTED:
                self._bury(message, f"{outcome.condition}: {outcome.description}")
            case _:
                return False
        return True

    def _bury(self, message: Outgoing, why: str) -> None:
        self.dead_letters += 1
        self._log.error("the broker refused a message for good", address=message.address.name, why=why)
        self._outbox.bury(message, why)
