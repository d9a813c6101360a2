"""The client side of a broker, as `send`, `watch` and `demo` use it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from agent.cli.exits import Exit, Failure
from agent.cli.output import say
from agent.cli.tasks import beside
from agent.connection import client_options
from agent.settings import Settings
from protocols.amqp.client import Address, Client, Delivery, LinkRefused, LinkState, Receiver
from protocols.amqp.cloudevents import Event, from_message
from protocols.amqp.types import CodecError
from protocols.units import format_duration

EVENT_CREDIT = 500


@contextlib.asynccontextmanager
async def connected(settings: Settings, timeout: float) -> AsyncIterator[Client]:
    """A client that is connected; once it was, it reconnects by itself until the body ends, and says so.

    Raises:
        Failure: with the no-answer code: the first attempt failed, or took more than `timeout` seconds.
    """
    tried: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_state(state: LinkState, reason: str) -> None:
        if tried.done():
            say(f"hilgate: {reason}")
        elif state is not LinkState.CONNECTING or reason:
            tried.set_result("" if state is not LinkState.CONNECTING else reason)

    try:
        client = Client(client_options(settings, role="cli"), on_state)
    except (OSError, ValueError) as error:
        raise Failure(f"no way to the broker: {error}", Exit.USAGE) from error
    async with beside(client.run(), "amqp client"):
        try:
            async with asyncio.timeout(timeout):
                why_not = await tried
        except TimeoutError:
            why_not = f"{settings.broker} did not answer within {format_duration(timeout)}"
        if why_not:
            raise Failure(f"No connection to the broker: {why_not}", Exit.NO_ANSWER)
        yield client


def receive_events(
    client: Client, bench: str | None, take: Callable[[Event], None], skip: Callable[[], None]
) -> Mapping[str, Receiver]:
    """Subscribes to the availability of all benches, or to all events of one and its availability.

    Args:
        client: Connected or not; subscriptions are made again after each reconnect.
        bench: A bench's id, or None.
        take: Called with each event.
        skip: Called for each message that is no event: it is counted or said, not swallowed.

    Returns:
        The subscriptions by their topics. They are under way: `say_when_subscribed` tells when they stand.
    """

    def on_message(delivery: Delivery) -> None:
        delivery.accept()
        try:
            event = from_message(delivery.message())
        except CodecError:
            skip()
            return
        if bench is None or event.source.split("/")[2:3] == [bench]:
            take(event)

    topics = ["hil.availability"] if bench is None else ["hil.availability", f"hil.{bench}.events.*"]
    return {topic: client.receiver(Address(topic, "topic"), on_message, EVENT_CREDIT) for topic in topics}


async def say_when_subscribed(subscriptions: Mapping[str, Receiver], sentence: str) -> None:
    """Says a sentence as soon as nothing that is sent is missed any more, or what the broker refuses."""
    for topic, receiver in subscriptions.items():
        try:
            await receiver.attached()
        except LinkRefused as error:
            say(f"hilgate: nothing comes from {topic} for now: {error}")
            return
    say(sentence)
