"""proton's engine without I/O: one connection's links, and what its events mean to whoever owns them."""

import abc
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import cproton as pn
import msgspec
import proton

from protocols.amqp.links import Link, LinkHandler, ReceiverLink, SenderLink
from protocols.amqp.performatives import (
    Condition,
    Terminus,
    get_object,
    get_symbols,
    put_symbols,
    read_condition,
    read_text,
    write_terminus,
)
from protocols.amqp.sasl import SaslServer

if TYPE_CHECKING:
    from protocols.amqp.engine import Connection

MAX_FRAME_SIZE = 128 * 1024


class Open(msgspec.Struct, frozen=True):
    """What we say of ourselves in the open frame (AMQP 1.0 part 2, section 2.7.1)."""

    container_id: str
    hostname: str | None = None
    idle_timeout: float = 0.0
    """Seconds without a byte from the peer after which the connection counts as dead; 0: never."""
    properties: Mapping[str, str] = {}
    offered: tuple[str, ...] = ()
    desired: tuple[str, ...] = ()
    max_frame_size: int = MAX_FRAME_SIZE


class ClientSasl(msgspec.Struct, frozen=True):
    """How a client authenticates. PLAIN is used only with `plain_allowed`: the password leaves as it is."""

    mechanisms: tuple[str, ...] = ("ANONYMOUS", "PLAIN", "EXTERNAL")
    username: str | None = None
    password: str | None = None
    plain_allowed: bool = False


class ConnectionHandler(Protocol):
    """Who owns a connection. Every call comes from the loop and must not block."""

    def on_open(self, connection: "Connection") -> None:
        """The peer's open frame is here; a server answers with `connection.open`."""

    def on_link(self, link: Link) -> None:
        """The peer attached a link by itself: answer with its `accept` or `refuse`."""

    def on_lost(self, connection: "Connection", condition: Condition | None) -> None:
        """The connection is over, after all its links' `on_detached`; None: closed in order. Called once."""


