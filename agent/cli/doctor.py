"""`hilgate doctor`: what is wrong on this host."""

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from rich.console import Console

    from agent.doctor.case import Case, Check
    from agent.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "not-checked": "dim"}
_SETTINGS = ("HILGATE_BROKER", "HILGATE_BENCH")
"""Of the environment's settings those without which there are none."""


def doctor(
    profile: Annotated[
        str | None, typer.Argument(metavar="[PROFILE]", help="A profile file, or a shipped profile's name.")
    ] = None,
    settings: options.SettingsFile = None,
    bench: Annotated[str | None, typer.Option(metavar="ID", help="The bench's id.")] = None,
    broker: options.Broker = None,
    store: options.StoreDirectory = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK", help="Only this check; may be given several times. docs/doctor.md has all."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(parser=options.duration, metavar="TIME", help="What each thing may take.")
    ] = 10.0,
    as_json: options.Json = False,
) -> None:
    """Say what is wrong on this host, and what to do about it.

    Looks at the system, clock, CAN interfaces, serial ports, settings, certificates, store, broker, every
    device and the service, and changes nothing: no device is written to, no message is taken, and where an
    agent runs, its own word on the devices counts. The exit code is 0 if nothing failed, else 1.
    """
    from agent import logs
    from agent.cli import loop, output
    from agent.doctor.examine import examine

    logs.setup("text", "error")  # what is wrong, the rows say
    if timeout <= 0:
        raise Failure("--timeout should be more than nothing", Exit.USAGE)
    checks = _chosen(only or [])
    case = _case(profile, settings, {"bench": bench, "broker": broker, "store": store}, timeout)
    counted: Counter[str] = Counter()
    console = None if as_json else output.console()

    def say(check: str, finding: "Finding") -> None:
        counted[finding.verdict] += 1
        if console is None:
            output.json_line(_as_data(check, finding))
        else:
            _show(console, check, finding)

    loop.execute(lambda stop: _until(stop, examine(case, checks, say)))
    if console is not None:
        console.print(", ".join(f"{counted[verdict]} {verdict.replace('-', ' ')}" for verdict in _STYLES))
    raise typer.Exit(Exit.REJECTED if counted["failed"] else Exit.OK)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Does the work, and leaves it at once when it is to stop.

    Raises:
        KeyboardInterrupt: it was to stop.
    """
    working = asyncio.create_task(work, name="checks")
    stopping = asyncio.create_task(stop.wait(), name="wait for a signal")
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise KeyboardInterrupt
        working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait((working, stopping))


def _chosen(only: Sequence[str]) -> "Sequence[Check]":
    from agent.doctor.checks import CHECKS
    from agent.problems import did_you_mean

    names = [check.name for check in CHECKS]
    for name in only:
        if name not in names:
            raise Failure(f"There is no check {name!r}; {did_you_mean(name, names)}", Exit.USAGE)
    return [check for check in CHECKS if not only or check.name in only]


def _case(profile: str | None, file: Path | None, given: Mapping[str, Any], limit: float) -> "Case":
    from agent.doctor import host
    from agent.doctor.case import Case
    from agent.doctor.files import CREDENTIALS
    from agent.problems import ConfigErrors
    from agent.profile import load_profile
    from agent.settings import load_settings

    case = Case(None, None, limit, container=host.container())
    environ = {"CREDENTIALS_DIRECTORY": str(CREDENTIALS), **os.environ}
    if profile is not None:
        try:
            case.profile = load_profile(profile, {**_of_the_service(profile), **environ})
        except ConfigErrors as errors:
            case.profile_problems = errors.problems
    if file is not None or any(given.values()) or any(os.environ.get(name) for name in _SETTINGS):
        try:
            case.settings = load_settings(file, environ, given, files=False)
        except ConfigErrors as errors:
            case.settings_problems = errors.problems
    return case


def _of_the_service(profile: str) -> Mapping[str, str]:
    """The variables that the service gives a profile in /etc/hilgate."""
    from agent import install

    path = Path(profile).absolute()
    name = path.name.removesuffix(".profile.yaml")
    if path.parent != Path("/") / install.CONFIGURATION or name == path.name:
        return {}
    try:
        return install.variables(Path("/"), name)
    except OSError:
        return {}  # then the profile's row says which one is not set


def _as_data(check: str, finding: "Finding") -> Mapping[str, str]:
    return {
        "check": check,
        "subject": finding.subject,
        "verdict": finding.verdict,
        "found": finding.found,
        "todo": finding.todo,
    }


def _show(console: "Console", check: str, finding: "Finding") -> None:
    from rich.text import Text

    from agent.cli.render import plain

    head = f"{finding.verdict.replace('-', ' '):<12} {check:<13}"
    subject = f"{finding.subject}: " if finding.subject else ""
    row = Text.assemble((head, _STYLES[finding.verdict]), " ", plain(f"{subject}{finding.found}"))
    # Not folded: a command is copied as it stands.
    console.print(row, soft_wrap=True)
    if finding.todo:
        console.print(Text.assemble(" " * 27, ("→ ", "cyan"), plain(finding.todo)), soft_wrap=True)
