"""What a store does. The uplink, the events and the commands know only this."""

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from protocols.amqp.flavours import Address

REPLIES = Address("", "direct")
"""The channel of all results that go to a `reply_to`."""


class Lane(enum.IntEnum):
    """What kind of message waits: what may be dropped for want of room, and what never is."""

    TELEMETRY = 0
    EVENT = 1
    RESULT = 2


class Outgoing(msgspec.Struct, eq=False):
    """One encoded message that waits for its `accepted`."""

    address: Address
    lane: Lane
    source: str
    sequence: int
    time_ns: int
    """When its first sample was taken (UTC)."""
    data: bytes
    expires: float | None = None
    """Monotonic seconds after which nobody wants it (its TTL), or None."""
    in_flight: bool = False

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
    """Called once for each channel that gets its first message."""

    def put(self, message: Outgoing) -> None:
        """Takes a message; over the bounds the oldest telemetry is given up and counted as a loss."""

    def take(self, channel: Address) -> Outgoing | None:
        """The oldest message that waits in a channel, now in flight; those past their TTL are given up."""

    async def wait(self, channel: Address) -> None:
        """Returns when `take` may have something."""

    def done(self, message: Outgoing) -> None:
        """Forgets a message: the broker has it, or nobody wants it."""

    def give_up(self, message: Outgoing, reason: str) -> None:
        """Forgets a message that nobody will get, and counts it as a loss."""

    def postpone(self, message: Outgoing) -> None:
        """Makes a message in flight wait again, behind all others of its channel."""

    def retry(self, messages: Sequence[Outgoing]) -> None:
        """Makes messages in flight wait again, in their old order."""

    def take_losses(self) -> Sequence[Loss]:
        """What was given up since the last call, one entry per source and reason."""

    def stats(self) -> OutboxStats:
        """What waits now."""

    async def empty(self) -> None:
        """Returns when nothing waits."""


class JournalEntry(msgspec.Struct):
    """What is known of one command: `result` is the encoded body once it is finished."""

    result: bytes | None = None


class Journal(Protocol):
    """Which commands were seen, and what came of them (wire.md section 4, rule 1)."""

    def find(self, key: str) -> JournalEntry | None:
        """The entry of a message-id, or None if it was never seen."""

    def begin(self, key: str) -> None:
        """Notes that a command is about to be carried out."""

    def finish(self, key: str, result: bytes) -> None:
        """Notes the result, which is kept for at least 24 h."""


class Store(Protocol):
    """Everything the agent must remember."""

    epoch: int
    """The agent's incarnation: one more at every start."""
    outbox: Outbox
    journal: Journal

    def next_sequence(self, counter: str) -> int:
        """The next number of a counter, from 1, never given twice."""

    def close(self) -> None:
        """Lets files go."""
