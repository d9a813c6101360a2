"""The AMQP client of agent and command line: one connection that comes back by itself."""

import asyncio
import contextlib
import enum
import itertools
import random
import uuid
from collections import OrderedDict
from collections.abc import Callable

import structlog

from protocols.amqp.endpoints import (
    ConnectionLost,
    Health,
    LinkRefused,
    NotReady,
    Receiver,
    Sender,
    SenderClosed,
    TooLarge,
)
from protocols.amqp.engine import Connection, Open
from protocols.amqp.flavours import Address, Flavour, Route, choose
from protocols.amqp.links import Delivery, Link
from protocols.amqp.management import Management
from protocols.amqp.options import Options
from protocols.amqp.performatives import Condition, Outcome, OutcomeKind
from protocols.amqp.reasons import explain_condition, explain_error
from protocols.tls import aside

__all__ = [
    "Address",
    "Client",
    "ConnectionLost",
    "Delivery",
    "LinkRefused",
    "LinkState",
    "NotReady",
    "Options",
    "Outcome",
    "OutcomeKind",
    "Receiver",
    "Sender",
    "TooLarge",
]

_RELAY = "ANONYMOUS-RELAY"
_REPLY_SENDERS = 32
_HEALTH_PERIOD_S = 0.5
_STABLE_S = 2.0
"""A connection that lasted for so long was a good one: the next attempt need not wait."""


