"""`hilgate safe-state`: makes a bench safe where no agent does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from agent.safety.kept import Kept
    from agent.safety.report import Cause, Report
    from agent.settings import Settings
    from agent.store import Store
    from protocols.base import DeviceConfig

_UNNAMED = "unnamed"
_ASKING_S = 2.0
"""How long an agent may take to say that it goes on."""
_NOT_NEEDED = {"broker": "amqps://unused.invalid", "bench": _UNNAMED}
"""Stands for settings that nobody gave and that this command can do without."""
_KEEP_ALL = {"outbox_size": "1000000GiB", "outbox_age": "36500d", "audit_age": "36500d"}
"""Stands for bounds that cannot be read: nothing is to be lost by what is not known."""


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
    agent no longer can. With a store, the next agent sends the safety event. The exit code is 0 if every
    safe value was reached, 3 if not.
    """
    from agent import clock, logs
    from agent.cli import loop, output
    from agent.safety import kept
    from agent.safety.direct import drive_directly
    from agent.safety.report import report

    logs.setup("text", "error")  # how it went, the command says itself
    chosen, wrong = _settings(settings, {"bench": bench, "store": store})
    if if_stalled and _goes_on(chosen):
        output.say("The agent goes on: it makes the bench safe itself when it is stopped")
        return
    opened = _open_store(chosen, force or if_stalled or chosen.sil)
    try:
        devices, whose = _devices(profile, chosen, wrong, opened)
        if devices is None:
            output.say("All devices of this bench are simulated: there is nothing to make safe")
            return
        cause, reason = _why(os.environ)
        started_ns = clock.now_ns()
        outcomes = loop.execute(lambda _: drive_directly(devices, within))
        done = report(cause, reason + whose, started_ns, outcomes)
        if opened is not None:
            _record(chosen, opened, done)
            if not done.bad:
                kept.forget(opened)
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


def _devices(
    profile: str, settings: "Settings", wrong: Failure | None, store: "Store | None"
) -> tuple["Mapping[str, DeviceConfig] | None", str]:
    """The devices to make safe, None where all are simulated; and what is to be said of whose they are.

    What an agent left in the store counts: its outputs are those that may be on, whatever the files say now.

    Raises:
        Failure: it left nothing, and settings or profile are not valid.
    """
    from agent.cli import configuration, output

    left = _left(store)
    if left is None:
        if wrong is not None:
            raise wrong
        loaded = configuration.profile(profile)
        return (None if settings.sil else loaded.devices), ""
    if left.sil:
        return None, ""
    try:
        changed = "" if configuration.profile(profile).digest == left.digest else f"{profile} was changed"
    except Failure as failure:
        changed = str(failure)
    if wrong is not None:
        output.say(f"hilgate: {wrong}")
    if not changed:
        return left.devices, ""
    output.say(f"hilgate: made safe by what the agent ran with, for {changed}")
    return left.devices, "; by the profile that the agent ran with, which was changed since"


def _left(store: "Store | None") -> "Kept | None":
    from agent.cli import output
    from agent.safety import kept

    if store is None:
        return None
    try:
        return kept.kept(store)
    except ValueError as error:
        output.say(f"hilgate: made safe by the files as they are, for what the agent left is no use: {error}")
        return None


def _settings(file: Path | None, given: Mapping[str, Any]) -> tuple["Settings", Failure | None]:
    """The settings; where the file is wrong, those that are given without it, and what is wrong with it."""
    try:
        return _read(file, given), None
    except Failure as failure:
        if file is None:
            raise
        try:
            return _read(None, {**given, **_KEEP_ALL}), failure
        except Failure:
            raise failure from None


def _read(file: Path | None, given: Mapping[str, Any]) -> "Settings":
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
        chosen = configuration.settings(file, {**given, **stand_ins}, files=False)
    if chosen.store is not None and chosen.bench == _UNNAMED:
        raise Failure("An event in the store needs the bench's id: give --bench", Exit.USAGE)
    return chosen


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
