"""A port between a master and an outstation, which sees what goes over it and may change it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

Hook = Callable[[bytes, bool], bytes | None]
"""Takes octets and whether the listening end sent them; gives what goes on, or None to hang up on both."""


@contextlib.asynccontextmanager
async def between(port: int, hook: Hook) -> AsyncIterator[int]:
    """A port of loopback whose connections go on to another one."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool, other: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(65536):
                passed = hook(data, back)
                if passed is None:
                    other.close()
                    break
                writer.write(passed)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            writer.close()
            return
        pumps.add(asyncio.create_task(pump(reader, far_writer, False, writer)))
        pumps.add(asyncio.create_task(pump(far_reader, writer, True, far_writer)))

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    if pumps:
        _, late = await asyncio.wait(pumps, timeout=20)
        assert not late, "an end left its connection open"
