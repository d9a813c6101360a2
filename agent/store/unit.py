"""What passes between the loop and the keeper's thread: units one way, reports the other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from agent.store.base import Lane, Loss, Outgoing
from agent.store.message import Grave
from agent.store.records import Records

Answer: TypeAlias = Callable[[], None]
"""Called on the loop once what was asked is committed."""
Operation: TypeAlias = Callable[[Records], Answer | None]
"""Runs in the thread, perhaps more than once: where the disk fails, again on the memory."""

T = TypeVar("T")


class Question(Generic[T]):
    """An operation that somebody on the loop waits for."""

    def __init__(self, read: Callable[[Records], T], answer: asyncio.Future[T]) -> None:
        self._read = read
        self.answer = answer

    def __call__(self, records: Records) -> Answer:
        """Asks in the thread."""
        return partial(self._resolve, self._read(records))

    def fail(self, error: Exception) -> None:
        """Says on the loop that it cannot be answered."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def _resolve(self, found: T) -> None:
        if not self.answer.done():
            self.answer.set_result(found)


@dataclass(slots=True)
class Unit:
    """What was given in one turn of the loop, in order; it is stored whole."""

    puts: list[Outgoing] = field(default_factory=list)
    graves: list[Grave] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    """Ids of messages that need not be kept any more."""
    losses: dict[int, Loss | None] = field(default_factory=dict)
    """By number, as they are now; None: forgotten."""
    operations: list[Operation] = field(default_factory=list)
    together: bool = False
    """Not to be divided even if a part of it is at fault."""

    def divided(self) -> list["Unit"]:
        """Each part as a unit of its own."""
        units = [Unit(puts=[message]) for message in self.puts]
        units += [Unit(graves=[grave]) for grave in self.graves]
        units += [Unit(gone=self.gone), Unit(losses=self.losses)]
        return units + [Unit(operations=[operation]) for operation in self.operations]


class Room(NamedTuple):
    """What the memory still takes of messages that are not on disk."""

    reason: str = ""
    """Why they are not on disk."""
    refused: Lane | None = None
    """Messages of this lane and below find no room."""
    passing_refused: bool = False
    """Messages that are not durable find no room."""


@dataclass(slots=True)
class Report:
    """What came of some units."""

    pushed: list[Outgoing] = field(default_factory=list)
    """Messages ready to be taken, in order per channel."""
    answers: list[Answer] = field(default_factory=list)
    unkept: list[Outgoing] = field(default_factory=list)
    """Messages that could not be stored by a fault of the agent."""
    handled: int = 0
    """Bytes of messages that wait for the thread no more."""
    messages: int = 0
    """How many messages another process added, or went with a damaged file."""
    bytes: int = 0
    room: Room = field(default_factory=Room)
    trouble: str | None = None
    """Why nothing reaches the disk, if that changed."""
    anew: bool = False
    """A damaged database was moved aside."""
