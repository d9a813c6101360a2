"""What one client, or very many, can cost: connections, time and log lines are bounded."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MOST_CONNECTIONS = 64
"""Connections at once, also those whose TLS handshake is under way; for one more the oldest is closed."""
REQUEST_S = 10.0
"""How long a client may take for its TLS handshake, and again for its first request."""
IDLE_S = 75.0
"""How long a connection may stay without another request: longer than the usual scrape interval."""
MOST_LINE = 2048
"""Bytes of a request's first line."""
MOST_FIELD = 8190
"""Bytes of one header: a bearer token may be a long one."""
MOST_HEADERS = 64
"""Headers of a request."""


class Door:
    """Lets connections in, with TLS where there is a context, and sees them off when they dawdle."""

    def __init__(self, server: "BoundedServer") -> None:
        self.context: ssl.SSLContext | None = None
        """For connections that come from now on."""
        self.refused = {"too-many": 0, "tls": 0}
        """Connections that were closed, for there were too many, or as their handshake failed."""
        self._server = server
        self._inside: dict[asyncio.BaseTransport, Callable[[], object]] = {}
        """How each is put out, the oldest first."""
        self._handshakes: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("web")

    @property
    def connections(self) -> int:
        """Connections now."""
        return len(self._inside)

    def enter(self, transport: asyncio.Transport, gate: "Gate") -> None:
        """Takes a connection that was just made.

        Not this one goes where there are too many: nobody keeps probes out by holding all there are.
        """
        if len(self._inside) >= MOST_CONNECTIONS:
            self.refused["too-many"] += 1
            self._log.warning("too many HTTP connections; the oldest was closed")
            self._inside.pop(next(iter(self._inside)))()
        self._inside[transport] = transport.abort
        handler = self._server.handler(lambda: self._inside.pop(transport, None))
        if self.context is None:
            transport.set_protocol(handler)
            handler.connection_made(transport)
            return
        transport.pause_reading()
        task = asyncio.get_running_loop().create_task(
            self._secure(transport, gate, handler, self.context), name="web handshake"
        )
        self._handshakes.add(task)
        self._inside[transport] = task.cancel

        def end(ended: asyncio.Task[None]) -> None:
            self._handshakes.discard(ended)
            if ended.cancelled():  # before it began: it did nothing
                self._inside.pop(transport, None)
                transport.abort()

        task.add_done_callback(end)

    async def _secure(
        self,
        transport: asyncio.Transport,
        gate: "Gate",
        handler: "BoundedHandler",
        context: ssl.SSLContext,
    ) -> None:
        loop, put_out = asyncio.get_running_loop(), False
        starting = loop.create_task(
            loop.start_tls(transport, handler, context, server_side=True, ssl_handshake_timeout=REQUEST_S)
        )
        try:
            await asyncio.sleep(0)  # TLS has taken the transport over, and begins in the loop's next turn
            if gate.early:
                loop.call_soon(_feed, transport.get_protocol(), gate.early)
            secured = await starting
        except OSError:  # no TLS, no certificate that is trusted, or too slow
            secured = None
        except asyncio.CancelledError:  # put out, and counted as that
            secured, put_out = None, True
        if context is not self.context:  # judged by files that were replaced meanwhile
            secured = None
        if secured is None:
            starting.cancel()
            self.refused["tls"] += not put_out
            self._inside.pop(transport, None)
            transport.abort()
        elif transport in self._inside:
            self._inside[transport] = secured.abort
            handler.connection_made(secured)
        else:  # the client was gone again before this could go on
            secured.abort()

    async def close(self) -> None:
        """Ends handshakes that are under way."""
        for task in self._handshakes:
            task.cancel()
        if self._handshakes:
            await asyncio.wait([*self._handshakes])


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Hands bytes to a protocol as its transport does."""
    buffered = cast("asyncio.BufferedProtocol", protocol)
    while data:
        buffer = memoryview(buffered.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        buffered.buffer_updated(size)
        data = data[size:]


class Gate(asyncio.Protocol):
    """What a connection meets first."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands the connection over."""
        # A cast: uvloop's transports do not call themselves asyncio.Transport.
        self._door.enter(cast("asyncio.Transport", transport), self)

    def data_received(self, data: bytes) -> None:
        """Keeps what comes before TLS takes over: uvloop reads a moment before that, paused or not."""
        self.early += data


class BoundedServer(web.Server):
    """aiohttp's server, whose connections end when nothing comes; `spoilt` answers what is no request."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        spoilt: Callable[[web.BaseRequest, int], web.StreamResponse],
    ) -> None:
        super().__init__(
            handler,
            access_log=None,
            keepalive_timeout=IDLE_S,
            max_line_size=MOST_LINE,
            max_field_size=MOST_FIELD,
            max_headers=MOST_HEADERS,
            lingering_time=0,
        )
        self.spoilt = spoilt

    def handler(self, gone: Callable[[], object]) -> "BoundedHandler":
        """A handler for one connection; `gone` is called when it is lost."""
        return BoundedHandler(self, self._loop, self._kwargs, gone)


class BoundedHandler(RequestHandler):
    """One connection, that ends where its client neither asks nor takes the answer."""

    __slots__ = ("_early", "_gone", "_patience", "_server")

    def __init__(
        self,
        server: BoundedServer,
        loop: asyncio.AbstractEventLoop,
        options: dict[str, Any],
        gone: Callable[[], object],
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        self._gone = gone
        self._early = b""
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for a request."""
        super().connection_made(transport)
        self.wait(REQUEST_S)
        if self._early:
            early, self._early = self._early, b""
            super().data_received(early)

    def wait(self, seconds: float) -> None:
        """Gives the client so long until its next request is here and the last answer was taken."""
        if self._patience is not None:
            self._patience.cancel()
        if self.transport is not None:
            self._patience = self._loop.call_later(seconds, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Takes what comes, also what came along with the end of the handshake."""
        if self.transport is None:
            self._early += data
        else:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops to wait."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._gone()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is no request: without a word of what came, and without a line in the log."""
        return self._server.spoilt(request, status)
