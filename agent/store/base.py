"""What a store does. The uplink, the events and the commands know only this.

Everything is given to the store at once and without waiting, in order; `Store.stored` waits until what was
given is on disk. Where the disk fails the store goes on in memory and says so in `Store.trouble`.
"""

import enum
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from agent.clock import Timeline
from protocols.amqp.flavours import Address

REPLIES = Address("", "direct")
"""The channel of all results that go to a `reply_to`."""


class Lane(enum.IntEnum):
    """What kind of message waits: what may be dropped for want of room, and what never is."""

    TELEMETRY = 0
    EVENT = 1
    RESULT = 2


class Outgoing(msgspec.Struct, eq=False, gc=False):
    """One encoded message that waits for its `accepted`."""

    address: Address
    lane: Lane
    source: str
    sequence: int
    time_ns: int
    """When its first sample was taken (UTC)."""
    data: bytes
    counter: str = ""
    """The counter that gave its sequence, if not its source's."""
    event_id: str = ""
    expires: float | None = None
    """Seconds on the store's timeline after which nobody wants it (its TTL), or None."""
    durable: bool = True
    """False: it need not outlive the agent; only its place in the sequence is kept."""
    at: float = 0.0
    """When it was put, in seconds on the store's timeline, which gives it."""
    id: int = 0
    """Its place in the store, which gives it."""

    @property
    def channel(self) -> Address:
        """What it waits in line with: its address; all replies, whose addresses come and go, share one."""
        return REPLIES if self.address.kind == "direct" else self.address


class Loss(msgspec.Struct):
    """Messages of one source that were given up: a run of sequences and why."""

    source: str
    reason: str
    count: int
    first: int
    last: int
    first_time_ns: int
    last_time_ns: int


class OutboxStats(msgspec.Struct, frozen=True):
    """What waits: shown in availability as `outbox`."""

    messages: int
    bytes: int
    oldest_s: float


class Outbox(Protocol):
    """Messages in order per channel, from the moment they exist until the broker has them."""

    on_channel: Callable[[Address], None]
    """Called once for each channel that gets its first message, also those that an earlier run left."""
    max_bytes: int
    """What it may hold."""
    lost: Counter[str]
    """Messages given up since the agent started, by reason; one where nobody can say how many."""

    def put(self, message: Outgoing) -> None:
        """Takes a message; `take` gives it once it is stored. Over the bounds the oldest telemetry is given
        up and counted as a loss."""

    def take(self, channel: Address) -> Outgoing | None:
        """The oldest message that waits in a channel, now in flight; those past their TTL are given up."""

    async def wait(self, channel: Address) -> None:
        """Returns when `take` may have something."""

    def done(self, message: Outgoing) -> None:
        """Forgets a message: the broker has it, or nobody wants it."""

    def bury(self, message: Outgoing, reason: str) -> None:
        """Moves a message that the broker refused for good, and why, to the dead letters; but for a result it
        is a loss too (`rejected`)."""

    def postpone(self, message: Outgoing) -> None:
        """Makes a message in flight wait again, behind all others of its channel that are ready."""

    def retry(self, messages: Sequence[Outgoing]) -> None:
        """Makes messages in flight wait again, in their old order."""

    def losses(self) -> Sequence[Loss]:
        """What was given up and not yet said, by source and reason; later ones count apart from these."""

    def said(self, losses: Sequence[Loss]) -> None:
        """Forgets losses; belongs `together` with the events that say them."""

    def stats(self) -> OutboxStats:
        """What waits now."""

    async def empty(self) -> None:
        """Returns when nothing waits."""


class JournalEntry(msgspec.Struct):
    """What is known of one command, under its message-id.

    It is begun right before the command may have effect, and finished with its result.
    """

    key: str
    op: str
    received_ns: int
    reply_to: str | None
    correlation_id: bytes
    """The message-id type and value that its result answers, encoded by the command service."""
    result: bytes | None = None
    """The result's body once it is finished."""
    event_id: str = ""
    """The id, sequence, time and epoch of the result's event, which a repetition keeps."""
    sequence: int = 0
    time_ns: int = 0
    asked: bytes = b""
    """Who asked for what, encoded by the command service."""
    epoch: int = 0


class Journal(Protocol):
    """Which commands were seen, and what came of them (wire.md section 4, rule 1)."""

    since_ns: int
    """When it was begun (UTC): of older commands it knows nothing."""

    async def find(self, key: str) -> JournalEntry | None:
        """The entry of a message-id, or None if it was never seen. Answers come in the order of questions."""

    async def unfinished(self) -> Sequence[JournalEntry]:
        """Commands that were begun and have no result."""

    def begin(self, entry: JournalEntry) -> None:
        """Notes that a command is about to be carried out."""

    def finish(self, entry: JournalEntry) -> None:
        """Notes the result, which is kept for at least 24 h."""


class AuditEntry(msgspec.Struct, omit_defaults=True):
    """One command, or one thing the agent did by itself: who, by which lease, when, what, what came of it."""

    time_ns: int
    """When it came (UTC)."""
    finished_ns: int
    who: str
    """The `user-id` as the broker vouches for it; `agent` for what the agent did by itself."""
    op: str
    status: str
    code: str = ""
    message: str = ""
    device: str = ""
    lease: str = ""
    """The public id of the lease it came with, never the token."""
    holder: str = ""
    key: str = ""
    """The message-id with its type."""
    what: str = ""
    """The command's fields as JSON, without tokens, cut where it is long."""


class Store(Protocol):
    """Everything the agent must remember."""

    epoch: int
    """The agent's incarnation: one more at every start."""
    timeline: Timeline
    """The clock of everything that is kept for a time."""
    outbox: Outbox
    journal: Journal
    trouble: str
    """Why nothing reaches the disk now, in words; empty when all is well."""
    on_trouble: Callable[[], None]
    """Called when `trouble` changed."""

    def next_sequence(self, counter: str) -> int:
        """The next number of a counter, from 1, never given twice; kept with the message that bears it."""

    def remember(self, name: str, value: bytes | None) -> None:
        """Keeps a small value under a name; None forgets it."""

    def recall(self, name: str) -> bytes | None:
        """The value last remembered under a name, also by an earlier run."""

    def audit(self, entry: AuditEntry) -> None:
        """Keeps an entry for people to look up."""

    def together(self) -> AbstractContextManager[None]:
        """Everything given inside is stored at once or not at all."""

    async def stored(self) -> None:
        """Returns when everything given before is on disk, or in memory where the store is in `trouble`."""

    def close(self) -> None:
        """Stores what was given and lets files go."""
