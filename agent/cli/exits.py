"""Exit codes, the one exception that ends a command with a sentence, and the sentences of all others."""

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


def tell(error: BaseException) -> int:
    """Says on standard error how the command ended, and gives the exit status."""
    from agent.cli.output import say

    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    sentence, code = _explain(error)
    say(f"hilgate: {sentence}")
    return code


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, Failure):
        return str(error), error.code
    # What nobody foresaw.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError):
        return ": ".join(filter(None, (error.filename, error.strerror))) or str(error), Exit.FAILED
    if isinstance(error, ModuleNotFoundError):
        return (
            f"this needs the package {error.name}: install hilgate with the extra that brings it",
            Exit.FAILED,
        )
    return f"internal error: {type(error).__name__}: {error} (hilgate --debug ... shows where)", Exit.INTERNAL
