"""A client's senders and receivers: they outlive connections, and are attached anew to each."""

import asyncio
import enum
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from protocols.amqp.engine import Connection
from protocols.amqp.flavours import Address, Flavour, Route
from protocols.amqp.links import Delivery, Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Outcome, OutcomeKind, Terminus

if TYPE_CHECKING:
    from protocols.amqp.client import Client

_RETRY_MIN_S = 0.5
_RETRY_MAX_S = 30.0
"""How long a receiver that the broker refused waits before it attaches again: doubling between these."""


class NotReady(Exception):
    """There is no credit now, or no connection: await `Sender.ready`."""


class TooLarge(Exception):
    """The message exceeds what the broker takes; sent again it would fare no better."""


class ConnectionLost(Exception):
    """The connection or link ended before there was an outcome: the message may or may not have arrived."""


class LinkRefused(Exception):
    """The broker refused or ended the link, and said why."""


class SenderClosed(LinkRefused):
    """We closed the sender ourselves: the broker has said nothing against its address."""


class Health(enum.Enum):
    """What a sender's link is like."""

    FINE = enum.auto()
    BLOCKED = enum.auto()
    HUNG = enum.auto()


class Sender:
    """Sends to one address. Made by `Client.sender`."""

    def __init__(self, client: "Client", address: Address | None) -> None:
        self.address = address
        """None: the anonymous relay, which goes by each message's `to`."""
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._link: SenderLink | None = None
        self._refusal = ""
        self._unrouted = False
        self._closed = False
        self._changed = asyncio.Event()
        self._quiet_since = self._loop.time()

    async def ready(self) -> None:
        """Returns when a message can be posted.

        Raises:
            LinkRefused: the broker refused the link, or ended it; the next call attaches it again.
            SenderClosed: the sender is closed.
        """
        while True:
            if self._closed:
                raise LinkRefused(self._refusal) if self._refusal else SenderClosed("the sender is closed")
            if self._link is not None and self._link.credit > 0:
                return
            if self._refusal:
                refusal, self._refusal = self._refusal, ""
                raise LinkRefused(refusal)
            if self._link is None:
                self._client.attach(self)
            self._changed.clear()
            await self._changed.wait()

    def post(self, message: bytes) -> asyncio.Future[Outcome]:
        """Sends an encoded message. The future gets its outcome, or `ConnectionLost`.

        Raises:
            NotReady: there is no credit.
            TooLarge: the broker would not take it.
        """
        link = self._link
        if link is None or link.credit <= 0:
            raise NotReady
        limit = link.peer_max_message_size
        if limit and len(message) > limit:
            raise TooLarge(f"the message has {len(message)} bytes; the broker takes {limit}")
        if not link.unsettled:
            self._quiet_since = self._loop.time()
        future: asyncio.Future[Outcome] = self._loop.create_future()
        link.send(message, functools.partial(self._settled, future))
        return future

    def close(self, refusal: str = "") -> None:
        """Detaches. What has no outcome is undecided: `ConnectionLost`, or `MODIFIED` by the broker.

        Args:
            refusal: What the broker has against the address, for all who wait in `ready`.
        """
        self._closed = True
        self._client.forget(self)
        if self._link is not None:
            self._link.close()
            self._link = None
        self.refuse(refusal)

    def health(self, now: float, blocked_after: float, outcome_timeout: float) -> Health:
        """Judges the link at a time of the loop's clock."""
        quiet = now - self._quiet_since
        if self._link is None or not self._link.attached:
            return _answered(self._link, quiet, outcome_timeout)
        if self._link.credit <= 0:
            return Health.BLOCKED if quiet > blocked_after else Health.FINE
        return Health.HUNG if self._link.unsettled and quiet > outcome_timeout else Health.FINE

    def route(self, flavour: Flavour) -> Route:
        """Where the link goes."""
        return Route(Terminus()) if self.address is None else flavour.sender(self.address)

    def attach(self, connection: Connection, flavour: Flavour, route: Route) -> None:
        """Attaches, unless it is attached."""
        if self._link is not None:
            return
        self._refusal = ""
        self._unrouted = flavour.released_is_unrouted and (
            self.address is None or self.address.kind != "queue"
        )
        self._quiet_since = self._loop.time()
        self._link = connection.attach_sender(self, route.terminus)

    def refuse(self, reason: str) -> None:
        """Takes the word that no link can be attached."""
        self._refusal = reason
        self._changed.set()

    def _settled(self, future: asyncio.Future[Outcome], outcome: Outcome | None) -> None:
        self._quiet_since = self._loop.time()
        if future.done():
            return  # cancelled by who waited
        if outcome is None:
            future.set_exception(
                ConnectionLost("the connection ended before the broker said what became of it")
            )
        elif self._unrouted and outcome.kind is OutcomeKind.RELEASED:
            future.set_result(Outcome(OutcomeKind.UNROUTED))
        else:
            future.set_result(outcome)

    def on_attached(self, link: Link) -> None:
        """The broker has the link; credit comes next."""
        self._quiet_since = self._loop.time()

    def on_credit(self, link: SenderLink) -> None:
        """Credit came or went."""
        if link.credit > 0:
            self._changed.set()
            self._client.unblocked()
        if link.draining:
            link.drained()

    def on_message(self, delivery: Delivery) -> None:
        """Never: nothing arrives at a sender."""

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        """The link has gone, with its connection or without."""
        if link is self._link:
            self._link = None
            if not link.connection.over:
                self.refuse(f"the broker ended the link: {condition or 'without a reason'}")


