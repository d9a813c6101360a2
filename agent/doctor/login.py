"""Logs in at a broker as an agent does, and attaches to the bench's addresses: nothing comes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from agent.events import AVAILABILITY_ADDRESS
from agent.settings import Settings
from protocols.amqp.engine import Connection, Open
from protocols.amqp.flavours import Address, Flavour, choose
from protocols.amqp.links import Delivery, Link, SenderLink
from protocols.amqp.options import Options
from protocols.amqp.performatives import Condition, Terminus
from protocols.amqp.reasons import explain_condition, explain_error


class Addresses(msgspec.Struct, frozen=True):
    """What the broker has against each address; empty where nothing."""

    commands: str
    availability: str


class Login:
    """One connection, from the first byte to its end. Implements `ConnectionHandler`."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self.refusal = ""
        """Why there is no connection, in words."""
        self.seconds = 0.0
        """From the first byte until the broker had opened."""
        self.max_message_size = 0
        """The largest message that the broker takes; 0 where it says none. Known after `addresses`."""
        self._settings = settings
        self._options = options
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._lost: asyncio.Future[Condition | None] = loop.create_future()
        self.connection = Connection(self, client=options.client_sasl())

    @property
    def product(self) -> str:
        """What the broker calls itself."""
        return str(self.connection.peer_properties.get("product", ""))

    @property
    def version(self) -> str:
        """Its version, as it says."""
        return str(self.connection.peer_properties.get("version", ""))

    @property
    def flavour(self) -> str:
        """Of the broker, set or found out."""
        return self._flavour().name

    async def begin(self) -> None:
        """Connects; `refusal` says afterwards whether that failed."""
        options, began = self._options, time.monotonic()
        self.connection.open(
            Open(options.container_id, hostname=options.host, idle_timeout=options.idle_timeout)
        )
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.connection,
                options.host,
                options.port,
                ssl=options.tls_context(),
                ssl_shutdown_timeout=options.close_timeout if options.secure else None,
            )
        except (OSError, UnicodeError) as error:
            self.refusal = explain_error(options, error)
            return
        await asyncio.wait((self._opened, self._lost), return_when=asyncio.FIRST_COMPLETED)
        self.seconds = time.monotonic() - began
        if self._lost.done():
            self.refusal = explain_condition(options, self._lost.result())

    async def end(self) -> None:
        """Closes in order."""
        self.connection.close()
        if not self.refusal:
            await self.connection.wait_closed(self._options.close_timeout)

    async def addresses(self, bench: str) -> Addresses:
        """Attaches to the commands queue to receive, and to availability to send; no message moves.

        Nothing is declared: RabbitMQ makes a queue of whoever attaches the agent's way.
        """
        flavour = self._flavour()
        receiving, sending = _End(), _End()
        self.connection.attach_receiver(receiving, _source(flavour, bench))
        sender = self.connection.attach_sender(sending, flavour.sender(AVAILABILITY_ADDRESS).terminus)
        refusals = [await end.refusal() for end in (receiving, sending)]
        self.max_message_size = sender.peer_max_message_size
        return Addresses(*refusals)

    def _flavour(self) -> Flavour:
        settings, told = self._settings, self.connection.peer_properties
        return choose(settings.flavour, told, settings.queue_prefix, settings.topic_prefix)

    def on_open(self, connection: Connection) -> None:
        """The broker's open frame is here."""
        if not self._opened.done():
            self._opened.set_result(None)

    def on_link(self, link: Link) -> None:
        """A broker attaches nothing to its clients."""
        link.refuse(Condition("amqp:not-allowed", "this client accepts no links"))

    def on_lost(self, connection: Connection, condition: Condition | None) -> None:
        """The connection is over."""
        if not self._lost.done():
            self._lost.set_result(condition)


@contextlib.asynccontextmanager
async def log_in(settings: Settings, options: Options) -> AsyncIterator[Login]:
    """A connection to the broker, or why there is none; closed at the end."""
    login = Login(settings, options)
    try:
        await login.begin()
        yield login
    finally:
        await login.end()


def _source(flavour: Flavour, bench: str) -> Terminus:
    queue = f"hil.{bench}.commands"
    if flavour.name == "rabbitmq3":  # its /queue/ would make one
        return Terminus(f"/amq/queue/{queue}")
    return flavour.receiver(Address(queue, "queue"), "").terminus


class _End:
    """One end of a link: whether the broker has it. Implements `LinkHandler`."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def refusal(self) -> str:
        """What the broker has against it; empty once it is attached."""
        return await self._answer

    def on_attached(self, link: Link) -> None:
        """The broker has the link."""
        if not self._answer.done():
            self._answer.set_result("")

    def on_credit(self, link: SenderLink) -> None:
        """Nothing is sent."""

    def on_message(self, delivery: Delivery) -> None:
        """Never: there is no credit. Were it to come, it would go back untouched."""
        delivery.release()

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        """The link has gone; before it was attached that is a refusal."""
        if not self._answer.done():
            self._answer.set_result(str(condition or "the broker ended the link without a reason"))
