"""`hilgate safe-state`: makes a bench safe where no agent does."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from agent.profile import Profile
    from agent.safety.left import Left
    from agent.safety.report import Cause, Report
    from agent.settings import Settings
    from agent.store import Store

_UNNAMED = "unnamed"
_ASKING_S = 2.0
"""How long an agent may take to say that it goes on."""
_NOT_NEEDED = {"broker": "amqps://unused.invalid", "bench": _UNNAMED}
"""Stands for settings that nobody gave and that this command can do without."""


def safe_state(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile file, or the name of a shipped profile.")
    ],
    settings: options.SettingsFile = None,
    bench: Annotated[str | None, typer.Option(metavar="ID", help="The bench's id.")] = None,
    store: options.StoreDirectory = None,
    within: Annotated[
        float, typer.Option(parser=options.duration, metavar="TIME", help="How long it may take.")
    ] = 8.0,
    force: Annotated[bool, typer.Option("--force", help="Even if an agent runs on this bench.")] = False,
    if_stalled: Annotated[
        bool,
        typer.Option("--if-stalled", help="As --force, but not where /livez says that the agent goes on."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Drive every output of a bench to its safe value, without an agent and without a broker.

    For when the agent is gone: systemd runs it whenever the service has ended. While an agent runs,
    `hilgate send BENCH safe` does the same. Before a container is stopped, --if-stalled does it where the
    agent no longer can. With a store, the next agent sends the safety event, and the profile counts that
    the last one ran with, if it could not make the bench safe itself. The exit code is 0 if every safe value
    was reached, 3 if not.
    """
    from agent import clock, logs
    from agent.cli import loop, output
    from agent.safety import left
    from agent.safety.direct import drive_directly
    from agent.safety.report import report

    logs.setup("text", "error")  # how it went, the command says itself
    chosen = _settings(settings, {"bench": bench, "store": store})
    if if_stalled and _goes_on(chosen):
        output.say("The agent goes on: it makes the bench safe itself when it is stopped")
        return
    loaded, instead = _profile(profile, _left(chosen.store), chosen.sil)
    if loaded is None:
        output.say("All devices of this bench are simulated: there is nothing to make safe")
        return
    opened = _open_store(chosen, force or if_stalled)
    try:
        cause, reason = _why(os.environ)
        reason += instead
        started_ns = clock.now_ns()
        outcomes = loop.execute(lambda _: drive_directly(loaded, within))
        done = report(cause, reason, started_ns, outcomes)
        if opened is not None:
            _record(chosen, opened, done)
            if not done.bad:
                with contextlib.suppress(OSError):  # then it is made safe once more
                    left.forget(chosen.store)
    finally:
        if opened is not None:
            opened.close()
    said = done.body()
    if as_json:
        output.json_line(said)
    else:
        from agent.cli import render

        output.console().print(render.safe_points(said["points"]))
    raise typer.Exit(Exit.OK if said["safe"] else Exit.FAILED)


def _settings(file: Path | None, given: Mapping[str, Any]) -> "Settings":
    from agent.cli import configuration
    from agent.problems import ConfigErrors
    from agent.settings import load_settings
    from agent.validation import MISSING

    try:
        # Secrets and certificates of the broker are of no use here, and systemd may have taken them away.
        return load_settings(file, os.environ, given, files=False)
    except ConfigErrors as errors:
        missing = {problem.field for problem in errors.problems if problem.message == MISSING}
        stand_ins = {field: word for field, word in _NOT_NEEDED.items() if field in missing}
        try:
            chosen = configuration.settings(file, {**given, **stand_ins}, files=False)
        except Failure as failure:
            return _settings_left(given, failure)
    if chosen.store is not None and chosen.bench == _UNNAMED:
        raise Failure("An event in the store needs the bench's id: give --bench", Exit.USAGE)
    return chosen


def _settings_left(given: Mapping[str, Any], failure: Failure) -> "Settings":
    """What an agent ran with, where the settings are wrong now; the store has to be known without them."""
    from agent.cli import output

    store = given["store"] or os.environ.get("HILGATE_STORE")
    directory = Path(store) if store else None
    there = _left(directory)
    if there is None:
        raise failure
    try:
        chosen = there.settings({**_NOT_NEEDED, "bench": None, **given, "store": directory})
    except ValueError:
        raise failure from None
    output.say(f"hilgate: {failure}\nThose that the agent ran with count")
    return chosen


def _left(directory: Path | None) -> "Left | None":
    """What an agent left that could not make the bench safe."""
    from agent.cli import output
    from agent.safety import left

    try:
        return left.find(directory)
    except (OSError, ValueError) as error:
        output.say(f"hilgate: what the agent left in {directory} cannot be read: {type(error).__name__}")
        return None


def _profile(name: str, left: "Left | None", sil: bool) -> tuple["Profile | None", str]:
    """The profile to drive, None where there is nothing to drive; and why it is not the one given."""
    from agent.cli import configuration, output

    given, failure = None, None
    try:
        given = configuration.profile(name)
    except Failure as error:
        failure = error
    if left is not None:
        if given is not None and given.digest == left.digest:
            return given, ""
        why = f"{Path(name).name} is {'not valid' if given is None else 'another'} now"
        try:
            ran = left.profile()
        except ValueError as error:
            output.say(f"hilgate: what the agent left cannot be used, the profile given counts: {error}")
        else:
            output.say(f"hilgate: {failure or why}\nThe profile that the agent ran with counts")
            return ran, f"; by the profile that the agent ran with, for {why}"
    if failure is not None:
        raise failure
    return None if sil else given, ""


def _goes_on(settings: "Settings") -> bool:
    """Whether an agent says so; one that serves no HTTP cannot."""
    from agent import health

    if settings.http is None:
        return False
    return not health.ask(settings.http, tls=settings.http_cert is not None, timeout=_ASKING_S)


def _open_store(settings: "Settings", force: bool) -> "Store | None":
    """The agent's store, or None where there is none; without one the devices are made safe all the same.

    Raises:
        Failure: with the rejected code, an agent is at work on it.
    """
    from agent.cli import output
    from agent.store import SqliteStore

    if settings.store is None:
        return None
    try:
        return SqliteStore(
            settings.store,
            settings.outbox_size,
            settings.outbox_age,
            synchronous=settings.synchronous,
            audit_age=settings.audit_age,
        )
    except BlockingIOError:
        if force:
            return None
        how = f"hilgate send {settings.bench} safe has it make the bench safe; --force does it over its head"
        raise Failure(f"An agent is running on {settings.store}: {how}", Exit.REJECTED) from None
    except OSError as error:
        output.say(f"hilgate: no event will be sent, for the store cannot be opened: {error}")
        return None


def _why(environ: Mapping[str, str]) -> tuple["Cause", str]:
    """What systemd says of the service that has ended (systemd.exec(5)); else it is a person."""
    result = environ.get("SERVICE_RESULT")
    if result is None:
        return "crash", "hilgate safe-state was called"
    how = " ".join(filter(None, (environ.get("EXIT_CODE"), environ.get("EXIT_STATUS"))))
    return "stop" if result == "success" else "crash", f"the service ended: {result} ({how})"


def _record(settings: "Settings", store: "Store", done: "Report") -> None:
    from agent.events import Events
    from agent.safety.faults import Faults

    events = Events(settings.bench, store, structured=settings.cloudevents == "structured")
    done.record(store, Faults(store, "hil"), events, "hil")