class Receiver:
    """Receives from one address. Made by `Client.receiver`."""

    def __init__(
        self,
        client: "Client",
        address: Address,
        on_message: Callable[[Delivery], None],
        credit: int,
        queue: str,
    ) -> None:
        self.node = ""
        """The broker's own address of what is received from, once attached: a dynamic node's name."""
        self._client = client
        self.address = address
        self._own_queue = queue
        self._on_message = on_message
        self._credit = credit
        self._link: ReceiverLink | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = _RETRY_MIN_S
        self._asked_at = 0.0
        self._attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log = structlog.get_logger("amqp")

    async def attached(self) -> None:
        """Returns once the receiver was attached for the first time.

        Raises:
            LinkRefused: the broker refused that.
        """
        await asyncio.shield(self._attached)

    def close(self) -> None:
        """Detaches: what is unsettled goes back to the broker."""
        self._client.forget(self)
        self.disconnected()
        if self._link is not None:
            self._link.close()
            self._link = None

    def route(self, flavour: Flavour) -> Route:
        """Where the link goes."""
        if self.address.kind == "dynamic" and not flavour.dynamic_nodes:
            return flavour.replies(self._own_queue)
        return flavour.receiver(self.address, self._own_queue)

    def attach(self, connection: Connection, flavour: Flavour, route: Route) -> None:
        """Attaches, unless it is attached."""
        if self._link is None:
            self._asked_at = asyncio.get_running_loop().time()
            self._link = connection.attach_receiver(self, route.terminus)
            self._link.window = self._credit
            self._link.keep = self._client.max_message_size

    def health(self, now: float, blocked_after: float, outcome_timeout: float) -> Health:
        """Judges the link at a time of the loop's clock."""
        return _answered(self._link, now - self._asked_at, outcome_timeout)

    def refuse(self, reason: str) -> None:
        """Takes the word that the link was refused or ended: attaches again after a while."""
        self._client.say_refused(self.address, reason)
        if not self._attached.done():
            self._attached.set_exception(LinkRefused(reason))
            self._attached.exception()  # whoever does not ask is served by the retries
        self._retry = asyncio.get_running_loop().call_later(self._retry_s, self._client.attach, self)
        self._retry_s = min(self._retry_s * 2, _RETRY_MAX_S)

    def disconnected(self) -> None:
        """Takes the word that the connection is over: the next one attaches anew."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def on_attached(self, link: Link) -> None:
        """The broker has the link: messages may come."""
        source = link.peer_source
        self.node = (source.address if source is not None else None) or ""
        self._retry_s = _RETRY_MIN_S
        if self._link is not None:
            self._link.replenish()
        if not self._attached.done():
            self._attached.set_result(None)

    def on_credit(self, link: SenderLink) -> None:
        """Never: a receiver gives credit."""

    def on_message(self, delivery: Delivery) -> None:
        """A message for the owner. A fault of the owner's is that message's end, not the connection's."""
        try:
            self._on_message(delivery)
        except Exception as error:  # noqa: BLE001  # said to the broker and in the log
            self._log.exception("a message could not be taken", address=self.address.name)
            delivery.reject("amqp:internal-error", f"{type(error).__name__}: {error}")

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        """The link has gone, with its connection or without."""
        if link is self._link:
            self._link = None
            if not link.connection.over:
                self.refuse(f"the broker ended the link: {condition or 'without a reason'}")


def _answered(link: Link | None, quiet: float, patience: float) -> Health:
    """Whether a broker has gone that long without an answer to an attach.

    RabbitMQ 4.0 loses what begins on a channel whose session it has just ended itself.
    """
    unanswered = link is not None and not link.attached and quiet > patience
    return Health.HUNG if unanswered else Health.FINE