class Machine(abc.ABC):
    """One AMQP connection as proton has it: its links, and the events that come of the peer's bytes."""

    def __init__(
        self, handler: ConnectionHandler, client: ClientSasl | None = None, server: SaslServer | None = None
    ) -> None:
        self._handler = handler
        self._server_sasl = server
        self._collector = pn.pn_collector()
        self._connection = pn.pn_connection()
        self._engine = pn.pn_transport()
        # Also for a connection that never gets a socket, such as one whose TLS handshake fails.
        self._free = weakref.finalize(self, _free, self._engine, self._connection, self._collector)
        self._links: dict[Any, Link] = {}
        self._sessions: set[Any] = set()
        self._shared: Any = None
        self._link_names = 0
        self._condition: Condition | None = None
        self._failed = False
        self._over = False
        self._closing = False
        self._ending: set[Any] = set()
        self.peer_container = ""
        """The peer's container id, once it has opened."""
        self.peer_properties: Mapping[str, Any] = {}
        """The properties of the peer's open frame, such as `product` and `version`."""
        self.peer_offers: Sequence[str] = ()
        """The capabilities that the peer offers, such as `ANONYMOUS-RELAY`."""
        pn.pn_connection_collect(self._connection, self._collector)
        if server is not None:
            pn.pn_transport_set_server(self._engine)
        if client is not None:
            self._authenticate(client)
        self._on_event: Mapping[int, Callable[[Any], None]] = {
            pn.PN_CONNECTION_REMOTE_OPEN: self._on_connection_open,
            pn.PN_CONNECTION_REMOTE_CLOSE: self._on_connection_close,
            pn.PN_SESSION_REMOTE_OPEN: self._on_session_open,
            pn.PN_SESSION_REMOTE_CLOSE: self._on_session_close,
            pn.PN_LINK_REMOTE_OPEN: self._on_link_open,
            pn.PN_LINK_REMOTE_CLOSE: self._on_link_close,
            pn.PN_LINK_REMOTE_DETACH: self._on_link_close,
            pn.PN_LINK_FLOW: self._on_link_flow,
            pn.PN_DELIVERY: self._on_delivery,
            pn.PN_TRANSPORT_ERROR: self._on_transport_error,
        }

    # What the owner calls

    def open(self, say: Open) -> None:
        """Sends our open frame. A client calls it before the socket is connected."""
        pn.pn_connection_set_container(self._connection, say.container_id)
        if say.hostname is not None:
            pn.pn_connection_set_hostname(self._connection, say.hostname)
        properties = {proton.symbol(key): value for key, value in say.properties.items()}
        proton.Data(pn.pn_connection_properties(self._connection)).put_dict(properties)
        put_symbols(pn.pn_connection_offered_capabilities(self._connection), say.offered)
        put_symbols(pn.pn_connection_desired_capabilities(self._connection), say.desired)
        pn.pn_transport_set_max_frame(self._engine, say.max_frame_size)
        pn.pn_transport_set_idle_timeout(self._engine, round(say.idle_timeout * 1000))
        pn.pn_connection_open(self._connection)
        self.wake()

    def attach_sender(
        self, handler: LinkHandler, target: Terminus, *, source: Terminus | None = None
    ) -> SenderLink:
        """Attaches a link of our own, in a session of its own, to send unsettled messages to `target`.

        A session each, because several brokers answer a bad address or size by ending the session.
        """
        link = self._new_sender(handler, self._begin(), self._new_name(), pn.PN_SND_UNSETTLED)
        self._attach(link, source or Terminus(), target)
        return link

    def attach_receiver(
        self, handler: LinkHandler, source: Terminus, *, name: str | None = None, max_message_size: int = 0
    ) -> ReceiverLink:
        """Attaches a link of our own, in a session of its own, to receive from `source`."""
        link = self._new_receiver(handler, self._begin(), name or self._new_name(), pn.PN_SND_MIXED)
        link.limit(max_message_size)
        self._attach(link, source, Terminus())
        return link

    def attach_pair(self, handler: LinkHandler, address: str) -> tuple[SenderLink, ReceiverLink]:
        """Attaches a link pair for requests to `address` and their responses (AMQP link pairing 1.0)."""
        session, name, node = self._begin(), self._new_name(), Terminus(address)
        sender = self._new_sender(handler, session, name, pn.PN_SND_SETTLED)
        receiver = self._new_receiver(handler, session, name, pn.PN_SND_SETTLED)
        for link in (sender, receiver):
            proton.Data(pn.pn_link_properties(link.impl)).put_dict({proton.symbol("paired"): True})
            self._attach(link, node, node)
        return sender, receiver

    @property
    def user(self) -> str | None:
        """Server role: the user that authenticated; None for an anonymous one."""
        return self._server_sasl.user if self._server_sasl is not None else None

    @property
    def over(self) -> bool:
        """The connection is closed, or being closed."""
        return self._over or self._closing

    # What links call

    @abc.abstractmethod
    def wake(self) -> None:
        """Lets what was put into the engine leave, with all else that this turn of the loop puts there."""

    @property
    @abc.abstractmethod
    def congested(self) -> bool:
        """The socket takes no more for now."""

    # Events

    @abc.abstractmethod
    def opened(self) -> None:
        """The peer's open frame has come."""

    def _dispatch(self) -> bool:
        event = pn.pn_collector_peek(self._collector)
        busy = False
        while event:
            busy = True
            on_event = self._on_event.get(pn.pn_event_type(event))
            try:
                if on_event is not None:
                    on_event(event)
            finally:
                pn.pn_collector_pop(self._collector)
            event = pn.pn_collector_peek(self._collector)
        return busy

    def _authenticate(self, client: ClientSasl) -> None:
        if client.username is not None:
            pn.pn_connection_set_user(self._connection, client.username)
            pn.pn_connection_set_password(self._connection, client.password)
        sasl = pn.pn_sasl(self._engine)
        pn.pn_sasl_allowed_mechs(sasl, " ".join(client.mechanisms))
        pn.pn_sasl_set_allow_insecure_mechs(sasl, client.plain_allowed)

    def _note_error(self) -> None:
        condition = read_condition(pn.pn_transport_condition(self._engine))
        if condition is not None:
            self._failed = True
            self._condition = self._condition or condition

    def _peer_closed(self) -> bool:
        return bool(pn.pn_connection_state(self._connection) & pn.PN_REMOTE_CLOSED)

    def _on_connection_open(self, event: Any) -> None:
        self.peer_container = read_text(pn.pn_connection_remote_container, self._connection) or ""
        found = get_object(proton.Data(pn.pn_connection_remote_properties(self._connection)))
        if isinstance(found, dict):
            self.peer_properties = {str(key): value for key, value in found.items()}
        self.peer_offers = get_symbols(pn.pn_connection_remote_offered_capabilities(self._connection))
        self.opened()

    def _on_connection_close(self, event: Any) -> None:
        self._condition = read_condition(pn.pn_connection_remote_condition(self._connection))
        pn.pn_connection_close(self._connection)

    def _on_transport_error(self, event: Any) -> None:
        self._note_error()

    def _on_session_open(self, event: Any) -> None:
        session = pn.pn_event_session(event)
        if pn.pn_session_state(session) & pn.PN_LOCAL_UNINIT:
            pn.pn_session_open(session)

    def _on_session_close(self, event: Any) -> None:
        session = pn.pn_event_session(event)
        condition = read_condition(pn.pn_session_remote_condition(session))
        for link in [*self._links.values()]:
            if link.session == session:
                self._end_link(link, condition)
        self._sessions.discard(session)
        if session == self._shared:
            self._shared = None
        pn.pn_session_close(session)
        pn.pn_session_free(session)
        if session in self._ending:
            self._ending.remove(session)
            if not self._ending:
                pn.pn_connection_close(self._connection)

    def _on_link_open(self, event: Any) -> None:
        impl = pn.pn_event_link(event)
        link = self._links.get(impl)
        if link is None:
            kind = SenderLink if pn.pn_link_is_sender(impl) else ReceiverLink
            link = self._links[impl] = kind(self, impl, pn.pn_link_session(impl), None)
            self._handler.on_link(link)
        elif not self._refused(link):
            link.attached = True
            if link.handler is not None:
                link.handler.on_attached(link)

    def _refused(self, link: Link) -> bool:
        """A peer that refuses a link attaches it without our terminus, and detaches it next."""
        theirs = link.peer_target if isinstance(link, SenderLink) else link.peer_source
        return theirs is None

    def _on_link_close(self, event: Any) -> None:
        link = self._links.get(pn.pn_event_link(event))
        if link is not None:
            condition = read_condition(pn.pn_link_remote_condition(link.impl))
            link.peer_closed = pn.pn_event_type(event) == pn.PN_LINK_REMOTE_CLOSE
            # The same kind of detach is the answer (part 2, section 2.6.4): a closed link is not resumed.
            (pn.pn_link_close if link.peer_closed else pn.pn_link_detach)(link.impl)
            self._end_link(link, condition)
            pn.pn_link_free(link.impl)
            if link.own_session:
                pn.pn_session_close(link.session)

    def _on_link_flow(self, event: Any) -> None:
        link = self._links.get(pn.pn_event_link(event))
        if isinstance(link, SenderLink) and link.attached and link.handler is not None:
            link.handler.on_credit(link)

    def _on_delivery(self, event: Any) -> None:
        link = self._links.get(pn.pn_event_link(event))
        if link is not None:
            link.on_delivery(pn.pn_event_delivery(event))

    # Links

    def _begin(self) -> Any:
        """A session for a link of our own; where the peer allows no more of them, one that the rest share."""
        if self._shared is not None:
            return self._shared
        session = pn.pn_session(self._connection)
        pn.pn_session_open(session)
        self._sessions.add(session)
        if len(self._sessions) > pn.pn_transport_remote_channel_max(self._engine):
            self._shared = session
        return session

    def _new_name(self) -> str:
        self._link_names += 1
        return f"link-{self._link_names}"

    def _new_sender(self, handler: LinkHandler, session: Any, name: str, settle_mode: int) -> SenderLink:
        impl = pn.pn_sender(session, name)
        pn.pn_link_set_snd_settle_mode(impl, settle_mode)
        return SenderLink(self, impl, session, handler)

    def _new_receiver(self, handler: LinkHandler, session: Any, name: str, settle_mode: int) -> ReceiverLink:
        impl = pn.pn_receiver(session, name)
        pn.pn_link_set_snd_settle_mode(impl, settle_mode)
        return ReceiverLink(self, impl, session, handler)

    def _attach(self, link: Link, source: Terminus, target: Terminus) -> None:
        link.own_session = link.session != self._shared
        write_terminus(pn.pn_link_source(link.impl), pn.PN_SOURCE, source)
        write_terminus(pn.pn_link_target(link.impl), pn.PN_TARGET, target)
        self._links[link.impl] = link
        pn.pn_link_open(link.impl)
        self.wake()

    def _end(self) -> None:
        self._over = True
        for link in [*self._links.values()]:
            self._end_link(link, self._condition)

    def _end_link(self, link: Link, condition: Condition | None) -> None:
        del self._links[link.impl]
        link.ended()
        if link.handler is not None:
            link.handler.on_detached(link, condition)


def _free(engine: Any, connection: Any, collector: Any) -> None:
    pn.pn_transport_unbind(engine)
    pn.pn_connection_release(connection)
    pn.pn_collector_release(collector)
    pn.pn_decref(engine)
    pn.pn_decref(connection)
    pn.pn_collector_free(collector)
