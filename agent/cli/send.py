"""`hilgate send`: one command to a bench, and its result."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure
from agent.cli.request import USAGE

if TYPE_CHECKING:
    from agent.settings import Settings

_LEASE_PANEL = "Leases"
_STATUS_EXITS = {"ok": Exit.OK, "rejected": Exit.REJECTED}


def _complete_op(incomplete: str) -> list[str]:
    return [op for op in USAGE if op.startswith(incomplete)]


def send(
    ctx: typer.Context,
    bench: Annotated[str, typer.Argument(metavar="BENCH", help="The bench's id.")],
    op: Annotated[
        str, typer.Argument(metavar="OP", help=f"One of {', '.join(USAGE)}.", autocompletion=_complete_op)
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORD",
            help="read: DEVICE [POINT...]; write: DEVICE POINT=VALUE...; call: DEVICE METHOD [ARG=VALUE...]; "
            "reserve: HOLDER TIME. A VALUE is JSON (1500, true, [1,2]) or else a string.",
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read back what a write wrote.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for enable, disable and safe.")] = "",
    devices: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="Devices to reserve; else the whole bench.", rich_help_panel=_LEASE_PANEL
        ),
    ] = "",
    dte: Annotated[
        str, typer.Option(help="The digital twin environment it is for.", rich_help_panel=_LEASE_PANEL)
    ] = "",
    priority: Annotated[
        int | None,
        typer.Option(
            help="Ends leases of a lower priority that are in the way; 0 if not given.",
            rich_help_panel=_LEASE_PANEL,
        ),
    ] = None,
    deadman: Annotated[
        float | None,
        typer.Option(
            parser=options.duration,
            metavar="TIME",
            help="Make the devices safe when the lease is not renewed for so long.",
            rich_help_panel=_LEASE_PANEL,
        ),
    ] = None,
    lease: Annotated[
        str,
        typer.Option(
            metavar="TOKEN",
            envvar="HILGATE_LEASE",
            help="The lease to renew, to release or to write by: its token, or @FILE that holds it. "
            "Command lines are seen by others: prefer the variable or a file.",
            rich_help_panel=_LEASE_PANEL,
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="HILGATE_TOKEN_FILE",
            help="A file with a JWT that says who asks; it is sent as `authorization: Bearer`.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            parser=options.duration, metavar="TIME", help="How long to wait; the command expires by then."
        ),
    ] = 5.0,
    as_json: options.Json = False,
    broker: options.Broker = None,
    settings: options.SettingsFile = None,
    flavour: options.Flavour = None,
    username: options.Username = None,
    password_file: options.PasswordFile = None,
    allow_plain: options.AllowPlain = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
) -> None:
    """Send a command to a bench and print its result.

    The exit code says how it went: 0 ok, 1 rejected (nothing was done), 3 failed or not known, 4 no answer.
    """
    from agent import logs
    from agent.cli import configuration, loop, output, request

    given = {
        "verify": verify,
        "reason": reason,
        "devices": devices and devices.split(","),
        "dte": dte,
        "priority": priority,
        "deadman_s": deadman,
    }
    body, token = request.body(op, words or [], given), _token(lease)
    if op in request.BY_TOKEN:
        if not token:
            raise Failure(f"{op} needs a lease: set HILGATE_LEASE, or give --lease @FILE", Exit.USAGE)
        body["lease"], token = token, ""
    bearer = "" if token_file is None else _read(token_file, "token")
    logs.setup("text", "error")  # what the connection is like, the command says itself
    chosen = configuration.client_settings(settings, {"bench": bench} | options.broker_fields(ctx))
    began = time.monotonic()
    result = loop.execute(lambda stop: _exchange(stop, chosen, body, token, bearer, timeout))
    if as_json:
        output.json_line(result)
    else:
        from agent.cli import render

        output.console().print(render.result(result, time.monotonic() - began))
    raise typer.Exit(_STATUS_EXITS.get(str(result.get("status")), Exit.FAILED))


def _token(text: str) -> str:
    """The token of `--lease`.

    Raises:
        Failure: its file cannot be read.
    """
    return _read(Path(text[1:]), "lease's token") if text.startswith("@") else text


def _read(path: Path, what: str) -> str:
    """A secret that stands alone in a file.

    Raises:
        Failure: it cannot be read.
    """
    try:
        return path.read_text().strip()
    except (OSError, ValueError) as error:
        raise Failure(f"The {what} cannot be read: {error}", Exit.USAGE) from None


async def _exchange(
    stop: asyncio.Event, settings: "Settings", body: dict[str, Any], token: str, bearer: str, timeout: float
) -> dict[str, Any]:
    """Connects, sends and waits for the result.

    Raises:
        Failure: there is none, or `stop` was set first.
    """
    from agent.cli.ask import ask
    from agent.cli.remote import connected
    from agent.cli.tasks import beside

    async def interrupt() -> None:
        await stop.wait()
        raise Failure("Interrupted; it is not known whether the command was carried out", Exit.INTERRUPTED)

    async with beside(interrupt(), "interrupt"), connected(settings, timeout) as client:
        user, _ = settings.credentials()
        return await ask(client, settings.bench, body, timeout, lease=token, bearer=bearer, user=user or "")
