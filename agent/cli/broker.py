"""`hilgate broker`: the embedded AMQP broker alone."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import options

_STATISTICS_PERIOD_S = 5.0


def broker(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 is a free one.")
    ] = "127.0.0.1:5672",
    username: Annotated[
        str | None, typer.Option("--username", "--user", help="Let only this user in.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="A file with that user's password.")] = None,
    seconds: options.For = None,
    as_json: options.Json = False,
) -> None:
    """Run the embedded AMQP broker alone, for demos, SIL runs and tests on one machine.

    It keeps everything in memory; production uses a real broker. On a terminal it shows its queues;
    with --json it prints them as a line every 5 s, after a line with its URL.
    """
    from agent import logs
    from agent.cli import loop

    logs.setup("text", "warning")
    host, port = _split(listen)
    users = _users(username, password_file)
    loop.execute(lambda stop: _serve(stop, host, port, users, seconds, as_json))


def _split(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise typer.BadParameter(
            f"{listen!r} should be HOST:PORT, such as 127.0.0.1:5672", param_hint="--listen"
        )
    return host.strip("[]"), int(port)


def _users(username: str | None, password_file: Path | None) -> dict[str, str] | None:
    if username is None and password_file is None:
        return None
    if username is None or password_file is None:
        raise typer.BadParameter("--username and --password-file go together")
    from agent.cli.exits import Exit, Failure

    try:
        return {username: password_file.read_text("utf-8").partition("\n")[0].rstrip("\r")}
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{password_file} cannot be read: {error}", Exit.USAGE) from error


async def _serve(
    stop: asyncio.Event,
    host: str,
    port: int,
    users: dict[str, str] | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    from agent.cli import live, loop, output, render
    from agent.cli.exits import Failure
    from sim.broker import Broker

    broker = Broker(host, port, users=users)
    try:
        await broker.start()
    except OSError as error:
        raise Failure(f"The broker cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        if as_json:
            output.json_line({"url": broker.url})
            async for _ in loop.every(_STATISTICS_PERIOD_S, stop, seconds):
                output.json_line(broker.statistics())
            return
        console = output.console()
        console.print(f"The embedded broker listens on {broker.url}; Ctrl-C ends it.")
        if console.is_terminal:
            await live.show(console, stop, seconds, lambda *_: render.queues(broker.statistics()))
        else:
            await loop.wait(stop, seconds)
    finally:
        await broker.close()
