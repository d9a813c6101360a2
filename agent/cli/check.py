"""`hilgate check` and `hilgate schema`: profiles, before anything is touched."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import options
from agent.cli.exits import Exit

if TYPE_CHECKING:
    from agent.problems import ConfigErrors
    from agent.profile import Profile

_PACKAGES = {
    "dnp3": ("DNP3", "py1815", "py1815"),
    "mqtt": ("MQTT", "paho-mqtt", "paho"),
    "opcua": ("OPC UA", "asyncua", "asyncua"),
}
"""By protocol: its name, the package without which it does nothing, and that one's module."""
_DNP3_PYTHON = ("dnp3_python", "pydnp3", "dnp3demo")
"""Modules of the distribution dnp3-python."""


def check(
    profiles: Annotated[
        list[str],
        typer.Argument(metavar="PROFILE", help="Profile files, or names of shipped profiles."),
    ],
    as_json: options.Json = False,
) -> None:
    """Validate profiles, and show what would be polled how.

    Every mistake is printed with its file and line. The exit code is 0 if all are valid, else 1.
    """
    from agent.problems import ConfigErrors
    from agent.profile import load_profile

    valid = True
    for name in profiles:
        try:
            profile = load_profile(name)
        except ConfigErrors as errors:
            valid = False
            _refuse(name, errors, as_json)
        else:
            _report(profile, as_json)
    if not valid:
        raise typer.Exit(Exit.REJECTED)


def schema() -> None:
    """Print the JSON Schema of profiles, for editors."""
    import json

    from agent.profile import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _refuse(name: str, errors: "ConfigErrors", as_json: bool) -> None:
    from agent.cli import output

    if as_json:
        output.json_line({"profile": name, "valid": False, "problems": errors.problems})
        return
    for problem in errors.problems:
        typer.echo(str(problem))


def _report(profile: "Profile", as_json: bool) -> None:
    from agent.cli import output
    from agent.profile import report

    plans = report.survey(profile)
    notes = _notes(profile)
    if as_json:
        output.json_line(report.as_data(profile, plans) | {"notes": notes})
        return
    output.console().print(report.as_text(profile, plans))
    for note in notes:
        typer.echo(f"note: {note}")


def _notes(profile: "Profile") -> list[str]:
    """What is worth knowing of the packages that the profile's devices need."""
    used = {device.protocol for device in profile.devices.values() if device.enabled}
    notes = [
        f"{name} devices need the package {package}, which is not installed; install hilgate[{protocol}]"
        for protocol, (name, package, module) in _PACKAGES.items()
        if protocol in used and find_spec(module) is None
    ]
    if "dnp3" in used and any(find_spec(module) for module in _DNP3_PYTHON):
        notes.append("the package dnp3-python is installed here and is not used: docs/dnp3.md says why")
    return notes
