"""TCP between the agent and its broker, to be cut at will."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

_CHUNK = 64 * 1024


class Proxy:
    """Carries connections to a port of loopback. Its own port stays, also while the broker is away."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ends: set[asyncio.StreamWriter] = set()
        self._severed = False
        self._stalled = False
        self._budget: int | None = None
        self.port = 0
        self.on_spent: Callable[[], None] = lambda: None
        """Called when connections were cut because the agent had sent what it might."""

    def cut(self) -> None:
        """Resets all connections, at both ends."""
        for end in self._ends:
            end.transport.abort()

    def cut_after(self, budget: int | None) -> None:
        """Resets all connections once the agent has sent so many more bytes; no further one arrives.

        None: however many it sends.
        """
        self._budget = budget

    @contextlib.contextmanager
    def severed(self) -> Iterator[None]:
        """Inside, connections are cut, and new ones too."""
        self.cut()
        self._severed = True
        try:
            yield
        finally:
            self._severed = False

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Inside, connections stay and carry nothing; what was sent is lost with them at the end."""
        self._stalled = True
        try:
            yield
        finally:
            self.cut()
            self._stalled = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until either end has gone."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(self._drop, writer)
            self._ends.add(writer)
            if self._severed:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            stack.callback(self._drop, far_writer)
            self._ends.add(far_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer, self._spend), name="to the broker"),
                asyncio.create_task(self._pump(far_reader, writer, bytes), name="to the agent"),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    def _drop(self, end: asyncio.StreamWriter) -> None:
        self._ends.discard(end)
        end.transport.abort()

    def _spend(self, data: bytes) -> bytes:
        """What of the agent's bytes may pass."""
        if self._budget is None:
            return data
        passing = data[: self._budget]
        self._budget -= len(passing)
        return passing

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: Callable[[bytes], bytes]
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._stalled:
                continue
            writer.write(limit(data))
            await writer.drain()
            if self._budget == 0:
                self._budget = None
                self.cut()
                self.on_spent()


@contextlib.asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """Runs a proxy to a port of loopback."""
    one = Proxy(target)
    server = await asyncio.start_server(one.carry, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        one.cut()
        await server.wait_closed()
