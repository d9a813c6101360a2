"""The command `hilgate`."""

import sys


def main() -> int:
    """Runs the command line. Every error is a sentence on standard error and an exit code.

    `--debug` in front of the command lets tracebacks through.
    """
    from agent.cli.app import app
    from agent.cli.exits import Exit, Failure

    debug = "--debug" in sys.argv[1:2]
    try:
        app(prog_name="hilgate")
    except Failure as failure:
        if debug:
            raise
        return _end(str(failure), failure.code)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        from agent.cli.output import discard

        discard()
        return Exit.OK
    except Exception as error:
        if debug:
            raise
        return _end(*_explain(error))
    return Exit.OK


def _explain(error: BaseException) -> tuple[str, int]:
    """What nobody foresaw, as a sentence and an exit code."""
    from agent.cli.exits import Exit

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(filter(None, (error.filename, error.strerror))), Exit.FAILED
    if isinstance(error, ModuleNotFoundError):
        return (
            f"this needs the package {error.name}: install hilgate with the extra that brings it",
            Exit.FAILED,
        )
    return f"internal error: {type(error).__name__}: {error} (hilgate --debug ... shows where)", Exit.INTERNAL


def _end(sentence: str, code: int) -> int:
    from agent.cli.output import say

    say(f"hilgate: {sentence}")
    return int(code)
