"""All commands of `hilgate`, one module each; every one imports what it needs only when it runs."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from agent.cli import broker, check, demo, run, send, watch

app = typer.Typer(
    name="hilgate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: [bold]hilgate demo[/bold]. Exit codes: 0 ok, 1 rejected or not valid, 2 usage, "
    "3 failed, 4 no answer, 70 a fault of hilgate itself.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hilgate {version('hilgate')}")
        raise typer.Exit


@app.callback()
def hilgate(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; stands in front of the command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Gateway between the devices of a hardware-in-the-loop test bench and AMQP 1.0."""


def _add(command: Callable[..., None], *examples: str) -> None:
    """Adds a command: its docstring is the help, flowed anew; examples stand below, kept as lines by \\b."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    shown = "\n".join(f"  [cyan]hilgate {example}[/cyan]" for example in examples)
    app.command(help=text, epilog=f"\b\n[bold]Examples[/bold]\n{shown}")(command)


_add(demo.demo, "demo", "demo --for 10s", "demo battery-pack --json | head -3")
_add(
    run.run,
    "run rig.yaml --bench rig-07 --broker amqp://broker.example:5672",
    "run rig.yaml --bench rig-07 --broker amqp://127.0.0.1:5672 --sil",
    "run rig.yaml --settings /etc/hilgate/rig-07.yaml --log-format json",
)
_add(check.check, "check rig.yaml", "check profiles/*.yaml --json")
_add(check.schema, "schema > profile.schema.json")
_add(broker.broker, "broker", "broker --listen 127.0.0.1:5673")
_add(
    send.send,
    "send rig-07 ping",
    "send rig-07 describe --json",
    "send rig-07 read pump-plc speed setpoint",
    "send rig-07 write pump-plc setpoint=1500 --verify",
    "send rig-07 call pump-plc identify level=basic",
    'send rig-07 disable --reason "hose is being changed"',
)
_add(watch.watch, "watch", "watch rig-07", "watch rig-07 --json --for 10s")
