"""The broker: listens, knows the sessions of its clients, and hands messages on."""

import asyncio
import hmac
import ssl

from sim.mqtt.broker.connection import Connection
from sim.mqtt.broker.packets import Connect, Message
from sim.mqtt.broker.router import Router
from sim.mqtt.broker.session import Session

_NEVER = 0xFFFFFFFF
_SESSIONS = 10_000


class Broker:
    """An MQTT broker on loopback, for simulated devices: 3.1.1 and 5.0, QoS 0 to 2, retained messages, wills,
    kept sessions, shared subscriptions. Nothing is kept on disk.

    `user` is the one name and password that it lets in; without it everybody is.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        user: tuple[str, str] | None = None,
    ) -> None:
        self.host, self.port = host, port
        self.router = Router()
        self.connections: set[Connection] = set()
        self.malformed = 0
        """Connections that were ended because they broke the rules."""
        self._tls, self._user = tls, user
        self._sessions: dict[str, tuple[Session, Connection | None]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens; `port` says where.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Closes every connection; safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self.connections):
            connection.abort()
            await connection.gone.wait()
        await server.wait_closed()

    def lets_in(self, connect: Connect) -> bool:
        """Whether the client's name and password are right."""
        if self._user is None:
            return True
        name, password = self._user
        given = (connect.username or "").encode(), connect.password or b""
        return hmac.compare_digest(given[0], name.encode()) and hmac.compare_digest(
            given[1], password.encode()
        )

    def joined(self, connection: Connection, client_id: str, connect: Connect) -> tuple[Session, bool]:
        """The session of a client that has come, and whether it was there before."""
        now = asyncio.get_running_loop().time()
        session, other = self._sessions.get(client_id, (None, None))
        if other is not None:
            will = other.take_over()
            if will is not None:
                self.router.route(will, None, now)
        expired = session is not None and session.expires is not None and session.expires <= now
        if session is not None and (connect.clean or expired):
            self.router.forget(session)
            session = None
        present = session is not None
        if session is None:
            session = Session(client_id)
        self._sessions[client_id] = session, connection
        self._forget_expired(now)
        return session, present

    def left(self, session: Session, will: Message | None) -> None:
        """A client is gone."""
        now = asyncio.get_running_loop().time()
        session.send = None
        if session.expiry == 0:
            self.router.forget(session)
            self._sessions.pop(session.client_id, None)
        else:
            session.expires = None if session.expiry == _NEVER else now + session.expiry
            self._sessions[session.client_id] = session, None
        if will is not None:
            self.router.route(will, None, now)

    def _forget_expired(self, now: float) -> None:
        for client_id, (session, connection) in list(self._sessions.items()):
            gone = connection is None and session.expires is not None and session.expires <= now
            if gone or (connection is None and len(self._sessions) > _SESSIONS):
                self.router.forget(session)
                del self._sessions[client_id]
