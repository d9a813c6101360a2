"""What passes between the loop and the keeper's thread: units one way, reports the other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from agent.store.base import Lane, Loss, Outgoing
from agent.store.records import Records

MESSAGE_OVERHEAD = 512
"""Bytes a waiting message costs beside its data; it counts in the bounds."""

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


class Gone(NamedTuple):
    """A message that need not be kept any more."""

    id: int
    size: int
    durable: bool


class Grave(NamedTuple):
    """A message on its way to the dead letters."""

    message: Outgoing
    id: int
    reason: str
    buried_ns: int


@dataclass(slots=True)
class Unit:
    """What was given in one turn of the loop, in order; it is stored whole."""

    puts: list[Outgoing] = field(default_factory=list)
    graves: list[Grave] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
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
    """How many messages another process added."""
    bytes: int = 0
    refuse: Lane | None = None
    """Messages of this lane and below find no room; of them no more are wanted."""
    refuse_passing: bool = False
    """Messages that are not durable find no room."""
    trouble: str | None = None
    """Why nothing reaches the disk, if that changed."""
    losses: list[Loss] = field(default_factory=list)
    """What the thread itself had to give up; already counted on disk."""


def size_of(message: Outgoing) -> int:
    """What a message counts in the bounds, in bytes."""
    return len(message.data) + MESSAGE_OVERHEAD
