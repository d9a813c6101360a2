"""All commands of `hilgate`, one module each; every one imports what it needs only when it runs."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from agent.cli import (
    audit,
    broker,
    browse,
    check,
    convert,
    demo,
    doctor,
    import_,
    install,
    opcua_cert,
    replay,
    run,
    safe_state,
    send,
    signals,
    store,
    watch,
)

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


def _add(
    command: Callable[..., None], *examples: str, to: typer.Typer = app, name: str | None = None
) -> None:
    """Adds a command: its docstring is the help, flowed anew; examples stand below."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    to.command(name, help=text, epilog=_shown(*examples))(command)


def _shown(*examples: str) -> str:
    """Examples below a help text, kept as lines by \\b."""
    lines = "\n".join(f"  [cyan]hilgate {example}[/cyan]" for example in examples)
    return f"\b\n[bold]Examples[/bold]\n{lines}"


_add(demo.demo, "demo", "demo --for 10s", "demo battery-pack --json | head -3")
_add(
    run.run,
    "run rig.yaml --bench rig-07 --broker amqp://broker.example:5672",
    "run rig.yaml --bench rig-07 --broker amqp://127.0.0.1:5672 --sil",
    "run rig.yaml --settings /etc/hilgate/rig-07.yaml --log-format json",
)
_add(check.check, "check rig.yaml", "check profiles/*.yaml --json")
_add(
    doctor.doctor,
    "doctor rig.yaml --settings /etc/hilgate/rig-07.yaml",
    "doctor rig.yaml --settings /etc/hilgate/rig-07.yaml --only device --only broker --json",
)
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
    'send rig-07 safe --reason "smoke"',
    "send rig-07 reserve ci-7 10min --devices pump-plc",
    "send rig-07 release --lease @token",
    "send rig-07 enable --token-file /run/user/1000/hilgate.jwt",
    "send rig-07 record drive start",
)
_add(
    safe_state.safe_state,
    "safe-state rig.yaml",
    "safe-state rig.yaml --settings /etc/hilgate/rig-07.yaml --within 8s",
    name="safe-state",
)
_add(
    install.install,
    "install rig.yaml --bench rig-07 --broker amqps://broker.example:5671",
    "install rig.yaml --bench rig-07 --broker amqps://broker.example:5671 --with can-network --dry-run",
)
_add(watch.watch, "watch", "watch rig-07", "watch rig-07 --json --for 10s")

_add(
    replay.replay,
    "replay drive.blf --channel vcan0",
    "replay drive.log --profile rig.yaml --speed 2 --loop",
    "replay drive.asc --channel can0 --ids 0x100..0x1FF --map 0x100..0x1FF=0x500..0x5FF",
)
_add(
    convert.convert,
    "convert drive.blf drive.asc",
    "convert drive.blf drive.parquet --database drive.dbc",
    "convert drive.log.gz drive.mf4",
)
_add(
    signals.signals,
    "signals drive.dbc > rig.yaml",
    "signals drive.dbc --message DriveState --table",
)
_add(
    browse.browse,
    "browse opc.tcp://plc.example:4840 --cert hilgate.pem --key hilgate-key.pem --trust trusted > rig.yaml",
    "browse opc.tcp://127.0.0.1:4840 --policy None --root /Objects/2:Plant --depth 3",
)
_add(
    opcua_cert.opcua_cert,
    "opcua-cert",
    "opcua-cert --out /etc/hilgate --host rig-07.example --host 192.0.2.7",
    name="opcua-cert",
)

_STORE_EXAMPLES = (
    "store status --store /var/lib/hilgate/rig-07",
    "store list --settings /etc/hilgate/rig-07.yaml",
    "store show 17",
    "store retry --all",
)
_store = typer.Typer(
    no_args_is_help=True,
    help="See what an agent keeps on disk, also while it runs, and deal with its dead letters: "
    "messages that the broker refused for good.",
    epilog=_shown(*_STORE_EXAMPLES),
)
app.add_typer(_store, name="store")
_add(store.status, "store status --store /var/lib/hilgate/rig-07", "store status --json", to=_store)
_add(store.list_, "store list --store /var/lib/hilgate/rig-07", "store list --json", to=_store, name="list")
_add(store.show, "store show 17", "store show 17 --json", to=_store)
_add(store.retry, "store retry 17 18", "store retry --all", to=_store)
_add(store.export, "store export letters.jsonl", "store export | jq .reason", to=_store)
_add(store.purge, "store purge 17", "store purge --all --older-than 7d --yes", to=_store)
_add(
    audit.audit,
    "audit --store /var/lib/hilgate/rig-07",
    "audit --since 1h --op write --status rejected",
    "audit --user joe --json",
)
_IMPORT_EXAMPLES = ("import kubeedge model.yaml device.yaml > rig.yaml",)
_import = typer.Typer(
    no_args_is_help=True,
    help="Make a profile of descriptions of devices that others have made.",
    epilog=_shown(*_IMPORT_EXAMPLES),
)
app.add_typer(_import, name="import")
_add(import_.kubeedge, *_IMPORT_EXAMPLES, to=_import)
