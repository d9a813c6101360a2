"""Commands one at a time over AMQP, each waited for."""

import asyncio

from protocols.amqp.client import Client, Delivery, Sender
from protocols.amqp.codec import Message, encode


class Asker:
    """Sends one message at a time and waits for its answer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._reply_to = ""
        self._count = 0

    async def open(self) -> None:
        """Opens the reply address."""
        self._reply_to = await self._client.open_replies(self._on_answer)

    async def ask(self, sender: Sender, body: bytes) -> bytes:
        """One round trip."""
        self._count += 1
        self._answer = asyncio.get_running_loop().create_future()
        message = Message(body=body, message_id=f"round-{self._count}", reply_to=self._reply_to)
        await sender.ready()
        sender.post(encode(message))
        async with asyncio.timeout(10):
            return await self._answer

    def _on_answer(self, delivery: Delivery) -> None:
        delivery.accept()
        if not self._answer.done():
            self._answer.set_result(delivery.message().body)
