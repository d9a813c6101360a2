"""The broker's memory: addresses, subscriptions, producers and what connects them. No I/O."""

import dataclasses
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

import msgspec

from sim.broker.addresses import Kind, Pattern, Refusal, check_name, fixed_kind, is_pattern
from sim.broker.message import Message
from sim.broker.queue import Clock, Consumer, Queue

K = TypeVar("K")
V = TypeVar("V")

TEMPORARY: Final = "temporary."
"""What the names of dynamic nodes begin with; such an address is never made by naming it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What the broker keeps at most, and how it treats what it cannot deliver."""

    max_message_size: int = 16 * 1024 * 1024
    """Bytes; announced on every link."""
    max_queue_bytes: int = 64 * 1024 * 1024
    """A queue this full stops its producers by withholding credit."""
    max_addresses: int = 10_000
    """Addresses, and also subscriptions."""
    max_deliveries: int = 10
    """Failed deliveries after which a message goes to the dead letters."""
    producer_window: int = 256
    """Credit of each producer."""
    duplicate_ids: int = 20_000
    """`_AMQ_DUPL_ID` values remembered for each address."""
    last_value_keys: int = 10_000
    """Keys remembered for each last-value address."""
    dead_letters: str = "DLQ"
    last_value: frozenset[str] = frozenset({"hil.availability"})
    """Topics that give a new subscriber the last message of each key (wire.md section 1)."""


class Counters(msgspec.Struct):
    """What has happened since the start, in messages."""

    received: int = 0
    delivered: int = 0
    """Handed to a consumer, again and again where it came back."""
    unrouted: int = 0
    """Sent to a topic that nobody listens to."""
    refused: int = 0
    """Malformed, to no address, or to a full one."""
    duplicates: int = 0
    expired: int = 0
    dead_lettered: int = 0
    discarded: int = 0
    """Dead letters that the dead-letter queue had no room for or gave up itself."""


class ProducerPort(Protocol):
    """What a producer's link does for the router."""

    def grant(self, credit: int) -> None:
        """Gives the peer this much more credit; a negative number takes credit back."""

    def end(self, reason: Refusal) -> None:
        """Ends the link, because its address is gone."""


class Producer:
    """One sender's link to one address; without an address it is an anonymous relay."""

    def __init__(self, port: ProducerPort, address: "Address | None") -> None:
        self.port = port
        self.address = address
        self.credit = 0


class Address:
    """A queue with its one queue, or a topic with the queues of its subscriptions."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind = kind
        self.queues: list[Queue] = []
        self.producers: dict[Producer, None] = {}
        self.duplicate_ids: OrderedDict[str, None] = OrderedDict()
        self.last_values: OrderedDict[str, Message] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Nobody is attached to it and it holds nothing."""
        busy = self.producers or self.last_values
        return not busy and all(not queue.messages and not queue.consumers for queue in self.queues)


class Subscription:
    """One subscriber's queue. `identity` (container id, link name) makes it durable."""

    def __init__(self, pattern: str, queue: Queue, identity: tuple[str, str] | None) -> None:
        self.pattern = pattern
        self.queue = queue
        self.identity = identity
        self._pattern = Pattern.parse(pattern)

    def covers(self, address: Address) -> bool:
        """Whether it gets what is sent to this address."""
        return address.kind is Kind.TOPIC and self._pattern.matches(address.name)


