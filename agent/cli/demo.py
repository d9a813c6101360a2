"""`hilgate demo`: broker, simulated bench and agent in one process, seen as any AMQP client sees them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import options

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.profile import Profile
    from agent.settings import Settings
    from protocols.amqp.client import Client
    from sim.broker import Broker

_HOST = "127.0.0.1"
_USUAL_PORT = 5672
_CONNECT_TIMEOUT_S = 5.0
_OTHER_LINES = 9
"""Lines around the points and the commands to try: headings, a reason, what is left out, frame."""


def demo(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile file, or the name of a shipped profile.")
    ] = "test-cell",
    bench: Annotated[str, typer.Option("--bench", metavar="ID", help="The bench's id.")] = "demo",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="The broker's port; without it 5672, or a free one if that is taken."
        ),
    ] = None,
    seconds: options.For = None,
    as_json: options.Json = False,
) -> None:
    """See a simulated bench live: nothing to install, nothing to configure.

    An AMQP broker, the simulated devices and the agent run in this one process. The table shows what
    any AMQP client would receive; with --json the events are printed as lines. Try the printed
    commands from a second terminal.

    Without a PROFILE it is a test cell with a device of each protocol.
    """
    from agent import logs
    from agent.cli import configuration, loop

    logs.setup("text", "warning")
    loaded = configuration.profile(profile)
    loop.execute(lambda stop: _demo(stop, loaded, bench, port, seconds, as_json))


async def _demo(
    stop: asyncio.Event,
    profile: "Profile",
    bench: str,
    port: int | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    from agent.app import Agent
    from agent.cli import configuration
    from agent.cli.remote import connected

    async with _broker(port) as broker:
        given = {"bench": bench, "broker": broker.url, "flavour": "embedded", "sil": True}
        settings = configuration.settings(None, given, environ={})
        # The client is there before the agent and leaves after it, so that it sees every event.
        async with connected(settings, _CONNECT_TIMEOUT_S) as client:
            agent = Agent(profile, settings)
            if as_json:
                await _print_events(stop, seconds, client, agent, settings)
            else:
                await _draw(stop, seconds, client, agent, settings)


@contextlib.asynccontextmanager
async def _broker(port: int | None) -> AsyncIterator["Broker"]:
    """The embedded broker on the port asked for, else on AMQP's own, else on a free one.

    Raises:
        Failure: there is no such port.
    """
    from agent.cli.exits import Failure
    from sim.broker import Broker

    for candidate in (_USUAL_PORT, 0) if port is None else (port,):
        broker = Broker(_HOST, candidate)
        try:
            await broker.start()
        except OSError as error:
            reason = error.strerror
            continue
        try:
            yield broker
        finally:
            await broker.close()
        return
    raise Failure(f"The demo's broker cannot listen on {_HOST}:{candidate}: {reason}")


@contextlib.asynccontextmanager
async def _running(agent: "Agent") -> AsyncIterator[None]:
    """An agent that runs during the body and has stopped gracefully after it."""
    from agent.cli.tasks import beside

    leave = asyncio.Event()
    async with beside(agent.run(leave), "agent") as task:
        try:
            yield
        finally:
            leave.set()
            await asyncio.wait([task])


async def _print_events(
    stop: asyncio.Event, seconds: float | None, client: "Client", agent: "Agent", settings: "Settings"
) -> None:
    from agent.cli import lines, loop
    from agent.cli.remote import receive_events

    receive_events(client, settings.bench, lines.event_printer(stop), lines.no_event)
    async with _running(agent):
        await loop.wait(stop, seconds)


async def _draw(
    stop: asyncio.Event, seconds: float | None, client: "Client", agent: "Agent", settings: "Settings"
) -> None:
    from rich.console import Group, RenderableType

    from agent.cli import examples, live, output, render
    from agent.cli.board import Board
    from agent.cli.remote import receive_events

    board = Board(settings.bench)
    receive_events(client, settings.bench, lambda event: board.take(event, time.time()), board.skip)
    profile = agent.bench.profile
    units = {
        (device, point): about.unit
        for device, config in profile.devices.items()
        for point, about in config.points.items()
    }
    lines = examples.commands(profile, settings.bench, settings.broker)
    hint = render.commands(lines)
    console = output.console()

    def picture(now: float, width: int, height: int | None) -> RenderableType:
        if height is None:
            return render.bench(board, units, now, width)
        return Group(render.bench(board, units, now, width, rows=height - _OTHER_LINES - len(lines)), hint)

    if not console.is_terminal:
        console.print(hint)
    async with _running(agent):
        await live.show(console, stop, seconds, picture)
