"""The embedded broker: a small AMQP 1.0 broker in this process, for demos, SIL runs and tests on one machine.

It keeps everything in memory. Production uses a real broker.
"""

import asyncio
import hmac
import importlib.metadata
import ssl
import time
import uuid
from collections.abc import Mapping
from typing import Final, Self

from protocols.amqp.engine import Open
from protocols.amqp.performatives import Condition
from protocols.amqp.sasl import SaslServer
from sim.broker.clients import HANDSHAKE_TIMEOUT, Client
from sim.broker.ports import ConsumerPort, ProducerPort
from sim.broker.router import Limits, Router
from sim.broker.statistics import Statistics, collect

PRODUCT: Final = "hilgate-broker"
_SWEEP_PERIOD: Final = 1.0
_CLOSE_TIMEOUT: Final = 1.0


class Broker:
    """An AMQP 1.0 broker on one port, from `start` to `close`, or as an async context manager.

    `users` (name to password) switches SASL PLAIN on and, unless `anonymous` says otherwise, ANONYMOUS off.
    Address names and kinds: `sim.broker.addresses`. A full queue withholds credit; see `Limits`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: Limits | None = None,
        users: Mapping[str, str] | None = None,
        anonymous: bool | None = None,
        tls: ssl.SSLContext | None = None,
        idle_timeout: float = 60.0,
    ) -> None:
        self.limits = limits or Limits()
        self.clock = time.monotonic
        self.router = Router(self.limits, self.clock)
        self.frozen = False
        self.clients: set[Client] = set()
        self.ports: dict[ProducerPort | ConsumerPort, None] = {}
        self._host = host
        self._port = port
        self._users = users
        self._anonymous = users is None if anonymous is None else anonymous
        self._tls = tls
        self._idle_timeout = idle_timeout
        self._container_id = f"{PRODUCT}-{uuid.uuid4().hex[:8]}"
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Client(self).connection,
            self._host,
            self._port,
            ssl=self._tls,
            # Sooner than a client is given up: what was given up must not come to life again.
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT / 2 if self._tls else None,
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self._sweep()

    async def close(self) -> None:
        """Says goodbye to every client, and gives those who do not answer a second. Safe to call twice."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        opened = [client.connection for client in self.clients if client.opened]
        for client in list(self.clients):
            client.dismiss(Condition("amqp:connection:forced", "the broker is shutting down"))
        await asyncio.gather(*(connection.wait_closed(_CLOSE_TIMEOUT) for connection in opened))
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await server.wait_closed()
        except TimeoutError:
            pass  # a TLS handshake that hangs: it has a time limit of its own, and the port is free already
        await asyncio.sleep(0)  # aborted sockets are closed in the loop's next turn

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The port it listens on; where 0 was asked for, the one it got."""
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'amqps' if self._tls else 'amqp'}://{host}:{self._port}"

    def statistics(self) -> Statistics:
        """What the broker holds now, and what it has done since the start."""
        return collect(self.router, sum(client.opened for client in self.clients))

    # Faults that tests inject

    def freeze(self, frozen: bool = True) -> None:
        """Stops settling and delivering while connections and heartbeats go on; False: catches up."""
        self.frozen = frozen
        if not frozen:
            for port in list(self.ports):
                port.thaw()

    def withhold_credit(self, withhold: bool = True) -> None:
        """Takes all producers' credit away, as a broker short of memory does; False: gives it back."""
        self.router.withhold_credit(withhold)

    def drop_connections(self) -> None:
        """Cuts every connection without a word."""
        for client in list(self.clients):
            client.connection.abort()

    # What connections call

    def sasl(self) -> SaslServer:
        """The negotiation for a new connection."""
        return SaslServer(self._verify if self._users is not None else None, self._anonymous)

    def introduction(self) -> Open:
        """What the broker says of itself."""
        return Open(
            container_id=self._container_id,
            idle_timeout=self._idle_timeout,
            properties={"product": PRODUCT, "version": importlib.metadata.version("hilgate")},
            offered=("ANONYMOUS-RELAY",),
        )

    def _verify(self, user: str, password: str) -> bool:
        expected = (self._users or {}).get(user)
        return expected is not None and hmac.compare_digest(expected.encode(), password.encode())

    def _sweep(self) -> None:
        self.router.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_PERIOD, self._sweep)
