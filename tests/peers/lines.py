"""Our AMQP client at work in a test, with what it said of its connection."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from protocols.amqp.client import Address, Client, Delivery, NotReady, Options, Outcome, Sender
from protocols.amqp.codec import Message, encode

PATIENCE_S = 60.0
T = TypeVar("T")


def topic(name: str) -> Address:
    return Address(name, "topic")


def queue(name: str) -> Address:
    return Address(name, "queue")


def unique(name: str) -> str:
    """A name that no other test uses on the same broker."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


class Line:
    """A running client and its states."""

    def __init__(self, options: Options) -> None:
        self._news = asyncio.Event()
        self.states: list[tuple[str, str]] = []
        self.client = Client(options, self._on_state)

    def _on_state(self, state: Any, reason: str) -> None:
        self.states.append((str(state), reason))
        self._news.set()

    async def until(self, found: Callable[[], T], what: str, patience: float = PATIENCE_S) -> T:
        """Waits until something is true of what came in, and returns it."""
        try:
            async with asyncio.timeout(patience):
                while not (result := found()):
                    self._news.clear()
                    await self._news.wait()
                return result
        except TimeoutError:
            raise AssertionError(f"waited for {what}; the client said {self.states}") from None

    async def until_state(self, state: str, after: int = 0) -> str:
        """Waits for a state among those said since `after`, and returns its reason."""

        def found() -> list[str]:
            return [reason for name, reason in self.states[after:] if name == state]

        await self.until(lambda: bool(found()), f"state {state}")
        return found()[0]

    def inbox(self, address: Address, credit: int = 100, *, settle: bool = True) -> "Inbox":
        return Inbox(self, address, credit, settle=settle)

    async def replies(self) -> tuple[str, list[Message]]:
        """A reply-to, and what comes there."""
        got: list[Message] = []

        def take(delivery: Delivery) -> None:
            got.append(delivery.message())
            delivery.accept()
            self._news.set()

        return await self.client.open_replies(take), got

    async def send(self, sender: Sender, message: Message) -> Outcome:
        """Sends one message until the broker has said what became of it, over any reconnect."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await sender.ready()
                with contextlib.suppress(NotReady, ConnectionError):
                    return await sender.post(encode(message))


class Inbox:
    """What a receiver got."""

    def __init__(self, line: Line, address: Address, credit: int, *, settle: bool) -> None:
        self._line = line
        self._settle = settle
        self.deliveries: list[Delivery] = []
        self.messages: list[Message] = []
        self.receiver = line.client.receiver(address, self._on_message, credit)

    def _on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.messages.append(delivery.message())
        if self._settle:
            delivery.accept()
        self._line._news.set()

    async def until(self, count: int) -> list[Message]:
        """Waits for so many messages."""
        await self._line.until(
            lambda: len(self.messages) >= count, f"{count} messages, got {len(self.messages)}"
        )
        return self.messages


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Line]:
    """A client that runs inside."""
    line = Line(Options(url=url, **({"container_id": unique("test")} | options)))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(line.client.run(), name="client")
        try:
            yield line
        finally:
            running.cancel()


async def subscribed(line: Line, inbox: Inbox, name: str) -> None:
    """Returns when a topic subscription stands: what is published is heard."""
    sender = line.client.sender(topic(name))
    while not inbox.messages:
        await line.send(sender, Message(body=b"heard?"))
        try:
            await line.until(lambda: bool(inbox.messages), "the subscription", patience=0.3)
        except AssertionError:
            continue
    inbox.messages.clear()
    inbox.deliveries.clear()
    sender.close()
