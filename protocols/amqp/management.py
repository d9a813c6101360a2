"""RabbitMQ 4's management node: HTTP requests over a pair of AMQP links, to declare queues and bindings.

Source: RabbitMQ's AMQP 1.0 client documentation, "HTTP over AMQP 1.0" and "link pair".
"""

import asyncio
from collections.abc import Iterable

from protocols.amqp.codec import CodecError, Message, ULong, decode, encode
from protocols.amqp.engine import Connection
from protocols.amqp.flavours import Declaration
from protocols.amqp.links import Delivery, Link, SenderLink
from protocols.amqp.performatives import Condition

_NODE = "/management"
_CREDIT = 16
_FINE = ("200", "201", "204")
_CONFLICT = "409"
"""It exists, made by someone else with other arguments: theirs to decide."""


class Management:
    """The management node of one connection. One request at a time."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._timeout = timeout
        self._number = ULong(0)
        self._ready = asyncio.Event()
        self._answer: asyncio.Future[Message] | None = None
        self._refusal = ""
        self.silent = False
        """It did not answer in time."""
        self._sender, self._receiver = connection.attach_pair(self, _NODE)

    async def declare(self, declarations: Iterable[Declaration]) -> str:
        """Makes the requests one after the other. Says in words what went wrong, or nothing."""
        try:
            async with asyncio.timeout(self._timeout):
                for declaration in declarations:
                    answer = await self._request(declaration)
                    if answer.subject not in (*_FINE, _CONFLICT):
                        words = answer.body.decode(errors="replace") or f"status {answer.subject}"
                        return f"the broker does not declare {declaration.path}: {words}"
        except TimeoutError:
            self.silent = True
            return f"the broker's {_NODE} did not answer within {self._timeout:g} s"
        except ConnectionError as error:
            return str(error)
        return ""

    async def _request(self, declaration: Declaration) -> Message:
        await self._ready.wait()
        if self._refusal:
            raise ConnectionError(self._refusal)
        self._number = ULong(self._number + 1)
        self._answer = asyncio.get_running_loop().create_future()
        request = Message(
            message_id=self._number, to=declaration.path, subject=declaration.method, reply_to="$me"
        )
        self._sender.send(encode(request, value=dict(declaration.body)), None)
        return await self._answer

    @property
    def over(self) -> bool:
        """The node has gone, with all its requests: only a new one answers."""
        return bool(self._refusal)

    def on_attached(self, link: Link) -> None:
        """Both ends of the pair are needed."""
        if link is self._receiver:
            self._receiver.flow(_CREDIT)
            self._look_ready()

    def on_credit(self, link: SenderLink) -> None:
        """The node takes requests."""
        self._look_ready()

    def _look_ready(self) -> None:
        """RabbitMQ ends the session over a request that it has no credit to answer."""
        if self._receiver.credit > 0 and self._sender.credit > 0:
            self._ready.set()

    def on_message(self, delivery: Delivery) -> None:
        """Takes a response."""
        delivery.accept()
        self._receiver.flow(1)
        if self._answer is None or self._answer.done():
            return
        try:
            answer = decode(delivery.data)
        except CodecError as error:
            self._answer.set_exception(ConnectionError(f"the broker's {_NODE} answered nonsense: {error}"))
            return
        if answer.correlation_id == self._number:  # else a late answer to an earlier request
            self._answer.set_result(answer)

    def on_detached(self, link: Link, condition: Condition | None) -> None:
        """The node has gone: whoever waits is told."""
        self._refusal = f"the broker's {_NODE} is not available: {condition or 'detached'}"
        self._ready.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(self._refusal))
