"""`hilgate check` and `hilgate schema`: profiles, before anything is touched."""

from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import options
from agent.cli.exits import Exit

if TYPE_CHECKING:
    from agent.problems import ConfigErrors
    from agent.profile import Profile


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
    if as_json:
        output.json_line(report.as_data(profile, plans))
    else:
        output.console().print(report.as_text(profile, plans))
