"""Events as JSON lines, each in the JSON format of CloudEvents."""

import asyncio
from collections.abc import Callable

import msgspec

from agent.cli.output import discard, json_line, say
from protocols.amqp.cloudevents import Event, to_message


def event_line(event: Event) -> msgspec.Raw:
    """An event in the CloudEvents JSON format; a body that is no JSON is its `data_base64`."""
    kind = event.datacontenttype
    try:
        body = msgspec.json.encode(msgspec.json.decode(event.data))  # whatever came, it is one line now
        event = msgspec.structs.replace(event, data=body, datacontenttype="application/json")
    except (msgspec.DecodeError, RecursionError):
        kind = "application/octet-stream" if kind == "application/json" else kind
        event = msgspec.structs.replace(event, datacontenttype=kind)
    return msgspec.Raw(to_message(event, structured=True).body)


def event_printer(stop: asyncio.Event) -> Callable[[Event], None]:
    """What prints each event as one line of JSON, and sets `stop` when nobody reads them any more."""

    def take(event: Event) -> None:
        try:
            json_line(event_line(event))
        except BrokenPipeError:
            discard()
            stop.set()

    return take


def no_event() -> None:
    """Says that a message came that is no event."""
    say("hilgate: a message that is no event was skipped")
