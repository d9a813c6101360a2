"""The HTTP server: who is let in, what is refused, and certificates that change while it runs."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.settings import Settings
from agent.web.access import Access
from agent.web.limits import IDLE_S, BoundedHandler, BoundedServer, Door, Gate
from agent.web.status import PATHS, PROBES, Status, answer
from agent.web.token import is_loopback
from protocols.tls import Files, FileWatch, TlsCredentials, UnusableFile, aside, server_context

if TYPE_CHECKING:
    from agent.app import Agent

_METHODS = ("GET", "HEAD")
_CLOSE_S = 1.0
LOOK_S = 2.0
"""How often certificate files are looked at."""


class Server(Collector):
    """Answers requests for one agent, and counts them."""

    def __init__(self, agent: "Agent", settings: Settings) -> None:
        self._access = Access(settings.http_token_file, certificates=settings.http_client_ca is not None)
        self._status = Status(agent, settings.bench, self)
        self._answered: Counter[tuple[str, int]] = Counter()
        self._server = BoundedServer(self._handle, self._spoilt)
        self._log = structlog.get_logger("web")
        self.door = Door(self._server)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, BoundedHandler)
        protocol.wait(IDLE_S)
        try:
            response = await self._answer(request)
        except Exception:  # noqa: BLE001  # the log has it: a client must not see it
            self._log.exception("an HTTP request failed by a fault of the agent", path=request.path[:100])
            response = answer({"error": "internal error"}, 500)
        if request.body_exists or "Upgrade" in request.headers:
            response.force_close()  # what follows is no request
        self._count(request.path, response.status)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if request.method not in _METHODS:
            return answer({"error": "only GET and HEAD"}, 405, Allow=", ".join(_METHODS))
        if request.body_exists:
            return answer({"error": "a request has no body here"}, 413)
        if path in PROBES:
            return self._status.probe(path)
        certified = bool(request.transport and request.transport.get_extra_info("peercert"))
        if await self._access.allows(request.headers, certified):
            return self._status.page(path, request.headers)
        if self._access.open:
            return answer({"error": "ask by the name localhost or an address of loopback"}, 421)
        self._log.warning("an HTTP request without a right token or certificate", peer=request.remote)
        return answer({"error": "a token or a client certificate is needed"}, 401, WWW_Authenticate="Bearer")

    def _spoilt(self, request: web.BaseRequest, status: int) -> web.StreamResponse:
        self._count("", status)
        response = answer({"error": "bad request" if status < 500 else "internal error"}, status)
        response.force_close()
        return response

    def _count(self, path: str, status: int) -> None:
        if path.startswith("/values/"):
            path = "/values/{device}"
        self._answered[path if path in PROBES or path in PATHS else "other", status] += 1

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that gets it asks for no metrics when this is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics of the server itself."""
        requests = CounterMetricFamily(
            "hilgate_http_requests_total", "HTTP requests that were answered.", labels=["path", "code"]
        )
        for (path, status), count in self._answered.items():
            requests.add_metric([path, str(status)], count)
        refused = CounterMetricFamily(
            "hilgate_http_connections_refused_total",
            "HTTP connections that were closed early: there were too many, or their TLS handshake failed.",
            labels=["reason"],
        )
        for reason, count in self.door.refused.items():
            refused.add_metric([reason], count)
        yield requests
        yield refused
        yield GaugeMetricFamily("hilgate_http_connections", "HTTP connections now.", self.door.connections)

    async def close(self) -> None:
        """Ends all connections."""
        await self.door.close()
        self._server.pre_shutdown()
        await self._server.shutdown(_CLOSE_S)

    async def renew(self, tls: Files) -> bool:
        """Takes up files that have changed; where they cannot be used (False) all stays as it is.

        Connections that were let in by the old ones end.
        """
        try:
            self.door.context = await asyncio.to_thread(server_context, tls, optional=True)
        except UnusableFile as error:
            # `Certificates` says it, in the log and in availability.
            self._log.debug("new HTTP certificates cannot be used; the old ones stay", reason=str(error))
            return False
        self._log.info("HTTP uses new certificates")
        for connection in self._server.connections:
            connection.force_close()  # whoever is just being answered asks again
        return True


async def serve(agent: "Agent", settings: Settings) -> None:
    """Serves until cancelled; where TLS is set, by the files as they are when a connection comes.

    Raises:
        OSError: the port cannot be had, or a certificate cannot be used.
    """
    assert settings.http is not None
    host, _, port = settings.http.rpartition(":")
    server = Server(agent, settings)
    log = structlog.get_logger("web")
    if settings.http_cert is None and not is_loopback(host):
        log.warning(
            "HTTP goes over the network without TLS: whoever listens can read the token", listen=settings.http
        )
    loop = asyncio.get_running_loop()
    watch = None
    if settings.http_cert is not None:
        tls = Files(ca=settings.http_client_ca, cert=settings.http_cert, key=settings.http_key)
        watch = FileWatch(TlsCredentials(tls).paths())
        # A probe has no certificate: whether one is needed is judged by what is asked for.
        server.door.context = await aside(lambda: server_context(tls, optional=True))
    try:
        listening = await loop.create_server(lambda: Gate(server.door), host.strip("[]"), int(port))
    except (OSError, socket.gaierror) as error:
        raise OSError(f"http cannot listen on {settings.http}: {error.strerror or error}") from error
    taken_up = True
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            # In a thread: a network file system may hang. And what is not valid yet may be so later.
            if watch is not None and (await asyncio.to_thread(watch.changed) or not taken_up):
                taken_up = await server.renew(tls)
    finally:
        listening.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * _CLOSE_S):
                await server.close()
