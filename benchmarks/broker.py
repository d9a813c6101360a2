"""The embedded broker: messages a second through it and its CPU for each, small ones and large ones."""

import asyncio
import time

from benchmarks.processes import HILGATE, free_port, until_open, used
from protocols.amqp.client import Address, Client, Delivery, Options
from protocols.amqp.codec import Message, encode

_CASES = (("queue", 400, 20_000), ("topic", 400, 20_000), ("queue", 256 * 1024, 500))


async def _pass(client: Client, kind: str, size: int, count: int) -> float:
    """Sends and receives `count` messages as fast as credit goes; seconds until the last arrived."""
    address = Address(f"benchmark.{kind}.{size}", "topic" if kind == "topic" else "queue")
    done = asyncio.Event()
    received = 0

    def take(delivery: Delivery) -> None:
        nonlocal received
        delivery.accept()
        received += 1
        if received == count:
            done.set()

    await client.receiver(address, take, credit=500).attached()
    sender = client.sender(address)
    data = encode(Message(body=b"x" * size, durable=True, message_id="an id"))
    started = time.perf_counter()
    for _ in range(count):
        await sender.ready()
        sender.post(data)
    await done.wait()
    return time.perf_counter() - started


async def _measure() -> None:
    port = free_port()
    broker = await asyncio.create_subprocess_exec(
        HILGATE, "broker", "--listen", f"127.0.0.1:{port}", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until_open(port)
        client = Client(Options(f"amqp://127.0.0.1:{port}", "benchmark"), lambda *_: None)
        running = asyncio.create_task(client.run(), name="client")
        print(f"{'embedded broker':<24}{'messages/s':>12}{'MB/s':>8}{'CPU us/message':>16}{'peak MB':>9}")
        for kind, size, count in _CASES:
            before = used(broker.pid)
            seconds = await _pass(client, kind, size, count)
            after = used(broker.pid)
            cpu = (after.cpu_s - before.cpu_s) / count * 1e6
            name = f"{kind}, {size} bytes"
            rate = count / seconds
            print(f"{name:<24}{rate:>12,.0f}{rate * size / 1e6:>8.1f}{cpu:>16.0f}{after.peak_mb:>9.0f}")
        running.cancel()
        await asyncio.wait((running,))
    finally:
        broker.terminate()
        await broker.wait()


def main() -> None:
    """Prints the table."""
    asyncio.run(_measure())
