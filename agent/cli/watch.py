"""`hilgate watch`: what the benches say, live."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.settings import Settings
    from protocols.amqp.client import Client

_CONNECT_TIMEOUT_S = 10.0
_DESCRIBE_TIMEOUT_S = 2.0
_OTHER_LINES = 7
"""Lines around the points: headings, a reason, what is left out."""


def watch(
    ctx: typer.Context,
    bench: Annotated[
        str | None, typer.Argument(metavar="BENCH", help="A bench's id; without it, all benches.")
    ] = None,
    seconds: options.For = None,
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
    """Watch which benches are available, or all values of one bench.

    It ends with Ctrl-C, or after --for. With --json, standard error says "hilgate: watching ..." once
    the subscriptions stand: no event that is sent after that is missed.
    """
    from agent import logs
    from agent.cli import configuration, loop

    logs.setup("text", "error")  # what the connection is like, the command says itself
    chosen = configuration.client_settings(settings, {"bench": bench or "all"} | options.broker_fields(ctx))
    show = _print_events if as_json else _draw
    loop.execute(lambda stop: show(stop, seconds, chosen, bench))


async def _print_events(
    stop: asyncio.Event, seconds: float | None, settings: "Settings", bench: str | None
) -> None:
    from agent.cli import lines, loop
    from agent.cli.remote import connected, receive_events, say_when_subscribed
    from agent.cli.tasks import beside

    async with connected(settings, _CONNECT_TIMEOUT_S) as client:
        subscriptions = receive_events(client, bench, lines.event_printer(stop), lines.no_event)
        sentence = f"hilgate: watching {bench or 'all benches'} on {settings.broker}"
        async with beside(say_when_subscribed(subscriptions, sentence), "subscriptions"):
            await loop.wait(stop, seconds)


async def _draw(stop: asyncio.Event, seconds: float | None, settings: "Settings", bench: str | None) -> None:
    from agent.cli import live, output, render
    from agent.cli.board import Board, Fleet
    from agent.cli.remote import connected, receive_events

    async with connected(settings, _CONNECT_TIMEOUT_S) as client:
        if bench is None:
            fleet = Fleet()
            receive_events(client, None, lambda event: fleet.take(event, time.time()), fleet.skip)
            await live.show(output.console(), stop, seconds, lambda now, *_: render.fleet(fleet, now))
            return
        board = Board(bench)
        receive_events(client, bench, lambda event: board.take(event, time.time()), board.skip)
        units = await _units(client, bench)
        board.expect(units)

        def picture(now: float, width: int, height: int | None) -> "RenderableType":
            return render.bench(board, units, now, width, rows=height and height - _OTHER_LINES)

        await live.show(output.console(), stop, seconds, picture)


async def _units(client: "Client", bench: str) -> dict[tuple[str, str], str]:
    """Units of the bench's points as it describes them; none where it does not answer soon."""
    import msgspec

    from agent.cli.ask import ask
    from agent.cli.board import Description
    from agent.cli.exits import Failure

    try:
        result = await ask(client, bench, {"op": "describe"}, _DESCRIBE_TIMEOUT_S)
        described = msgspec.convert(result.get("data"), Description)
    except (Failure, msgspec.ValidationError):
        return {}
    return {
        (device, point): about.unit
        for device, config in described.devices.items()
        for point, about in config.points.items()
    }
