"""Events as JSON lines."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agent.cli.output import discard, json_line, say

if TYPE_CHECKING:
    from protocols.amqp.cloudevents import Event


def event_line(event: "Event") -> dict[str, Any]:
    """An event as one object: its attributes, and its body as `data`, or `malformed` if it is no JSON."""
    line: dict[str, Any] = {
        "type": event.type,
        "source": event.source,
        "id": event.id,
        "sequence": event.sequence,
        "epoch": event.epoch,
        "mode": event.mode,
    }
    try:
        return line | {"data": msgspec.json.decode(event.data)}
    except msgspec.DecodeError:
        return line | {"malformed": event.data[:200].decode(errors="replace")}


def event_printer(stop: asyncio.Event) -> Callable[["Event"], None]:
    """What prints each event as one line of JSON, and sets `stop` when nobody reads them any more."""

    def take(event: "Event") -> None:
        try:
            json_line(event_line(event))
        except BrokenPipeError:
            discard()
            stop.set()

    return take


def no_event() -> None:
    """Says that a message came that is no event."""
    say("hilgate: a message that is no event was skipped")
