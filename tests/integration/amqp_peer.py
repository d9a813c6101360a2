"""An AMQP peer that does what a test tells it: the engine in the server role, and no broker behind it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping

from protocols.amqp.engine import ClientSasl, Connection, Open
from protocols.amqp.links import Delivery, Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition, Terminus
from protocols.amqp.sasl import SaslServer, Verify

PATIENCE_S = 30.0


class Peer:
    """Answers every connection and link; what it saw is in its lists."""

    def __init__(self) -> None:
        self.product: Mapping[str, str] = {}
        self.offered: tuple[str, ...] = ()
        self.verify: Verify | None = None
        self.credit = 100
        self.max_message_size = 0
        self.refuse: set[str] = set()
        self.ignore: set[str] = set()
        """Addresses to which an attach is never answered."""
        self.mute = False
        """Take connections and say nothing."""
        self.settle: Callable[[Delivery], object] | None = Delivery.accept
        """None: keep messages unsettled."""
        self.connections: list[Connection] = []
        self.links: list[Link] = []
        self.deliveries: list[Delivery] = []
        self.detached: list[tuple[str, Condition | None]] = []
        self.lost: list[Condition | None] = []
        self.port = 0
        self._news = asyncio.Event()

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator["Peer"]:
        """Listens on loopback; leaving drops every connection."""
        server = await asyncio.get_running_loop().create_server(self._connection, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self.connections:
                if connection._socket is not None:  # else its TLS handshake failed
                    connection.abort()
                    await connection.closed
            await server.wait_closed()

    async def until(self, found: Callable[[], object]) -> None:
        """Waits until something is true of what was seen."""
        async with asyncio.timeout(PATIENCE_S):
            while not found():
                self._news.clear()
                await self._news.wait()

    def sender_to(self, address: str) -> SenderLink:
        """The last link by which the peer sends what is asked from `address`."""
        links = [
            link
            for link in self.links
            if isinstance(link, SenderLink)
            and link.attached
            and (link.peer_source or Terminus()).address == address
        ]
        return links[-1]

    def give_credit(self, credit: int) -> None:
        """Lets everyone send so many messages more."""
        for link in self.links:
            if isinstance(link, ReceiverLink):
                link.flow(credit)

    def _connection(self) -> Connection:
        connection = Connection(self, server=SaslServer(self.verify, anonymous=self.verify is None))
        self.connections.append(connection)
        return connection

    def on_open(self, connection: Connection) -> None:
        if not self.mute:
            connection.open(Open("peer", properties=self.product, offered=self.offered))
        self._news.set()

    def on_link(self, link: Link) -> None:
        asked = link.peer_source if isinstance(link, SenderLink) else link.peer_target
        self.links.append(link)
        self._news.set()
        if asked is not None and asked.address in self.refuse:
            link.refuse(Condition("amqp:not-found", f"no {asked.address} here"))
            return
        if asked is not None and asked.address in self.ignore:
            return
        source, target = link.peer_source, link.peer_target
        if asked is not None and asked.dynamic:
            source = Terminus(f"dynamic-{len(self.links)}", dynamic=True)
        link.accept(source, target, self, self.max_message_size)
        if isinstance(link, ReceiverLink) and self.credit:
            link.window = self.credit
            link.replenish()

    def on_attached(self, link: Link) -> None:
        raise AssertionError("this peer attaches nothing by itself")

    def on_credit(self, link: SenderLink) -> None:
        self._news.set()

    def on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.settle is not None:
            self.settle(delivery)
        self._news.set()

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        self.detached.append((link.name, condition))
        self._news.set()

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        self.lost.append(condition)
        self._news.set()


class Caller:
    """The client's side of one bare connection of the engine."""

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection
        self.opened = False
        self.deliveries: list[Delivery] = []
        self.attached: list[Link] = []
        self.detached: list[tuple[Link, Condition | None]] = []
        self.credit_changes = 0
        self.lost: list[Condition | None] = []
        self._news = asyncio.Event()

    async def until(self, found: Callable[[], object]) -> None:
        """Waits until something is true of what was seen."""
        async with asyncio.timeout(PATIENCE_S):
            while not found():
                self._news.clear()
                await self._news.wait()

    def note(self, *_: object) -> None:
        """Looks again at what is waited for."""
        self._news.set()

    def on_open(self, connection: Connection) -> None:
        self.opened = True
        self._news.set()

    def on_link(self, link: Link) -> None:
        link.refuse(Condition("amqp:not-allowed", "not here"))

    def on_attached(self, link: Link) -> None:
        self.attached.append(link)
        self._news.set()

    def on_credit(self, link: SenderLink) -> None:
        self.credit_changes += 1
        self._news.set()

    def on_message(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._news.set()

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        self.detached.append((link, condition))
        self._news.set()

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        self.lost.append(condition)
        self._news.set()


@contextlib.asynccontextmanager
async def calling(peer: Peer, **opening: float) -> AsyncIterator[tuple[Caller, Connection]]:
    """A connection of the engine to a peer, opened; leaving closes it."""
    caller = Caller()
    connection = Connection(caller, client=ClientSasl())
    connection.open(Open("caller", hostname="localhost", **opening))  # type: ignore[arg-type]
    await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", peer.port)
    try:
        await caller.until(lambda: caller.opened)
        yield caller, connection
    finally:
        connection.close()
        await connection.wait_closed(1.0)
