"""One client of the broker: answers its open and its attaches."""

import asyncio
from typing import TYPE_CHECKING, Final

from protocols.amqp.engine import Connection
from protocols.amqp.links import Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Terminus
from sim.broker.addresses import Kind, Refusal
from sim.broker.ports import ConsumerPort, ProducerPort, condition

if TYPE_CHECKING:
    from sim.broker.server import Broker

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for a peer to get from connecting to its open frame."""


class Client:
    """The broker's side of one connection."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self.opened = False
        self.connection = Connection(self, server=broker.sasl())
        # Whoever connects and says nothing would hold a socket for ever.
        self._patience = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._give_up)
        broker.clients.add(self)

    def dismiss(self, reason: Condition) -> None:
        """Ends the connection: with a reason where the peer has opened it, else at once."""
        self._patience.cancel()
        if self.opened:
            self.connection.close(reason)
        else:
            self.connection.abort()

    def on_open(self, connection: Connection) -> None:
        """Answers the open."""
        self._patience.cancel()
        self.opened = True
        connection.open(self._broker.introduction())

    def on_link(self, link: Link) -> None:
        """Answers an attach: serves the link or refuses it."""
        try:
            if isinstance(link, SenderLink):
                self._serve_consumer(link)
            elif isinstance(link, ReceiverLink):
                self._serve_producer(link)
        except Refusal as refusal:
            link.refuse(condition(refusal))

    def on_lost(self, connection: Connection, reason: Condition | None) -> None:
        """The connection is over."""
        self._patience.cancel()
        self._broker.clients.discard(self)

    def _give_up(self) -> None:
        self.connection.abort()
        self._broker.clients.discard(self)  # where TLS never got so far there is no socket to lose

    def _serve_producer(self, link: ReceiverLink) -> None:
        router = self._broker.router
        target = link.peer_target
        if target is None:
            raise Refusal("amqp:invalid-field", "the attach has no target")
        if target.coordinator:
            raise Refusal("amqp:not-implemented", "this broker has no transactions")
        temporary = router.temporary() if target.dynamic else None
        address = temporary
        if temporary is None and target.address is not None:
            address = router.address(target.address, _kind(target))
        port = ProducerPort(self._broker, link, address, temporary)
        granted = Terminus(
            address=address.name if address else None,
            dynamic=target.dynamic,
            capabilities=(address.kind,) if address else (),
        )
        link.accept(link.peer_source, granted, port, self._broker.limits.max_message_size)
        port.start()

    def _serve_consumer(self, link: SenderLink) -> None:
        router = self._broker.router
        source = link.peer_source
        if source is None or (source.address is None and not source.dynamic):
            raise Refusal("amqp:invalid-field", "the attach names no source")
        temporary = router.temporary() if source.dynamic else None
        name = temporary.name if temporary else source.address or ""
        kind = _kind(source) or router.kind(name)
        port = ConsumerPort(self._broker, link, temporary)
        durable = kind is Kind.TOPIC and (source.durability > 0 or source.never_expires)
        if kind is Kind.TOPIC:
            identity = (self.connection.peer_container, link.name) if durable else None
            port.subscription = router.subscribe(port.consumer, name, identity)
            port.queue = port.subscription.queue
        else:
            port.queue = router.consume(port.consumer, name)
        granted = Terminus(
            address=name,
            dynamic=source.dynamic,
            capabilities=(kind,),
            durability=source.durability if durable else 0,
            never_expires=durable,
        )
        link.accept(granted, link.peer_target, port)
        port.start()


def _kind(terminus: Terminus) -> Kind | None:
    """What the client says the address is, if anything."""
    return next((kind for kind in Kind if kind in terminus.capabilities), None)
