"""Exit codes, and the one exception that ends a command with a sentence."""

import enum


class Exit(enum.IntEnum):
    """What the exit status of `hilgate` says."""

    OK = 0
    REJECTED = 1
    """A command was rejected and nothing was done, or a profile is not valid."""
    USAGE = 2
    """The command line or the settings are wrong."""
    FAILED = 3
    """It was tried and failed, or it is not known whether it had effect."""
    NO_ANSWER = 4
    """No broker, or no agent, answered in time."""
    INTERNAL = 70
    """A fault of hilgate itself (EX_SOFTWARE of sysexits.h)."""
    INTERRUPTED = 130
    """Ctrl-C before there was a result."""


class Failure(Exception):
    """Ends the command: its text is one sentence for people, `code` the exit status."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code
