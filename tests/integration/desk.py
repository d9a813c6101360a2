"""A test engineer's desk: commands out, results and events in, knowing only wire.md."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec

from agent.app import Agent
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.cloudevents import Event, from_message
from protocols.amqp.codec import Message, MessageId, encode
from protocols.amqp.types import CodecError

PATIENCE_S = 30.0
T = TypeVar("T")

RunAgent = Callable[..., contextlib.AbstractAsyncContextManager[Agent]]
"""The fixture `run_agent`: profile text, broker URL and settings to a running agent."""


class Desk:
    """Listens to one bench and commands it."""

    def __init__(self, client: Client, bench: str) -> None:
        self.bench = bench
        self.client = client
        self.events: list[Event] = []
        self.results: list[tuple[Message, dict[str, Any]]] = []
        self.reply_to = ""
        self._news = asyncio.Event()
        self._commands = client.sender(Address(f"hil.{bench}.commands", "queue"))

    async def open(self) -> None:
        """Subscribes to everything the bench says."""
        for name in ("hil.availability", f"hil.{self.bench}.events.*", f"hil.{self.bench}.results"):
            self.client.receiver(Address(name, "topic"), self._on_event, credit=1000)
        self.reply_to = await self.client.open_replies(self._on_result)

    async def until(self, found: Callable[[], T]) -> T:
        """Waits until something is true of what was heard, and returns it."""
        async with asyncio.timeout(PATIENCE_S):
            while not (result := found()):
                self._news.clear()
                await self._news.wait()
            return result

    async def post(self, body: Any, *, message_id: MessageId | None = None, **fields: Any) -> MessageId:
        """Sends a command and does not wait."""
        message_id = message_id or str(uuid.uuid4())
        message = Message(
            body=body if isinstance(body, bytes) else msgspec.json.encode(body),
            message_id=message_id,
            reply_to=self.reply_to,
            content_type="application/json",
            creation_ms=time.time_ns() // 1_000_000,
        )
        for name, value in fields.items():
            setattr(message, name, value)
        await self._commands.ready()
        await self._commands.post(encode(message))
        return message_id

    async def ask(
        self, op: str, *, message_fields: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Sends a command and returns its result."""
        message_id = await self.post({"op": op, **fields}, **(message_fields or {}))
        return (await self.answers(message_id))[0]

    async def answers(self, correlation_id: MessageId, count: int = 1) -> list[dict[str, Any]]:
        """The first `count` results that answer a command."""

        def found() -> list[dict[str, Any]]:
            mine = [body for message, body in self.results if message.correlation_id == correlation_id]
            return mine if len(mine) >= count else []

        return await self.until(found)

    def of_type(self, kind: str, source: str | None = None) -> list[tuple[Event, dict[str, Any]]]:
        """Events of one type, decoded."""
        return [
            (event, msgspec.json.decode(event.data))
            for event in self.events
            if event.type == f"io.hilgate.{kind}.v1" and source in (None, event.source)
        ]

    def availability(self) -> dict[str, Any]:
        """The bench's last availability, or an empty one."""
        said = [body for _, body in self.of_type("availability") if body.get("bench") == self.bench]
        return max(said, key=lambda body: (body["epoch"], body["revision"]), default={})

    async def until_state(self, state: str) -> dict[str, Any]:
        """Waits until the bench is in a state."""
        return await self.until(
            lambda: self.availability() if self.availability().get("state") == state else {}
        )

    def samples(self, device: str) -> list[dict[str, Any]]:
        """All samples of a device, in the order they came."""
        events = self.of_type("samples", f"/benches/{self.bench}/devices/{device}")
        return [sample for _, body in events for sample in body["samples"]]

    def sequences(self, source: str) -> list[int]:
        """The sequences of a source's events, in the order they came."""
        return [event.sequence for event in self.events if event.source == source]

    def _on_event(self, delivery: Delivery) -> None:
        delivery.accept()
        with contextlib.suppress(CodecError):  # tests also send what is no event
            self.events.append(from_message(delivery.message()))
        self._news.set()

    def _on_result(self, delivery: Delivery) -> None:
        delivery.accept()
        message = delivery.message()
        self.results.append((message, msgspec.json.decode(from_message(message).data)))
        self._news.set()


@contextlib.asynccontextmanager
async def desk(url: str, bench: str) -> AsyncIterator[Desk]:
    """A desk at a broker, ready."""
    client = Client(Options(url=url, container_id=f"desk-{uuid.uuid4()}"), lambda _state, _reason: None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(client.run())
        one = Desk(client, bench)
        async with asyncio.timeout(PATIENCE_S):
            await one.open()
        yield one
        running.cancel()
