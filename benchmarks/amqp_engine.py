"""The AMQP engine: CPU per message sent and received, next to proton's own Container and BlockingConnection.

Each client speaks to an embedded broker in a process of its own; what is told is the client's CPU, from
values to an accepted outcome, and from bytes to values and a settled message.
"""

import asyncio
import time
import timeit
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import proton
import proton.handlers
import proton.reactor
import proton.utils
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.processes import broker
from protocols.amqp.client import Address, Client, Delivery, NotReady, Options
from protocols.amqp.cloudevents import Event, from_message, to_message
from protocols.amqp.codec import decode, encode

MESSAGES = 10_000
BLOCKING_MESSAGES = 2_000
CREDIT = 200
EVENT = Event(
    id="5f0c1d2e3a4b-77777",
    source="/benches/rig-07/devices/pump-plc",
    type="io.hilgate.samples.v1",
    time_ns=1_795_314_646_123_456_789,
    sequence=77_777,
    epoch=12,
    mode="hil",
    data=b'{"samples":[{"time":"2026-11-22T02:30:46.123456Z","values":{"speed":1480.5,"running":true}}]}',
)


class Cost(NamedTuple):
    """CPU microseconds a message."""

    send: float
    receive: float


def _event(number: int) -> Event:
    return msgspec.structs.replace(EVENT, id=f"event-{number}")


async def _hilgate(url: str, queue: str) -> Cost:
    client = Client(Options(url, "benchmark"), lambda _state, _reason: None)
    running = asyncio.create_task(client.run(), name="client")
    sender = client.sender(Address(queue, "queue"))
    await sender.ready()
    started = time.process_time()
    outcomes = []
    for number in range(MESSAGES):
        message = encode(to_message(_event(number)))
        try:
            outcomes.append(sender.post(message))
        except NotReady:
            await sender.ready()
            outcomes.append(sender.post(message))
    assert {outcome.kind for outcome in await asyncio.gather(*outcomes)} == {"accepted"}
    sent = time.process_time() - started

    done = asyncio.Event()
    received = 0

    def take(delivery: Delivery) -> None:
        nonlocal received
        assert from_message(delivery.message()).epoch == EVENT.epoch
        delivery.accept()
        received += 1
        if received == MESSAGES:
            done.set()

    started = time.process_time()
    client.receiver(Address(queue, "queue"), take, CREDIT)
    await done.wait()
    got = time.process_time() - started
    running.cancel()
    await asyncio.wait([running])
    return Cost(sent / MESSAGES * 1e6, got / MESSAGES * 1e6)


def _proton_message(number: int) -> proton.Message:
    event = to_message(_event(number))
    properties = {key: value for key, value in event.properties.items() if not isinstance(value, int)}
    properties["cloudEvents:time"] = proton.timestamp(EVENT.time_ns // 1_000_000)
    properties["cloudEvents:epoch"] = proton.int32(EVENT.epoch)
    return proton.Message(
        body=event.body,
        id=event.message_id,
        content_type=event.content_type,
        inferred=True,
        properties=properties,
    )


class _Sends(proton.handlers.MessagingHandler):
    def __init__(self, url: str, queue: str) -> None:
        super().__init__()
        self._url, self._queue = url, queue
        self._sent = self._accepted = 0

    def on_start(self, event: Any) -> None:
        event.container.create_sender(f"{self._url}/{self._queue}")

    def on_sendable(self, event: Any) -> None:
        while event.sender.credit and self._sent < MESSAGES:
            event.sender.send(_proton_message(self._sent))
            self._sent += 1

    def on_accepted(self, event: Any) -> None:
        self._accepted += 1
        if self._accepted == MESSAGES:
            event.connection.close()


class _Receives(proton.handlers.MessagingHandler):
    def __init__(self, url: str, queue: str) -> None:
        super().__init__(prefetch=CREDIT)
        self._url, self._queue = url, queue
        self._received = 0

    def on_start(self, event: Any) -> None:
        event.container.create_receiver(f"{self._url}/{self._queue}")

    def on_message(self, event: Any) -> None:
        assert event.message.properties["cloudEvents:epoch"] == EVENT.epoch
        self._received += 1
        if self._received == MESSAGES:
            event.connection.close()


async def _container(url: str, queue: str) -> Cost:
    costs = []
    for handler in (_Sends(url, queue), _Receives(url, queue)):
        started = time.process_time()
        proton.reactor.Container(handler).run()
        costs.append((time.process_time() - started) / MESSAGES * 1e6)
    return Cost(*costs)


async def _blocking(url: str, queue: str) -> Cost:
    connection = proton.utils.BlockingConnection(url)
    sender = connection.create_sender(queue)
    started = time.process_time()
    for number in range(BLOCKING_MESSAGES):
        sender.send(_proton_message(number))
    sent = time.process_time() - started
    receiver = connection.create_receiver(queue, credit=CREDIT)
    started = time.process_time()
    for _ in range(BLOCKING_MESSAGES):
        properties = receiver.receive().properties
        assert properties is not None
        assert properties["cloudEvents:epoch"] == EVENT.epoch
        receiver.accept()
    got = time.process_time() - started
    connection.close()
    return Cost(sent / BLOCKING_MESSAGES * 1e6, got / BLOCKING_MESSAGES * 1e6)


def _best(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=1000, repeat=5)) * 1000


def _codec() -> dict[str, Cost]:
    ours = to_message(EVENT)
    data = encode(ours)
    theirs = _proton_message(0)
    return {
        "hilgate": Cost(_best(lambda: encode(ours)), _best(lambda: decode(data))),
        "proton.Message": Cost(_best(theirs.encode), _best(lambda: theirs.decode(data))),
    }


async def _with_broker(measure: Callable[[str, str], Awaitable[Cost]]) -> Cost:
    async with broker() as url:
        return await measure(url, "benchmark")


def _table(title: str, columns: tuple[str, str], rows: dict[str, Cost]) -> Table:
    table = Table("", *columns, title=title)
    best = next(iter(rows.values()))
    for name, cost in rows.items():
        table.add_row(
            name, *(f"{value:.1f} ({value / least:.1f}x)" for value, least in zip(cost, best, strict=True))
        )
    return table


def main() -> None:
    """Prints the tables."""
    rows = {"hilgate": asyncio.run(_with_broker(_hilgate))}
    rows["hilgate, uvloop"] = uvloop.run(_with_broker(_hilgate))
    rows["proton Container"] = asyncio.run(_with_broker(_container))
    rows["proton BlockingConnection"] = asyncio.run(_with_broker(_blocking))
    console = Console()
    console.print(_table("AMQP client, CPU us a message", ("send", "receive"), rows))
    console.print(_table("codec, us an event", ("encode", "decode"), _codec()))


if __name__ == "__main__":
    main()
