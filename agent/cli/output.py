"""Where results go: JSON lines for scripts, rich tables for people. Errors go to standard error."""

import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 120
"""Columns where standard output is no terminal and nobody says how wide it is."""


def json_line(item: Any) -> None:
    """Prints one object as one line of JSON, at once, so that a pipe sees it when it happens."""
    sys.stdout.write(msgspec.json.encode(item, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def discard() -> None:
    """Sends standard output nowhere: who read it has gone, and a last flush would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def console() -> "Console":
    """Standard output for people: colours and control codes only where it is a terminal."""
    from rich.console import Console

    made = Console(highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = FILE_WIDTH
    return made


def say(sentence: str) -> None:
    """Prints one line for people on standard error, beside whatever standard output carries."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201  # this is the command's way to speak
