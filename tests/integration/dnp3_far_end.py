"""Where stations meet outstations: on a shared line, by calling, or on a pseudo terminal."""

import asyncio
import contextlib
import os
import socket
import ssl
import tty
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dnp3_rig import PATIENCE_S, Asked, FarEnd, Line, alive, device

from protocols.dnp3.channel import join, part
from protocols.dnp3.station import Station


@contextlib.asynccontextmanager
async def joined(
    connection: Mapping[str, Any], shared: dict[Any, Any] | None = None, **fields: Any
) -> AsyncIterator[Station]:
    """A station that leaves at the end; the test has half a minute."""
    shared = {} if shared is None else shared
    station = join(device(connection, **fields), shared)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield station
    finally:
        await part(station, shared)


async def silent(asked: Asked) -> bool:
    """Answers nothing."""
    return True


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listening(**fields: Any) -> dict[str, Any]:
    """The connection of a master that is called."""
    return {"transport": "tcp", "host": "127.0.0.1", "port": free_port(), "role": "listen"} | fields


@contextlib.asynccontextmanager
async def calls(
    station: FarEnd, port: int, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Line]:
    """An outstation that calls who listens, from `host`."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, local_addr=(host, 0), server_hostname="127.0.0.1" if context else None
    )
    line = Line(reader, writer)
    async with alive([station]):
        serving = asyncio.create_task(line.serve({station.address: station}))
        try:
            yield line
        finally:
            line.hang_up()
            await serving


@contextlib.asynccontextmanager
async def serial(*stations: FarEnd) -> AsyncIterator[dict[str, Any]]:
    """Outstations behind a pseudo terminal."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    loop.add_reader(ours, lambda: reader.feed_data(os.read(ours, 4096)))
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(ours), "wb"))
    writer = asyncio.StreamWriter(writing, asyncio.StreamReaderProtocol(reader), None, loop)
    serving = asyncio.create_task(Line(reader, writer).serve({one.address: one for one in stations}))
    try:
        async with alive(stations):
            yield {"transport": "serial", "port": os.ttyname(theirs)}
    finally:
        loop.remove_reader(ours)
        serving.cancel()
        await asyncio.wait([serving])
        writing.abort()
        os.close(ours)
        os.close(theirs)
