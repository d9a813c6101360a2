"""Where results go: JSON lines for scripts, rich tables for people. Errors go to standard error."""

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from agent.cli.board import event_line

if TYPE_CHECKING:
    from rich.console import Console

    from protocols.amqp.cloudevents import Event


def json_line(item: Any) -> None:
    """Prints one object as one line of JSON, at once, so that a pipe sees it when it happens."""
    sys.stdout.write(msgspec.json.encode(item, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def event(received: "Event") -> None:
    """Prints an event as one line of JSON."""
    json_line(event_line(received))


def no_event() -> None:
    """Says that something came that is no event."""
    say("hilgate: a message that is no event was skipped")


def console() -> "Console":
    """Standard output for people: colours and control codes only where it is a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def say(sentence: str) -> None:
    """Prints one line for people on standard error, beside whatever standard output carries."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201  # this is the command's way to speak