class LinkState(enum.StrEnum):
    """What the connection to the broker is like."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BLOCKED = "blocked"
    """Connected, and the broker has given no credit for a while: it is full, or short of memory."""


class Client:
    """Connects, attaches all senders and receivers, and does so again whenever the connection is lost.

    `on_state` gets each change with a sentence for people. Nothing happens before `run`.
    """

    def __init__(self, options: Options, on_state: Callable[[LinkState, str], None]) -> None:
        self._options = options
        self._on_state = on_state
        self._state: tuple[LinkState, str] | None = None
        self._connection: Connection | None = None
        self._flavour: Flavour | None = None
        self._endpoints: dict[Sender | Receiver, None] = {}
        self._declaring: asyncio.Queue[tuple[Sender | Receiver, Route]] = asyncio.Queue()
        self._relay: Sender | None = None
        self._reply_senders: OrderedDict[str, Sender] = OrderedDict()
        self._queue_numbers = itertools.count(1)
        self._opened: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[Condition | None] | None = None
        self._connected_at: float | None = None
        self.connects = 0
        """How often the broker was connected to."""
        self._refusals: set[str] = set()
        self._warned = False
        self._renew = asyncio.Event()
        self._log = structlog.get_logger("amqp").bind(broker=options.url)

    @property
    def connected(self) -> bool:
        """Whether the broker can be spoken to now."""
        return self._connection is not None and self._flavour is not None

    @property
    def blocked(self) -> bool:
        """Whether the broker is connected and takes nothing for now."""
        return self.connected and self._state is not None and self._state[0] is LinkState.BLOCKED

    @property
    def flavour(self) -> str:
        """The broker's flavour; empty before the first connection."""
        return self._flavour.name if self._flavour is not None else ""

    @property
    def max_message_size(self) -> int:
        """The largest message that receivers take, in bytes."""
        return self._options.max_message_size

    async def run(self) -> None:
        """Keeps connected until cancelled; then what was sent leaves, and the connection closes in order."""
        loop = asyncio.get_running_loop()
        pause = self._options.backoff_min
        self._say(LinkState.CONNECTING, "")
        while True:
            self._connected_at = None
            reason = await self._live()
            self._say(LinkState.CONNECTING, reason)
            if not self._renew.is_set():
                self._complain(reason)
            if self._connected_at is not None and loop.time() - self._connected_at > _STABLE_S:
                pause = self._options.backoff_min
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):
                    await self._renew.wait()
                    pause = 0.0
            pause = min(max(pause * 2, self._options.backoff_min), self._options.backoff_max)

    def renew(self, options: Options) -> None:
        """Closes the connection in order and makes it anew at once, as `options` now say.

        What was sent and is not settled by then comes again, as after any loss.
        """
        self._options = options
        self._renew.set()

    def sender(self, address: Address) -> Sender:
        """A sender to an address, of a topic, queue or `direct` kind."""
        return self._new_sender(address)

    def receiver(self, address: Address, on_message: Callable[[Delivery], None], credit: int) -> Receiver:
        """A receiver with `credit` messages under way at most, counting those that are not settled."""
        queue = f"hilgate.{self._options.container_id}.{next(self._queue_numbers)}"
        receiver = Receiver(self, address, on_message, credit, queue)
        self._endpoints[receiver] = None
        self.attach(receiver)
        return receiver

    async def open_replies(self, on_message: Callable[[Delivery], None], credit: int = 100) -> str:
        """Receives replies, and gives the address to put into `reply_to` as soon as there is one.

        A dynamic node has another name after a reconnect: ask again then.

        Raises:
            LinkRefused: the broker makes no such node for us.
        """
        queue = f"hilgate.replies.{uuid.uuid4()}"
        receiver = Receiver(self, Address("", "dynamic"), on_message, credit, queue)
        self._endpoints[receiver] = None
        self.attach(receiver)
        await receiver.attached()
        return receiver.node

    async def reply(self, reply_to: str, message: bytes) -> Outcome:
        """Sends to an address that a peer gave; the message's `to` says the same.

        An address that does not exist is `REJECTED` or `UNROUTED`. One that gives no credit within the
        outcome timeout is `RELEASED`: the caller may try again later.

        Raises:
            ConnectionLost: there is no connection, or it was lost before the outcome.
            TooLarge: the broker would not take it.
        """
        if not self.connected:
            raise ConnectionLost("there is no connection to the broker")
        sender = self._relay or self._reply_sender(reply_to)
        try:
            async with asyncio.timeout(self._options.outcome_timeout):
                await sender.ready()
            return await sender.post(message)
        except SenderClosed as error:
            # With its connection, or to make room for another: the message is as good as before.
            raise ConnectionLost(str(error)) from error
        except LinkRefused as error:
            if sender is self._relay:
                self._relay = None  # it bears no addresses that do not exist: a link for each, from now on
                sender.close()
                raise ConnectionLost(str(error)) from error
            if self._reply_senders.get(reply_to) is sender:
                del self._reply_senders[reply_to]
                sender.close(str(error))
            return Outcome(OutcomeKind.REJECTED, "amqp:not-found", str(error))
        except (TimeoutError, NotReady):
            return Outcome(OutcomeKind.RELEASED)

    # One connection's life

    async def _live(self) -> str:
        """Connects and stays until the connection is lost; says why it was."""
        loop = asyncio.get_running_loop()
        self._opened, self._lost = loop.create_future(), loop.create_future()
        self._renew.clear()  # what it asked for happens now
        try:
            connection = await self._connect()
        except _ConnectFailed as error:
            return str(error)
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                await asyncio.wait((self._opened, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                return explain_condition(self._options, self._lost.result())
            return await self._serve(connection)
        except TimeoutError:
            return f"broker {self._options.url} did not open the connection"
        finally:
            self._connection = None
            for endpoint in [*self._endpoints]:
                if isinstance(endpoint, Receiver):
                    endpoint.disconnected()
            connection.close()
            await connection.wait_closed(self._options.close_timeout)

    async def _connect(self) -> Connection:
        options = self._options
        connection = Connection(self, client=options.client_sasl())
        connection.open(
            Open(options.container_id, options.host, idle_timeout=options.idle_timeout, desired=(_RELAY,))
        )
        try:
            context = await aside(options.tls_context)
            async with asyncio.timeout(options.connect_timeout):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    options.host,
                    options.port,
                    ssl=context,
                    # Artemis does not answer the end of TLS after it refused credentials.
                    ssl_shutdown_timeout=None if context is None else options.close_timeout,
                )
        except (OSError, TimeoutError, UnicodeError) as error:  # the last: a host that is no name
            raise _ConnectFailed(explain_error(options, error)) from error
        return connection

    async def _serve(self, connection: Connection) -> str:
        assert self._lost is not None
        options = self._options
        self._declaring = asyncio.Queue()
        self._connection = connection
        self.connects += 1
        self._connected_at = asyncio.get_running_loop().time()
        self._flavour = choose(
            options.flavour, connection.peer_properties, options.queue_prefix, options.topic_prefix
        )
        self._forget_replies()
        if _RELAY in connection.peer_offers:
            self._relay = self._new_sender(None)
        async with asyncio.TaskGroup() as group:
            declaring = group.create_task(self._declare(connection), name="amqp declarations")
            for endpoint in [*self._endpoints]:
                self.attach(endpoint)
            self._warned = False
            self._say(LinkState.CONNECTED, f"connected to {options.url} ({self._flavour.name})")
            reason = await self._watch(self._lost)
            declaring.cancel()
        return reason

    async def _watch(self, lost: asyncio.Future[Condition | None]) -> str:
        """Waits for the end of the connection, and judges the links' health meanwhile."""
        loop, options = asyncio.get_running_loop(), self._options
        while not (await asyncio.wait((lost,), timeout=_HEALTH_PERIOD_S))[0]:
            patience = (options.blocked_after, options.outcome_timeout)
            health = {one: one.health(loop.time(), *patience) for one in self._endpoints}
            if self._renew.is_set():
                return f"the connection to {options.url} is made anew with other certificates or credentials"
            if Health.HUNG in health.values():
                what = f"settled nothing, or answered no attach, for {options.outcome_timeout:g} s"
                return f"broker {options.url} {what}: it hangs"
            blocked = [one.address for one, state in health.items() if state is Health.BLOCKED]
            if blocked:
                name = blocked[0].name if blocked[0] is not None else "replies"
                self._say(LinkState.BLOCKED, f"broker {options.url} takes nothing for {name} for now")
        condition = lost.result()
        return f"broker {options.url} ended the connection{f': {condition}' if condition else ''}"

    async def _declare(self, connection: Connection) -> None:
        """Attaches what needs queues or bindings first, one after the other."""
        management: Management | None = None
        while True:
            endpoint, route = await self._declaring.get()
            if connection is not self._connection:
                return  # lost meanwhile, and its memory with it: the next one attaches all endpoints
            if management is None or management.over:
                management = Management(connection, self._options.connect_timeout)
            problem = await management.declare(route.declarations)
            if problem and management.silent:  # what began was lost (endpoints._answered): anew, then
                management = Management(connection, self._options.connect_timeout)
                problem = await management.declare(route.declarations)
            if connection is not self._connection:
                return
            if problem:
                self._log.warning("a declaration failed", problem=problem)
            if endpoint in self._endpoints and self._flavour is not None:
                endpoint.attach(connection, self._flavour, route)

    # What endpoints call

    def attach(self, endpoint: Sender | Receiver) -> None:
        """Attaches an endpoint, if there is a connection; every new one attaches all."""
        if self._connection is None or self._flavour is None or endpoint not in self._endpoints:
            return
        route = endpoint.route(self._flavour)
        if route.declarations:
            self._declaring.put_nowait((endpoint, route))
        else:
            endpoint.attach(self._connection, self._flavour, route)

    def forget(self, endpoint: Sender | Receiver) -> None:
        """Takes the word that an endpoint is closed."""
        self._endpoints.pop(endpoint, None)

    def unblocked(self) -> None:
        """Takes the word that a sender has credit."""
        if self._state is not None and self._state[0] is LinkState.BLOCKED:
            self._say(LinkState.CONNECTED, f"broker {self._options.url} takes messages again")

    def say_refused(self, address: Address, reason: str) -> None:
        """Warns of a refused receiver, once an address."""
        log = self._log.debug if address.name in self._refusals else self._log.warning
        self._refusals.add(address.name)
        log("the broker refuses a receiver", address=address.name, reason=reason)

    # What the engine calls

    def on_open(self, connection: Connection) -> None:
        """The broker's open frame is here."""
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def on_link(self, link: Link) -> None:
        """A broker attaches nothing to its clients."""
        link.refuse(Condition("amqp:not-allowed", "this client accepts no links"))

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        """The connection is over."""
        if connection is self._connection:
            self._connection = None  # its memory goes now: nobody may attach to it any more
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(condition)

    # Replies

    def _new_sender(self, address: Address | None) -> Sender:
        sender = Sender(self, address)
        self._endpoints[sender] = None
        self.attach(sender)
        return sender

    def _reply_sender(self, reply_to: str) -> Sender:
        sender = self._reply_senders.get(reply_to)
        if sender is None:
            sender = self._reply_senders[reply_to] = self._new_sender(Address(reply_to, "direct"))
            if len(self._reply_senders) > _REPLY_SENDERS:
                self._drop_reply_sender(next(iter(self._reply_senders)))
        self._reply_senders.move_to_end(reply_to)
        return sender

    def _drop_reply_sender(self, reply_to: str) -> None:
        sender = self._reply_senders.pop(reply_to, None)
        if sender is not None:
            sender.close()

    def _forget_replies(self) -> None:
        """Reply addresses are of their connection's time, and so is the relay."""
        for reply_to in [*self._reply_senders]:
            self._drop_reply_sender(reply_to)
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    # What people see

    def _say(self, state: LinkState, reason: str) -> None:
        if (state, reason) != self._state:
            self._state = (state, reason)
            self._on_state(state, reason)

    def _complain(self, reason: str) -> None:
        log = self._log.debug if self._warned else self._log.warning
        self._warned = True
        log("no connection to the broker", reason=reason)


class _ConnectFailed(Exception):
    """No connection was made, and why, for people."""
