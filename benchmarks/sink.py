"""An AMQP peer that accepts every message and checks the order: the engine in the server role."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from protocols.amqp.cloudevents import from_message
from protocols.amqp.engine import Connection, Open
from protocols.amqp.links import Delivery, Link, ReceiverLink, SenderLink
from protocols.amqp.performatives import Condition
from protocols.amqp.sasl import SaslServer

CREDIT = 1000


class Sink:
    """Counts what comes, and in `misplaced` what did not follow the last sequence of its source."""

    def __init__(self) -> None:
        self.count = 0
        self.misplaced = 0
        self.last: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Listens on a port of loopback."""
        connections: list[Connection] = []

        def connect() -> Connection:
            connections.append(Connection(self, server=SaslServer(None, anonymous=True)))
            return connections[-1]

        server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            for connection in connections:
                connection.abort()
            await server.wait_closed()

    def on_open(self, connection: Connection) -> None:
        connection.open(Open("sink"))

    def on_link(self, link: Link) -> None:
        link.accept(link.peer_source, link.peer_target, self, 0)
        if isinstance(link, ReceiverLink):
            link.window = CREDIT
            link.replenish()

    def on_message(self, delivery: Delivery) -> None:
        event = from_message(delivery.message())
        delivery.accept()
        self.count += 1
        self.misplaced += event.sequence != self.last.get(event.source, 0) + 1
        self.last[event.source] = event.sequence

    def on_attached(self, link: Link) -> None:
        raise AssertionError("the sink attaches nothing by itself")

    def on_credit(self, link: SenderLink) -> None:
        raise AssertionError("the sink sends nothing")

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        """Its messages were accepted as they came."""

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        """Whoever sends connects again."""
