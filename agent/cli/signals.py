"""`hilgate signals`: what a CAN database has, as a profile to begin with."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from protocols.can.signals.database import Message, Signal

_NAME_MOST = 63
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def signals(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A DBC, KCD, SYM or ARXML file.")],
    message: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this message; may be repeated.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="A table for people instead of a profile.")] = False,
) -> None:
    """Print a profile with a point for each signal of a CAN database, to begin with.

    All points are read-only: remove what is not wanted, and say `access: rw` and limits where it may be
    written.
    """
    from agent.cli import output
    from agent.cli.convert import mistakes
    from protocols.can.signals.database import load

    with mistakes():
        contents = load([file])
    messages = _chosen(contents.messages.values(), message or [])
    for name, why in contents.ambiguous.items():
        output.say(f"hilgate: {name} is left out: {why}")
    if table:
        _print_table(messages)
        return
    for line in profile_lines(file.name, messages):
        typer.echo(line)


def _chosen(messages: "Iterable[Message]", wanted: Sequence[str]) -> "list[Message]":
    from agent.problems import did_you_mean

    there = {message.name: message for message in messages}
    for name in wanted:
        if name not in there:
            raise Failure(f"There is no message {name!r}; {did_you_mean(name, list(there))}", Exit.USAGE)
    return [there[name] for name in wanted or there]


def profile_lines(file: str, messages: "Sequence[Message]") -> Iterator[str]:
    """A profile of one bus, line by line."""
    stem = dashed(file.rpartition(".")[0]) or "can"
    fd = ", fd: true, data_bitrate: 2000000" if any(message.fd for message in messages) else ""
    yield f"# Made from {comment(file)}: remove what is not wanted."
    yield "# Where a bench may write say access: rw, min, max and safe."
    yield f"profile: {stem}"
    yield "devices:"
    yield "  bus:"
    yield "    protocol: can"
    yield f'    connection: {{channel: "${{CAN_CHANNEL:-can0}}", bitrate: 500000{fd}}}'
    yield f"    database: {scalar(file)}"
    yield "    points:"
    taken: set[str] = set()
    for message in messages:
        yield f"      # {comment(_about(message))}"
        if message.unsupported:
            yield f"      # left out: {comment(message.unsupported)}"
            continue
        for signal in message.signals.values():
            if not message.holds(signal):
                yield f"      # left out: {comment(signal.name)} does not fit into the message"
                continue
            name = _point_name(message, signal, taken)
            words = f"{{message: {scalar(message.name)}, signal: {scalar(signal.name)}}}"
            about = _about_signal(signal)
            yield f"      {name}: {words}" + (f" # {comment(about)}" if about else "")
    if not taken:
        yield "      {}"


def _point_name(message: "Message", signal: "Signal", taken: set[str]) -> str:
    """A name that no point has yet: of the signal, then with its message, then with a number."""
    plain = dashed(signal.name) or "signal"
    both = f"{dashed(message.name) or 'message'}-{plain}"
    tries = [plain, both[:_NAME_MOST]]
    while tries[0] in taken:
        tries.pop(0)
        if not tries:
            tries.append(f"{plain[: _NAME_MOST - 8]}-{len(taken)}")
    taken.add(tries[0])
    return tries[0]


def dashed(name: str) -> str:
    """`EngineSpeed_RPM` as `engine-speed-rpm`."""
    words = re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3-\2\4", name)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:_NAME_MOST].strip("-")


def _about(message: "Message") -> str:
    from protocols.can.frame import format_id
    from protocols.units import format_duration

    cycle = f", every {format_duration(message.cycle)}" if message.cycle else ""
    senders = f", from {' and '.join(message.senders)}" if message.senders else ""
    kind = "CAN FD, " if message.fd else ""
    size = "1 byte" if message.length == 1 else f"{message.length} bytes"
    return f"{message.name} 0x{format_id(message.can_id)}, {kind}{size}{cycle}{senders}"


def _about_signal(signal: "Signal") -> str:
    limits = ""
    if signal.minimum is not None and signal.maximum is not None:
        limits = f"{signal.minimum:g} to {signal.maximum:g}"
    parts = [" ".join(filter(None, (limits, signal.unit))), ", ".join(signal.choices.values())]
    if signal.selector is not None:
        parts.append(f"only with {signal.selector}")
    return "; ".join(filter(None, parts))


def scalar(text: str) -> str:
    """A text as YAML; quoted where it could be taken for something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "$${")
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'


def comment(text: str) -> str:
    """A text in one line, of characters that YAML lets stand in a comment."""
    return "".join(char if char.isprintable() else " " for char in text)


def _print_table(messages: "Sequence[Message]") -> None:
    from rich.markup import escape
    from rich.table import Table

    from agent.cli import output
    from protocols.can.frame import format_id

    table = Table("message", "id", "signal", "bits", "range", "unit", "labels", box=None)
    for message in messages:
        for signal in message.signals.values():
            order = "Intel" if signal.little else "Motorola"
            kind = "float" if signal.is_float else "signed" if signal.signed else "unsigned"
            limits = ""
            if signal.minimum is not None and signal.maximum is not None:
                limits = f"{signal.minimum:g} to {signal.maximum:g}"
            table.add_row(
                escape(message.name),
                format_id(message.can_id),
                escape(signal.name),
                f"{signal.start}+{signal.length} {order} {kind}",
                limits,
                escape(signal.unit),
                escape(", ".join(f"{raw}={label}" for raw, label in signal.choices.items())),
            )
    output.console().print(table)
