"""The command `hilgate`."""

import sys


def main() -> int:
    """Runs the command line. Every error is a sentence on standard error and an exit code.

    `--debug` in front of the command lets tracebacks through.
    """
    from agent.cli.app import app
    from agent.cli.exits import Exit, tell

    try:
        app(prog_name="hilgate")
    except KeyboardInterrupt as interrupt:
        return tell(interrupt)
    except BrokenPipeError:
        from agent.cli.output import discard

        discard()
        return Exit.OK
    except Exception as error:
        if "--debug" in sys.argv[1:2]:
            raise
        return tell(error)
    return Exit.OK
