"""`hilgate run`: the agent of one bench."""

import faulthandler
import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

_BENCH_PANEL = "Bench"
_BROKER_PANEL = "Broker"
_LIMITS_PANEL = "Limits"
_HTTP_PANEL = "HTTP"


def run(
    ctx: typer.Context,
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile file, or the name of a shipped profile.")
    ],
    bench: Annotated[
        str | None, typer.Option(metavar="ID", help="The bench's id.", rich_help_panel=_BENCH_PANEL)
    ] = None,
    broker: options.Broker = None,
    sil: Annotated[
        bool | None,
        typer.Option(
            "--sil/--hil", help="Simulate all devices, or use the real ones.", rich_help_panel=_BENCH_PANEL
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the agent's files.", rich_help_panel=_BENCH_PANEL),
    ] = None,
    settings: options.SettingsFile = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Added to the profile's: site=muc,rack=7.", rich_help_panel=_BENCH_PANEL),
    ] = None,
    enabled: Annotated[
        bool | None,
        typer.Option(
            "--enabled/--disabled", help="Start open, or in maintenance.", rich_help_panel=_BENCH_PANEL
        ),
    ] = None,
    flavour: options.Flavour = None,
    queue_prefix: Annotated[
        str | None, typer.Option(help="Flavour generic: before queue names.", rich_help_panel=_BROKER_PANEL)
    ] = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="Flavour generic: before topic names.", rich_help_panel=_BROKER_PANEL)
    ] = None,
    username: options.Username = None,
    username_file: Annotated[
        Path | None, typer.Option(help="A file with the name to log in with.", rich_help_panel=_BROKER_PANEL)
    ] = None,
    password_file: options.PasswordFile = None,
    allow_plain: options.AllowPlain = None,
    sasl: Annotated[
        str | None,
        typer.Option(help="auto, ANONYMOUS, PLAIN or EXTERNAL.", rich_help_panel=_BROKER_PANEL),
    ] = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_verify: Annotated[
        bool | None,
        typer.Option(
            "--tls-verify/--no-tls-verify", help="Check the certificate.", rich_help_panel=_BROKER_PANEL
        ),
    ] = None,
    cloudevents: Annotated[
        str | None, typer.Option(help="binary or structured events.", rich_help_panel=_BROKER_PANEL)
    ] = None,
    heartbeat: Annotated[
        str | None, typer.Option(help="How often availability is sent.", rich_help_panel=_LIMITS_PANEL)
    ] = None,
    max_command_age: Annotated[
        str | None, typer.Option(help="Older commands are rejected.", rich_help_panel=_LIMITS_PANEL)
    ] = None,
    require_command_time: Annotated[
        bool | None,
        typer.Option(
            "--require-command-time/--no-require-command-time",
            help="Reject writes without a creation time.",
            rich_help_panel=_LIMITS_PANEL,
        ),
    ] = None,
    require_lease: Annotated[
        bool | None,
        typer.Option(
            "--require-lease/--no-require-lease",
            help="Reject writes without a lease.",
            rich_help_panel=_LIMITS_PANEL,
        ),
    ] = None,
    max_lease: Annotated[
        str | None,
        typer.Option(help="The longest lease that may be asked for.", rich_help_panel=_LIMITS_PANEL),
    ] = None,
    safe_after_broker_loss: Annotated[
        str | None,
        typer.Option(
            help="Make the bench safe when the broker was away this long.", rich_help_panel=_LIMITS_PANEL
        ),
    ] = None,
    outbox_size: Annotated[
        str | None,
        typer.Option(help="What is kept while the broker is away.", rich_help_panel=_LIMITS_PANEL),
    ] = None,
    outbox_age: Annotated[
        str | None, typer.Option(help="How long it is kept.", rich_help_panel=_LIMITS_PANEL)
    ] = None,
    synchronous: Annotated[
        str | None,
        typer.Option(
            help="normal: the store survives a killed agent; full: a power cut too.",
            rich_help_panel=_LIMITS_PANEL,
        ),
    ] = None,
    audit_age: Annotated[
        str | None, typer.Option(help="How long the audit is kept.", rich_help_panel=_LIMITS_PANEL)
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(help="host:port of health, status and metrics.", rich_help_panel=_HTTP_PANEL),
    ] = None,
    http_token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that HTTP is asked with.", rich_help_panel=_HTTP_PANEL),
    ] = None,
    http_cert: Annotated[
        Path | None, typer.Option(help="The certificate of HTTP over TLS.", rich_help_panel=_HTTP_PANEL)
    ] = None,
    http_key: Annotated[
        Path | None, typer.Option(help="The key of --http-cert.", rich_help_panel=_HTTP_PANEL)
    ] = None,
    http_client_ca: Annotated[
        Path | None,
        typer.Option(help="Authorities whose clients need no token.", rich_help_panel=_HTTP_PANEL),
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json, to standard error.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the agent of one bench until SIGTERM or Ctrl-C.

    Every option is also a field of the settings file and a variable HILGATE_<FIELD>; the command line
    wins over the variables, and those over the file.
    """
    from agent import logs, notify
    from agent.cli import configuration, loop

    given = {name: value for name, value in ctx.params.items() if name not in ("profile", "settings")}
    chosen = configuration.settings(settings, given)
    logs.setup(chosen.log_format, chosen.log_level, chosen.bench)
    loaded = configuration.profile(profile)
    from agent.app import Agent

    service = notify.service(os.environ)
    if service is not None and service.watchdog is not None:
        faulthandler.enable()  # whoever hangs is sent SIGABRT, and then shows where
    try:
        agent = Agent(loaded, chosen, service)
    except (OSError, ValueError) as error:
        raise Failure(f"the agent cannot start: {error}", Exit.USAGE) from error
    # What is loaded now stays: to look through it again would take 20 ms each time, two poll cycles.
    gc.collect()
    gc.freeze()
    loop.execute(agent.run)
