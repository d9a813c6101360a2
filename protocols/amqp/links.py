"""Links and deliveries as the engine shows them, over proton's C functions.

Raw functions and not proton's wrapper classes: a wrapped event makes five Python objects and costs more than
the delivery it tells of, the wrapper's `Delivery.tag` fails on binary tags, and an attribute set on a wrapper
that leads back to it is never collected. State is kept here, keyed by proton's pointers, and goes with them.
"""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import cproton as pn

from protocols.amqp.codec import CodecError, Message, decode
from protocols.amqp.performatives import (
    ACCEPTED,
    RELEASED,
    Condition,
    Outcome,
    OutcomeKind,
    Terminus,
    read_outcome,
    read_terminus,
    read_text,
    set_condition,
    write_outcome,
    write_terminus,
)

if TYPE_CHECKING:
    from protocols.amqp.machine import Machine


class LinkHandler(Protocol):
    """Who owns one end of a link. Every call comes from the loop and must not block."""

    def on_attached(self, link: "Link") -> None:
        """The peer has attached its end; not called for a link that the peer is refusing."""

    def on_credit(self, link: "SenderLink") -> None:
        """Credit, drain or the room to write changed."""

    def on_message(self, delivery: "Delivery") -> None:
        """A whole message came."""

    def on_detached(self, link: "Link", condition: Condition | None) -> None:
        """The link is over, whatever ended it: detach, end of session, loss of connection. Called once."""


OnOutcome: TypeAlias = Callable[[Outcome | None], None]
"""Takes the outcome of a delivery, or None when its link ended before there was one."""


class Link(abc.ABC):
    """One end of a link. Made by `Connection.attach_sender`, `attach_receiver`, or by the peer's attach."""

    def __init__(self, connection: "Machine", impl: Any, session: Any, handler: LinkHandler | None) -> None:
        self._connection = connection
        self._alive = True
        self.impl = impl
        """proton's link. Only the engine looks at it, and not after `ended`: its memory goes then."""
        self.session = session
        self.own_session = False
        """The session was begun for this link alone and ends with it."""
        self.handler = handler
        self.attached = False
        """Both ends have attached and neither has detached."""
        self.peer_closed = False
        """The peer closed the link, and did not just detach or lose its connection: it will not resume it."""
        self.name = read_text(pn.pn_link_name, impl) or ""

    @property
    def connection(self) -> "Machine":
        """The connection this link belongs to."""
        return self._connection

    @property
    def peer_source(self) -> Terminus | None:
        """The source as the peer's attach says it; None where it has none (a refusal, or no attach yet)."""
        return read_terminus(pn.pn_link_remote_source(self.impl)) if self._alive else None

    @property
    def peer_target(self) -> Terminus | None:
        """The target as the peer's attach says it; None where it has none."""
        return read_terminus(pn.pn_link_remote_target(self.impl)) if self._alive else None

    @property
    def peer_max_message_size(self) -> int:
        """The largest message the peer takes, in bytes; 0 is no limit."""
        return int(pn.pn_link_remote_max_message_size(self.impl)) if self._alive else 0

    def accept(
        self,
        source: Terminus | None,
        target: Terminus | None,
        handler: LinkHandler,
        max_message_size: int = 0,
    ) -> None:
        """Answers the peer's attach, saying which source and target the link really has."""
        self.handler = handler
        self._mirror_settle_modes()
        write_terminus(pn.pn_link_source(self.impl), pn.PN_SOURCE, source)
        write_terminus(pn.pn_link_target(self.impl), pn.PN_TARGET, target)
        self.limit(max_message_size)
        pn.pn_link_open(self.impl)
        self.attached = True
        self._connection.wake()

    def refuse(self, condition: Condition) -> None:
        """Answers the peer's attach with none of its own terminus, then detaches (part 2, section 2.6.3)."""
        write_terminus(pn.pn_link_source(self.impl), pn.PN_SOURCE, None)
        write_terminus(pn.pn_link_target(self.impl), pn.PN_TARGET, None)
        pn.pn_link_open(self.impl)
        self.close(condition)

    def close(self, condition: Condition | None = None) -> None:
        """Detaches and closes this end. `on_detached` follows when the peer has answered."""
        if self._alive:
            self.attached = False
            set_condition(pn.pn_link_condition(self.impl), condition)
            pn.pn_link_close(self.impl)
            self._connection.wake()

    def limit(self, max_message_size: int) -> None:
        """Says the largest message this end takes, in bytes; 0: no limit. Before the link is opened."""
        pn.pn_link_set_max_message_size(self.impl, max_message_size)

    def _mirror_settle_modes(self) -> None:
        pn.pn_link_set_snd_settle_mode(self.impl, pn.pn_link_remote_snd_settle_mode(self.impl))
        pn.pn_link_set_rcv_settle_mode(self.impl, pn.pn_link_remote_rcv_settle_mode(self.impl))

    def ended(self) -> None:
        """The engine's word that the link is over: no delivery on it can be settled any more."""
        self.attached = False
        self._alive = False

    @abc.abstractmethod
    def on_delivery(self, delivery: Any) -> None:
        """Takes a delivery event of the engine. It may be stale: what counts is the delivery's state now."""


