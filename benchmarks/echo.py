"""A bare responder, a process of its own: what comes to the queue `echo` goes back to its `reply_to`."""

import asyncio
import sys

from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.codec import Message, encode


async def _serve(url: str) -> None:
    client = Client(Options(url=url, container_id="echo"), lambda _state, _reason: None)
    waiting: asyncio.Queue[Delivery] = asyncio.Queue()
    client.receiver(Address("echo", "queue"), waiting.put_nowait, credit=100)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.run())
        while True:
            delivery = await waiting.get()
            asked = delivery.message()
            answer = Message(body=asked.body, correlation_id=asked.message_id, to=asked.reply_to)
            await client.reply(asked.reply_to or "", encode(answer))
            delivery.accept()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