class Router:
    """Takes messages in, finds their queues, and keeps producers' credit in step with the room there."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self.counters = Counters()
        self.subscriptions: dict[Queue, Subscription] = {}
        self._clock = clock
        self._addresses: dict[str, Address] = {}
        self._durable: dict[tuple[str, str], Subscription] = {}
        self._relays: dict[Producer, None] = {}
        self._starved: dict[Producer, None] = {}
        self._withholding = False
        self._subscribers = 0
        self._dead_letters = self._make(limits.dead_letters, Kind.QUEUE)

    # Addresses

    def address(self, name: str, kind: Kind | None = None) -> Address:
        """The address of this name, made where there is none yet.

        Raises:
            Refusal: no such temporary address, a pattern, an existing address of another kind, or too many.
        """
        found = self._addresses.get(name)
        known = found.kind if found else fixed_kind(name)
        if kind and known and kind is not known:
            raise Refusal("amqp:not-allowed", f"{name} is a {known}, not a {kind}")
        if found:
            return found
        check_name(name)
        if is_pattern(name):
            raise Refusal("amqp:not-allowed", f"{name} is a pattern: it can be subscribed to, not sent to")
        if name.startswith(TEMPORARY):
            raise Refusal("amqp:not-found", f"{name} does not exist (any more)")
        return self._make(name, kind or known or Kind.QUEUE)

    def kind(self, name: str) -> Kind:
        """The kind that an address has, or would have if it were made now."""
        if found := self._addresses.get(name):
            return found.kind
        return Kind.TOPIC if is_pattern(name) else fixed_kind(name) or Kind.QUEUE

    def temporary(self) -> Address:
        """A new queue that nobody can guess the name of; `remove` it when its link ends."""
        return self._make(f"{TEMPORARY}{uuid.uuid4().hex}", Kind.QUEUE)

    def remove(self, address: Address) -> None:
        """Deletes an address with all that is in it, and ends the links to it."""
        del self._addresses[address.name]
        reason = Refusal("amqp:resource-deleted", f"{address.name} was deleted")
        producers, address.producers = address.producers, {}
        for producer in producers:
            self._starved.pop(producer, None)
            producer.port.end(reason)
        if address.kind is Kind.QUEUE:
            for queue in address.queues:
                queue.close(reason)

    def _make(self, name: str, kind: Kind) -> Address:
        if len(self._addresses) >= self.limits.max_addresses:
            self._evict()
        address = Address(name, kind)
        if kind is Kind.QUEUE:
            address.queues.append(self._queue(name))
        self._addresses[name] = address
        address.queues.extend(sub.queue for sub in self.subscriptions.values() if sub.covers(address))
        return address

    def _evict(self) -> None:
        # Idle addresses are kept, for they remember kind, duplicates and last values, until room is needed.
        idle = next((a for a in self._addresses.values() if a.idle and a is not self._dead_letters), None)
        if idle is None:
            raise Refusal("amqp:resource-limit-exceeded", f"all {len(self._addresses)} addresses are in use")
        self.remove(idle)

    def _queue(self, name: str) -> Queue:
        tries = None if name == self.limits.dead_letters else self.limits.max_deliveries
        return Queue(name, self, self._clock, self.limits.max_queue_bytes, tries)

    # Consumers

    def consume(self, consumer: Consumer, name: str) -> Queue:
        """Attaches a consumer to a queue, made where there is none yet.

        Raises:
            Refusal: as `address`.
        """
        queue = self.address(name, Kind.QUEUE).queues[0]
        queue.attach(consumer)
        return queue

    def subscribe(
        self, consumer: Consumer, pattern: str, identity: tuple[str, str] | None = None
    ) -> Subscription:
        """Attaches a consumer to a topic or a pattern of topics.

        With `identity` the subscription is durable: it goes on collecting while nobody is attached, and
        whoever comes with this identity later takes it over, also from a consumer that is still attached.

        Raises:
            Refusal: the name is that of a queue, no name at all, or there are too many subscriptions.
        """
        found = self._durable.get(identity) if identity else None
        if found and found.pattern == pattern:
            self._steal(found)
            found.queue.attach(consumer)
            return found
        if found:
            self.unsubscribe(found)
        if not is_pattern(pattern):
            self.address(pattern, Kind.TOPIC)
        check_name(pattern)
        if len(self.subscriptions) >= self.limits.max_addresses:
            raise Refusal(
                "amqp:resource-limit-exceeded", f"all {len(self.subscriptions)} subscriptions are in use"
            )
        subscription = self._subscription(pattern, identity)
        subscription.queue.attach(consumer)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Ends a subscription and drops what waits in it."""
        queue = subscription.queue
        del self.subscriptions[queue]
        if subscription.identity:
            del self._durable[subscription.identity]
        for address in self._addresses.values():
            if queue in address.queues:
                address.queues.remove(queue)
        queue.close(Refusal("amqp:resource-deleted", f"the subscription to {subscription.pattern} was ended"))

    def _subscription(self, pattern: str, identity: tuple[str, str] | None) -> Subscription:
        self._subscribers += 1
        name = ":".join(identity) if identity else f"{pattern}:{self._subscribers}"
        subscription = Subscription(pattern, self._queue(name), identity)
        self.subscriptions[subscription.queue] = subscription
        if identity:
            self._durable[identity] = subscription
        for address in self._addresses.values():
            if subscription.covers(address):
                address.queues.append(subscription.queue)
                for message in address.last_values.values():
                    if message.expires > self._clock():
                        subscription.queue.put(message)
        return subscription

    def _steal(self, subscription: Subscription) -> None:
        for consumer in list(subscription.queue.consumers):
            subscription.queue.detach(consumer, failed=True)
            consumer.port.end(Refusal("amqp:link:stolen", "the same link was attached again"))

    # Producers

    def attach_producer(self, producer: Producer) -> None:
        """Adds a producer and grants it credit."""
        producers = self._relays if producer.address is None else producer.address.producers
        producers[producer] = None
        self._replenish(producer)

    def detach_producer(self, producer: Producer) -> None:
        """Removes a producer."""
        producers = self._relays if producer.address is None else producer.address.producers
        producers.pop(producer, None)
        self._starved.pop(producer, None)

    def withhold_credit(self, withhold: bool) -> None:
        """Takes all producers' credit away, as a broker short of memory does, or gives it back."""
        self._withholding = withhold
        for producer in self._producers():
            if withhold:
                producer.port.grant(-producer.credit)
                producer.credit = 0
            self._replenish(producer)

    def received(self, producer: Producer) -> None:
        """Notes that a message of this producer used up a credit, after it was published."""
        producer.credit -= 1
        self._replenish(producer)

    def _producers(self) -> Iterator[Producer]:
        yield from self._relays
        for address in self._addresses.values():
            yield from address.producers

    def _replenish(self, producer: Producer) -> None:
        window = self.limits.producer_window
        address = producer.address
        if self._withholding or (address is not None and any(queue.full for queue in address.queues)):
            self._starved[producer] = None
            return
        self._starved.pop(producer, None)
        if producer.credit <= window // 2:
            grant, producer.credit = window - producer.credit, window
            producer.port.grant(grant)

    # Messages

    def publish(self, address: Address, message: Message) -> None:
        """Takes responsibility for a message: when this returns, every queue of the address has it.

        Raises:
            Refusal: `amqp:resource-limit-exceeded`, a queue has no room at all: send it again later;
                `amqp:not-found`, the address has been deleted.
        """
        self.counters.received += 1
        if self._addresses.get(address.name) is not address:
            raise Refusal("amqp:not-found", f"{address.name} does not exist any more")
        if any(queue.overfull for queue in address.queues):
            raise Refusal("amqp:resource-limit-exceeded", f"{address.name} is full")
        if message.duplicate_id is not None and self._is_duplicate(address, message.duplicate_id):
            self.counters.duplicates += 1
            return
        if message.expires <= self._clock():
            self.counters.expired += 1
            return
        if address.name in self.limits.last_value and message.key is not None:
            _remember(address.last_values, message.key, message, self.limits.last_value_keys)
        if not address.queues:
            self.counters.unrouted += 1
        for queue in address.queues:
            queue.put(message)

    def sweep(self) -> None:
        """Drops what has expired, so that it takes no room; called from time to time."""
        for queue in self.queues():
            queue.expire()

    def queues(self) -> Iterator[Queue]:
        """All queues, those of subscriptions last."""
        for address in self._addresses.values():
            if address.kind is Kind.QUEUE:
                yield from address.queues
        yield from self.subscriptions

    def _is_duplicate(self, address: Address, duplicate_id: str) -> bool:
        if duplicate_id in address.duplicate_ids:
            return True
        _remember(address.duplicate_ids, duplicate_id, None, self.limits.duplicate_ids)
        return False

    # What queues say

    def dead_letter(self, queue: Queue, message: Message) -> None:
        """Moves a message that was given up to the dead letters."""
        self.counters.dead_lettered += 1
        letters = self._dead_letters.queues[0]
        if queue is letters or letters.overfull:
            self.counters.discarded += 1
        else:
            letters.put(message)

    def expired(self) -> None:
        """Counts a message whose time ran out."""
        self.counters.expired += 1

    def has_room(self) -> None:
        """Gives credit to the producers that waited for room."""
        for producer in list(self._starved):
            self._replenish(producer)


def _remember(memory: "OrderedDict[K, V]", key: K, value: V, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > limit:
        memory.popitem(last=False)
