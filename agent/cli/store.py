"""`hilgate store`: what an agent keeps on disk, and its dead letters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agent.store.inspect import Inspector

Ids = Annotated[
    list[int] | None, typer.Argument(metavar="ID", help="Ids as `hilgate store list` shows them.")
]
All = Annotated[bool, typer.Option("--all", help="All dead letters instead of some.")]


def status(
    store: options.StoreDirectory = None, settings: options.SettingsFile = None, as_json: options.Json = False
) -> None:
    """Show what the store keeps: what waits for the broker, dead letters, journal, audit, leases, files."""
    with _opened(store, settings) as opened:
        overview = opened.overview()
    if as_json:
        from agent.cli import output

        output.json_line(overview)
        return
    from agent.cli import output, store_tables

    output.console().print(store_tables.overview(overview))


def list_(
    store: options.StoreDirectory = None, settings: options.SettingsFile = None, as_json: options.Json = False
) -> None:
    """List the dead letters, the newest last.

    These are messages that the broker refused for good, for instance because they are too large for it or
    the agent may not write there. They wait here for somebody to look.
    """
    from agent.cli import letters, output

    with _opened(store, settings) as opened:
        if as_json:
            for letter in opened.dead_letters():
                output.json_line(letters.summary(letter))
            return
        from agent.cli import store_tables

        output.console().print(store_tables.dead_letters(opened.dead_letters()))


def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="An id as `hilgate store list` shows it.")],
    store: options.StoreDirectory = None,
    settings: options.SettingsFile = None,
    as_json: options.Json = False,
) -> None:
    """Show one dead letter whole: properties, application properties, body."""
    from agent.cli import letters, output

    with _opened(store, settings) as opened:
        letter = opened.dead_letter(letter_id)
    if letter is None:
        raise _unknown(letter_id)
    if as_json:
        output.json_line(letters.whole(letter))
        return
    from agent.cli import store_tables

    output.console().print(store_tables.dead_letter(letter))


def retry(
    ids: Ids = None,
    every: All = False,
    store: options.StoreDirectory = None,
    settings: options.SettingsFile = None,
) -> None:
    """Send dead letters again: they wait in the outbox as before.

    An agent that runs sends them within a second or two; else the next one does that starts on this store.
    """
    from agent.cli.output import say

    with _opened(store, settings, writable=True) as opened:
        count = opened.retry(_chosen(opened, ids, every))
        when = "the agent that runs sends" if opened.in_use() else "the next agent that starts here sends"
    say(f"{_letters(count)} back in the outbox; {when} what is there")


def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file that is not there yet, or - for standard output.")
    ] = "-",
    store: options.StoreDirectory = None,
    settings: options.SettingsFile = None,
) -> None:
    """Write all dead letters as JSON lines, each with the encoded AMQP message as base64.

    The file is readable by its owner only: a result may hold a lease token.
    """
    from agent.cli import letters, output

    with _opened(store, settings) as opened:
        lines = (letters.exported(letter) for letter in opened.dead_letters())
        if file == "-":
            for line in lines:
                output.json_line(line)
            return
        count = letters.write(Path(file), lines)
    output.say(f"{_letters(count)} written to {file}")


def purge(
    ids: Ids = None,
    every: All = False,
    older_than: Annotated[
        float | None,
        typer.Option(parser=options.duration, metavar="TIME", help="Only those that are older, such as 7d."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: options.StoreDirectory = None,
    settings: options.SettingsFile = None,
) -> None:
    """Delete dead letters for good. It asks first."""
    from agent.cli.output import say

    with _opened(store, settings, writable=True) as opened:
        chosen = _chosen(opened, ids, every)
        if older_than is not None:
            chosen = sorted({*chosen} & {*opened.dead_letter_ids(older_than)})
        if chosen and not yes:
            typer.confirm(f"Delete {_letters(len(chosen))} for good?", abort=True, err=True)
        count = opened.purge(chosen)
    say(f"{_letters(count)} deleted")


def _opened(
    store: Path | None, settings: Path | None, *, writable: bool = False
) -> "AbstractContextManager[Inspector]":
    """Opens the store that the command line, the environment or a settings file names."""
    from agent.cli import configuration

    return configuration.inspector(settings, store, writable=writable)


def _chosen(opened: "Inspector", ids: list[int] | None, every: bool) -> list[int]:
    if every == bool(ids):
        raise Failure("Name dead letters by their ids, or take --all", Exit.USAGE)
    there = opened.dead_letter_ids()
    if ids and (unknown := sorted({*ids} - {*there})):
        raise _unknown(*unknown)
    return ids or there


def _unknown(*ids: int) -> Failure:
    which = " or ".join(map(str, ids))
    return Failure(f"There is no dead letter {which}; nothing was done", Exit.REJECTED)


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count} dead letters"
