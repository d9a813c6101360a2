"""The broker's ends of its clients' links: AMQP deliveries on one side, the router on the other."""

import functools
import time
from collections import deque
from typing import TYPE_CHECKING

from protocols.amqp.links import Delivery, Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Outcome, OutcomeKind
from sim.broker.addresses import Refusal
from sim.broker.message import MalformedMessage, parse
from sim.broker.queue import Consumer, Entry, Fate, Queue
from sim.broker.router import Address, Producer, Subscription

if TYPE_CHECKING:
    from sim.broker.server import Broker


def condition(refusal: Refusal) -> Condition:
    """The refusal as AMQP says it."""
    return Condition(refusal.condition, refusal.description)


class Port:
    """What both directions have in common. `temporary` is the dynamic node that lives as long as the link."""

    def __init__(self, broker: "Broker", link: Link, temporary: Address | None) -> None:
        self._broker = broker
        self._link = link
        self._temporary = temporary

    def end(self, reason: Refusal) -> None:
        """Detaches the link, saying why."""
        self._link.close(condition(reason))

    def on_attached(self, link: Link) -> None:
        """Nothing to do: links are attached by the peer, and answered at once."""

    def on_credit(self, link: SenderLink) -> None:
        """Only consumers have credit of the peer."""

    def on_message(self, delivery: Delivery) -> None:
        """Only producers send messages."""

    def on_detached(self, link: Link, reason: Condition | None) -> None:
        """The link is over."""
        if self._temporary is not None:
            self._broker.router.remove(self._temporary)


class ProducerPort(Port):
    """A client sends to an address, or with an anonymous relay to whatever each message's `to` says."""

    def __init__(
        self, broker: "Broker", link: ReceiverLink, address: Address | None, temporary: Address | None
    ) -> None:
        super().__init__(broker, link, temporary)
        self._receiver = link
        self._producer = Producer(self, address)
        self._user = link.connection.user
        self._frozen: deque[Delivery] = deque()

    def start(self) -> None:
        """Grants the first credit; once the link is accepted."""
        self._broker.ports[self] = None
        self._broker.router.attach_producer(self._producer)

    def grant(self, credit: int) -> None:
        """Gives the peer more credit, or takes some back."""
        self._receiver.flow(credit)

    def on_message(self, delivery: Delivery) -> None:
        """Routes a message, and accepts it once its queues have it."""
        if self._broker.frozen:
            self._frozen.append(delivery)
            return
        try:
            self._publish(delivery.data)
        except Refusal as refusal:
            self._broker.router.counters.refused += 1
            if refusal.condition == "amqp:resource-limit-exceeded":
                delivery.release()
            else:
                delivery.reject(refusal.condition, refusal.description)
        else:
            delivery.accept()
        self._broker.router.received(self._producer)

    def thaw(self) -> None:
        """Takes what came while the broker was frozen."""
        frozen, self._frozen = self._frozen, deque()
        for delivery in frozen:
            self.on_message(delivery)

    def on_detached(self, link: Link, reason: Condition | None) -> None:
        """The link is over; what was not taken yet is the client's to send again."""
        self._broker.ports.pop(self, None)
        self._frozen.clear()
        self._broker.router.detach_producer(self._producer)
        super().on_detached(link, reason)

    def _publish(self, data: bytes) -> None:
        router = self._broker.router
        try:
            message = parse(data, self._broker.clock(), time.time() * 1000)
        except MalformedMessage as error:
            raise Refusal("amqp:decode-error", str(error)) from error
        if self._user is not None and message.user_id not in (None, self._user.encode()):
            raise Refusal("amqp:unauthorized-access", f"user-id is not {self._user}, who sent the message")
        address = self._producer.address
        if address is None:
            if not message.to:
                raise Refusal("amqp:precondition-failed", "a message to the anonymous relay needs a `to`")
            address = router.address(message.to)
        router.publish(address, message)


class ConsumerPort(Port):
    """A client receives from a queue or from a subscription."""

    def __init__(self, broker: "Broker", link: SenderLink, temporary: Address | None) -> None:
        super().__init__(broker, link, temporary)
        self._sender = link
        self.consumer = Consumer(self, link.peer_wants_settled)
        self.queue: Queue | None = None
        self.subscription: Subscription | None = None
        self._max_size = link.peer_max_message_size

    def start(self) -> None:
        """Lets messages flow; once the link is accepted."""
        self._broker.ports[self] = None
        self.on_credit(self._sender)

    @property
    def credit(self) -> int:
        """How many messages may leave now."""
        return 0 if self._broker.frozen else self._sender.credit

    def deliver(self, entry: Entry) -> None:
        """Sends a message; the peer's outcome decides its fate."""
        data = entry.message.outgoing(self._broker.clock(), entry.failures)
        if self._max_size and len(data) > self._max_size:
            entry.queue.settle(self.consumer, entry, Fate.DEAD)
            return
        self._broker.router.counters.delivered += 1
        self._sender.send(data, None if self.consumer.settled else functools.partial(self._settle, entry))

    def on_credit(self, link: SenderLink) -> None:
        """The peer's credit or the socket's room has changed."""
        if self.queue is not None:
            self.queue.wake(self.consumer)
            if link.draining and not link.connection.congested and not self._broker.frozen:
                link.drained()

    def thaw(self) -> None:
        """Goes on with deliveries after the broker was frozen."""
        self.on_credit(self._sender)

    def on_detached(self, link: Link, reason: Condition | None) -> None:
        """The link is over. A durable subscription stays, unless its subscriber closed it."""
        self._broker.ports.pop(self, None)
        queue, subscription = self.queue, self.subscription
        if queue is not None and self.consumer in queue.consumers:
            queue.detach(self.consumer, failed=reason is not None)
            if subscription is not None and (subscription.identity is None or link.peer_closed):
                self._broker.router.unsubscribe(subscription)
        super().on_detached(link, reason)

    def _settle(self, entry: Entry, outcome: Outcome | None) -> None:
        if outcome is None:
            return  # the link is gone: on_detached gives back what it held
        match outcome.kind:
            case OutcomeKind.ACCEPTED:
                fate = Fate.DONE
            case OutcomeKind.REJECTED:
                fate = Fate.DEAD
            case OutcomeKind.MODIFIED if outcome.undeliverable:
                fate = Fate.DEAD
            case OutcomeKind.MODIFIED if outcome.failed:
                fate = Fate.FAILED
            case _:
                fate = Fate.RETURNED
        entry.queue.settle(self.consumer, entry, fate)