class SenderLink(Link):
    """The end that messages leave from."""

    def __init__(self, connection: "Machine", impl: Any, session: Any, handler: LinkHandler | None) -> None:
        super().__init__(connection, impl, session, handler)
        self._waiting: dict[Any, OnOutcome] = {}
        self._tag = 0

    @property
    def credit(self) -> int:
        """How many messages may be sent now: the peer's credit, or 0 while the socket takes no more."""
        return 0 if not self.attached or self._connection.congested else int(pn.pn_link_credit(self.impl))

    @property
    def unsettled(self) -> int:
        """Messages sent whose outcome has not come."""
        return len(self._waiting)

    @property
    def peer_wants_settled(self) -> bool:
        """The peer asked for messages that are settled when they are sent (at most once)."""
        return self._alive and bool(pn.pn_link_remote_snd_settle_mode(self.impl) == pn.PN_SND_SETTLED)

    def send(self, message: bytes, on_outcome: OnOutcome | None) -> None:
        """Sends an encoded message; without `on_outcome` it is sent settled, at most once.

        The caller has checked `credit` and `peer_max_message_size`.
        """
        self._tag += 1
        tag = self._tag.to_bytes(8, "big")
        delivery = pn.pn_delivery(self.impl, tag)
        pn.pn_link_send(self.impl, message)
        if on_outcome is None:
            pn.pn_delivery_settle(delivery)  # advances too
        else:
            self._waiting[delivery] = on_outcome
            pn.pn_link_advance(self.impl)
        self._connection.wake()

    @property
    def draining(self) -> bool:
        """The peer wants its credit used up at once, or given back by `drained`."""
        return self._alive and bool(pn.pn_link_get_drain(self.impl))

    def drained(self) -> None:
        """Gives back the credit that no message is there for, where the peer asked for it."""
        if self._alive:
            pn.pn_link_drained(self.impl)
            self._connection.wake()

    def on_delivery(self, delivery: Any) -> None:
        """Takes a disposition."""
        if delivery not in self._waiting:
            return
        outcome = read_outcome(delivery)
        if outcome is not None:
            on_outcome = self._waiting.pop(delivery)
            pn.pn_delivery_settle(delivery)
            on_outcome(outcome)

    def ended(self) -> None:
        """Outcomes that have not come will not: their waiters get None."""
        super().ended()
        waiting, self._waiting = self._waiting, {}
        for on_outcome in waiting.values():
            on_outcome(None)


