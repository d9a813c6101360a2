"""AMQP 1.0 on asyncio: proton's engine, which does no I/O, driven by an `asyncio.Protocol`.

One class serves both roles. A client attaches links and learns of their fate; a server (the embedded broker)
is told of the links that the peer attaches. TLS is asyncio's, below this.
"""

import asyncio
from typing import cast

import cproton as pn

from protocols.amqp.links import ReceiverLink, SenderLink
from protocols.amqp.machine import ClientSasl, ConnectionHandler, Machine, Open
from protocols.amqp.performatives import Condition, PeerError, set_condition
from protocols.amqp.sasl import SaslServer, SaslState

__all__ = ["ClientSasl", "Connection", "ConnectionHandler", "Open"]


class Connection(Machine, asyncio.Protocol):
    """One AMQP connection over one socket."""

    def __init__(
        self, handler: ConnectionHandler, client: ClientSasl | None = None, server: SaslServer | None = None
    ) -> None:
        super().__init__(handler, client, server)
        self._loop = asyncio.get_running_loop()
        self._socket: asyncio.Transport | None = None
        self._bound = False
        self._paused = False
        self._pumping = False
        self._wake_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket has gone."""

    # What the owner calls

    def close(self, condition: Condition | None = None) -> None:
        """Starts an orderly close: what was sent and settled leaves first, and the peer's close is awaited.

        Sessions of receivers end before the connection: RabbitMQ 4 may drop what it has not yet looked at
        of a session whose connection is closed, and that would be our last settlements. Sessions of senders
        stay: their last outcomes come until the peer's close.
        """
        if self.over:
            return
        self._closing = True
        set_condition(pn.pn_connection_condition(self._connection), condition)
        receiving = [link.session for link in self._links.values() if isinstance(link, ReceiverLink)]
        self._ending = {session for session in receiving if session in self._sessions}
        for session in self._ending:
            pn.pn_session_close(session)
        if not self._ending:
            pn.pn_connection_close(self._connection)
        self.wake()

    def abort(self) -> None:
        """Drops the socket at once."""
        if self._socket is not None:
            self._socket.abort()

    async def wait_closed(self, timeout: float) -> None:
        """Waits until the socket has gone, and makes it go when `timeout` seconds have passed."""
        # Not `asyncio.timeout`: in a task that is being cancelled Python 3.11.2's raises no TimeoutError.
        await asyncio.wait([self.closed], timeout=timeout)
        if not self.closed.done():
            self.abort()
            await asyncio.shield(self.closed)

    @property
    def congested(self) -> bool:
        """The socket takes no more for now."""
        return self._paused

    # What links call

    def wake(self) -> None:
        """Lets what was put into the engine leave, with all else that this turn of the loop puts there."""
        if not (self._wake_due or self._pumping or self._over or self._socket is None):
            self._wake_due = True
            self._loop.call_soon(self._woken)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        self._socket = cast(asyncio.Transport, transport)
        if self._server_sasl is None:
            self._bind()

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        if self._server_sasl is not None and not self._bound:
            data = self._negotiate(self._server_sasl, data)
            if not self._bound:
                return
        view = memoryview(data)
        while view and not self._over:
            room = pn.pn_transport_capacity(self._engine)
            taken = pn.pn_transport_push(self._engine, view[:room]) if room > 0 else room
            if taken <= 0:
                break  # the engine has ended its input, and an error event says why
            view = view[taken:]
        self._pump()

    def pause_writing(self) -> None:
        """The socket's buffer is full: bytes stay in the engine, and senders show no credit."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket's buffer has room again."""
        self._paused = False
        self._pump()
        for link in [*self._links.values()]:
            if isinstance(link, SenderLink) and link.attached and link.handler is not None:
                link.handler.on_credit(link)

    def eof_received(self) -> bool:
        """The peer ended its output: nothing more can come of this connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket has gone, whoever closed it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._condition is None and not self._peer_closed():
            self._condition = Condition(
                "amqp:connection:forced", f"the connection was lost: {exc or 'end of stream'}"
            )
        try:
            self._end()
            self._handler.on_lost(self, self._condition)
        finally:
            self._free()
            self.closed.set_result(None)

    # The engine's turn

    def opened(self) -> None:
        """The peer's open frame has come."""
        self._handler.on_open(self)

    def _negotiate(self, sasl: SaslServer, data: bytes) -> bytes:
        assert self._socket is not None
        answer, rest = sasl.feed(data)
        self._socket.write(answer)
        if sasl.state is SaslState.DONE:
            self._bind()
        elif sasl.state is SaslState.FAILED:
            self._condition = Condition("amqp:unauthorized-access", "authentication failed")
            self._close_socket()
        return rest

    def _bind(self) -> None:
        pn.pn_transport_bind(self._engine, self._connection)
        self._bound = True
        self._pump()

    def _woken(self) -> None:
        self._wake_due = False
        if not self._over:
            self._pump()

    def _pump(self) -> None:
        """Hands out events and writes what is due, until there is neither."""
        if self._pumping:
            return
        self._pumping = True
        try:
            self._tick()
            while not self._over and (self._dispatch() or self._flush()):
                pass
            if self._timer is None and not self._over:
                self._tick()  # an open in this turn may have brought the idle times in
        except PeerError as error:
            self._fail(Condition("amqp:decode-error", f"the peer sent {error}"))
        finally:
            self._pumping = False
        if self._failed and self._socket is not None and self._socket.get_write_buffer_size():
            self._socket.abort()  # a peer that reads nothing would keep an orderly close waiting for ever

    def _flush(self) -> bool:
        if self._socket is None or self._socket.is_closing():
            return False
        busy = False
        while not self._paused and (size := pn.pn_transport_pending(self._engine)) > 0:
            # One write each: the socket says at once when it has enough, and the rest waits in the engine.
            self._socket.write(pn.pn_transport_peek(self._engine, size)[1])
            pn.pn_transport_pop(self._engine, size)
            busy = True
        if not self._paused and pn.pn_transport_pending(self._engine) < 0:
            self._note_error()  # a failed authentication makes no event
            if self._failed or self._peer_closed():
                self._close_socket()  # not before the peer's close: what it settled on the way would be lost
        return busy

    def _tick(self) -> None:
        """Heartbeats, and the peer's silence. Called with every exchange: proton compares byte counters."""
        deadline = pn.pn_transport_tick(self._engine, round(self._loop.time() * 1000) or 1)
        if deadline and self._timer is None:
            self._timer = self._loop.call_at(deadline / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _fail(self, condition: Condition) -> None:
        """Ends a connection whose peer broke the protocol: says so, and does not wait for an answer."""
        self._condition = condition
        self._failed = True
        set_condition(pn.pn_connection_condition(self._connection), condition)
        pn.pn_connection_close(self._connection)
        self._flush()
        self._close_socket()

    def _close_socket(self) -> None:
        # Once: after a second time the TLS of Python 3.11.2 cannot be aborted any more.
        if self._socket is not None and not self._socket.is_closing():
            self._socket.close()
