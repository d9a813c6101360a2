"""`hilgate audit`: who commanded the bench, and what came of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import options

if TYPE_CHECKING:
    from agent.store import AuditEntry


def moment(text: Any) -> int:
    """A time as RFC 3339, or how long ago, such as `1h`, in nanoseconds since 1970; for typer.

    Raises:
        typer.BadParameter: it is neither.
    """
    from agent import clock
    from protocols.amqp.cloudevents import parse_time
    from protocols.amqp.types import CodecError
    from protocols.units import parse_duration

    try:
        return clock.now_ns() - round(parse_duration(text) * 1e9)
    except ValueError:
        pass
    try:
        return parse_time(text)
    except CodecError:
        raise typer.BadParameter(
            f"{text!r} should be how long ago, such as 1h, or a time such as 2026-11-22T02:30:00Z"
        ) from None


def line(entry: "AuditEntry") -> dict[str, Any]:
    """An entry for scripts: its times as text, and what need not be there only where it is."""
    import msgspec

    from protocols.timestamps import rfc3339

    fields: dict[str, Any] = msgspec.to_builtins(entry)
    times = {name: rfc3339(fields.pop(f"{name}_ns")) for name in ("time", "finished")}
    return times | fields


def audit(
    store: options.StoreDirectory = None,
    settings: options.SettingsFile = None,
    since: Annotated[
        int | None, typer.Option(parser=moment, metavar="TIME", help="From then on: 1h, or RFC 3339.")
    ] = None,
    until: Annotated[
        int | None, typer.Option(parser=moment, metavar="TIME", help="Before then: 1h, or RFC 3339.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who asked; the agent itself is `agent`.")] = None,
    op: Annotated[str | None, typer.Option(help="One operation, such as write.")] = None,
    device: Annotated[str | None, typer.Option(help="One device.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help="ok, rejected, failed or indeterminate; or a code such as out-of-range."),
    ] = None,
    lease: Annotated[str | None, typer.Option(metavar="ID", help="The public id of a lease.")] = None,
    holder: Annotated[str | None, typer.Option(help="Whose lease it came with.")] = None,
    message_id: Annotated[
        str | None, typer.Option("--id", metavar="MESSAGE-ID", help="One command by its message-id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    as_json: options.Json = False,
) -> None:
    """Print who commanded the bench when, by which lease, and what came of it; the newest last.

    It also has what the agent did by itself: safe states, hooks, ends of leases.
    """
    from agent.cli import configuration, output
    from agent.store.inspect import AuditFilter

    wanted = AuditFilter(since, until, user, op, device, status, lease, holder, message_id)
    with configuration.inspector(settings, store) as opened:
        entries = opened.audit(wanted, limit)
    if as_json:
        for entry in entries:
            output.json_line(line(entry))
        return
    from agent.cli import store_tables

    output.console().print(store_tables.audit(entries))