class ReceiverLink(Link):
    """The end that messages arrive at."""

    def __init__(self, connection: "Machine", impl: Any, session: Any, handler: LinkHandler | None) -> None:
        super().__init__(connection, impl, session, handler)
        self.window = 0
        """Credit plus unsettled messages that the engine keeps up by itself; 0: the owner calls `flow`."""
        self.max_message_size = 0
        self.keep = 0
        """Bytes kept of a message, so that a larger one can be refused alone; 0: all."""
        self._unsettled: dict[Any, Delivery] = {}
        self._partial: dict[Any, bytearray] = {}

    @property
    def credit(self) -> int:
        """How many more messages the peer may send."""
        return int(pn.pn_link_credit(self.impl)) if self._alive else 0

    @property
    def unsettled(self) -> int:
        """Messages received and not settled."""
        return len(self._unsettled)

    def flow(self, credit: int) -> None:
        """Lets the peer send `credit` more messages."""
        if self._alive:
            pn.pn_link_flow(self.impl, credit)
            self._connection.wake()

    def replenish(self) -> None:
        """Brings the credit back up to the window, in steps of a quarter: a flow frame per message costs."""
        if not self._alive:
            return
        missing = self.window - self.credit - len(self._unsettled)
        if missing > 0 and missing * 4 >= self.window:
            self.flow(missing)

    def on_delivery(self, delivery: Any) -> None:
        """Takes a delivery event: reads what has come, and hands over the message once it is whole."""
        if not self.attached or delivery in self._unsettled or not pn.pn_delivery_readable(delivery):
            return  # for a link that is being closed, only the sender's settlement, or stale
        if pn.pn_delivery_aborted(delivery):
            self._partial.pop(delivery, None)
            pn.pn_delivery_settle(delivery)
            self.replenish()
            return
        data = self._read(delivery)
        if data is None:
            return
        pn.pn_link_advance(self.impl)
        settled = bool(pn.pn_delivery_settled(delivery))
        received = Delivery(self, delivery, data, settled)
        if settled:
            pn.pn_delivery_settle(delivery)
            self.replenish()
        else:
            self._unsettled[delivery] = received
        assert self.handler is not None  # a link without an owner has no credit
        self.handler.on_message(received)

    def _read(self, delivery: Any) -> bytes | None:
        """The whole message, or None: more is to come, or the link was ended because it is too large."""
        size = int(pn.pn_delivery_pending(delivery))
        more = bool(pn.pn_delivery_partial(delivery))
        parts = self._partial.get(delivery)
        if self.max_message_size and size + len(parts or b"") > self.max_message_size:
            self._partial.pop(delivery, None)
            text = f"a message on link {self.name} exceeds {self.max_message_size} bytes"
            self.close(Condition("amqp:link:message-size-exceeded", text))
            return None
        chunk = pn.pn_link_recv(self.impl, size)[1] if size else b""
        if parts is None and not more:
            return bytes(chunk)
        if parts is None:
            parts = self._partial[delivery] = bytearray()
        parts += chunk[: self.keep + 1 - len(parts)] if self.keep else chunk
        return None if more else bytes(self._partial.pop(delivery))

    def settle(self, delivery: Any, outcome: Outcome) -> bool:
        """Settles an unsettled delivery; False when it cannot be any more."""
        if self._unsettled.pop(delivery, None) is None:
            return False
        write_outcome(delivery, outcome)
        self.replenish()
        self._connection.wake()
        return True

    def ended(self) -> None:
        """What is unsettled goes back to the sender by itself."""
        super().ended()
        self._unsettled.clear()
        self._partial.clear()

    def limit(self, max_message_size: int) -> None:
        """As of any link; a peer that sends more all the same loses the link."""
        self.max_message_size = max_message_size
        super().limit(max_message_size)


class Delivery:
    """A message that came, to be settled at any later time and in any order.

    Settling gives False, and does nothing, once it was settled or its link or connection has gone.
    """

    __slots__ = ("_impl", "_settled", "data", "link")

    def __init__(self, link: ReceiverLink, impl: Any, data: bytes, settled: bool) -> None:
        self.link = link
        self.data = data
        self._impl = impl
        self._settled = settled

    @property
    def settled(self) -> bool:
        """Whether nothing is left to settle: the sender settled it, or `settle` was called."""
        return self._settled

    def settle(self, outcome: Outcome) -> bool:
        """Gives the peer an outcome. `UNROUTED` is none of the wire's and not allowed here."""
        if self._settled:
            return False
        self._settled = True  # proton reuses a settled delivery's memory for another
        return self.link.settle(self._impl, outcome)

    def message(self) -> Message:
        """The message, decoded.

        Raises:
            CodecError: it is none, or is larger than the link keeps.
        """
        if 0 < self.link.keep < len(self.data):
            raise CodecError(f"the message has more than {self.link.keep} bytes")
        return decode(self.data)

    def accept(self) -> bool:
        """Takes responsibility for the message."""
        return self.settle(ACCEPTED)

    def reject(self, condition: str, description: str) -> bool:
        """Says that the message is wrong by itself, and why."""
        return self.settle(Outcome(OutcomeKind.REJECTED, condition, description))

    def release(self) -> bool:
        """Gives the message back untouched, to be delivered again."""
        return self.settle(RELEASED)
