"""Options and arguments that several commands share. Imports nothing heavy.

Options of settings bear the settings' names and stay unset where they are not given, so that the
settings file and `HILGATE_...` variables count (agent.settings validates them).
"""

from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_BROKER = "amqp://127.0.0.1:5672"
_BROKER_PANEL = "Broker"

BROKER_FIELDS = (
    "broker",
    "flavour",
    "username",
    "password_file",
    "allow_plain",
    "tls_ca",
    "tls_cert",
    "tls_key",
)
"""The settings that a client of a broker takes on its command line."""


def duration(text: Any) -> float:
    """A duration such as `10s` in seconds, for typer.

    Raises:
        typer.BadParameter: it is none.
    """
    from protocols.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def broker_fields(ctx: typer.Context) -> dict[str, Any]:
    """What the command line says of the broker; None where it says nothing."""
    return {field: ctx.params[field] for field in BROKER_FIELDS}


SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="Settings file (YAML); docs/settings.md has all fields."),
]
StoreDirectory = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The agent's store directory; else HILGATE_STORE, else the settings file's.",
    ),
]
Broker = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The AMQP 1.0 broker: amqp://host:port, or amqps:// for TLS.",
        rich_help_panel=_BROKER_PANEL,
    ),
]
Flavour = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto, artemis, rabbitmq, rabbitmq3, embedded or generic.",
        rich_help_panel=_BROKER_PANEL,
    ),
]
Username = Annotated[
    str | None,
    typer.Option("--username", "--user", help="The name to log in with.", rich_help_panel=_BROKER_PANEL),
]
PasswordFile = Annotated[
    Path | None, typer.Option(help="A file with the password.", rich_help_panel=_BROKER_PANEL)
]
AllowPlain = Annotated[
    bool | None,
    typer.Option(
        "--allow-plain/--no-allow-plain",
        help="Let the password go over a line without TLS.",
        rich_help_panel=_BROKER_PANEL,
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        help="Certificates that the broker is checked against (PEM).", rich_help_panel=_BROKER_PANEL
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option(help="Our own certificate (PEM).", rich_help_panel=_BROKER_PANEL)
]
TlsKey = Annotated[Path | None, typer.Option(help="The key of it (PEM).", rich_help_panel=_BROKER_PANEL)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, for scripts.")]
For = Annotated[
    float | None,
    typer.Option("--for", parser=duration, metavar="TIME", help="End after this time, such as 10s."),
]
