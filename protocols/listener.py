"""A port that callers connect to, with TLS before anything else is known of them. I/O only."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Sequence

MOST_HANDSHAKES = 16
"""TLS handshakes at once; for one more the oldest is given up: callers that dawdle use up no descriptors."""
HANDSHAKE_S = 10.0
"""How long a handshake may take."""
SHUTDOWN_S = 1.0
"""How long a caller may take to close its TLS."""
_BACKLOG = 100
_RETRY_S = 1.0
"""How long nobody is let in when there are no descriptors left."""


class Listener:
    """Gives each caller a protocol of its own, once TLS lets it in. Listens until closed."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
    ) -> None:
        self.sockets = sockets
        self._factory = factory
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._callers: dict[asyncio.Task[None], None] = {}
        """Whose handshakes are under way, the oldest first."""
        self._new: set[socket.socket] = set()
        """Callers of whom no transport knows yet, which would close them."""
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        for one in sockets:
            self._listen(one)

    def close(self) -> None:
        """Listens no more, and gives up handshakes that are under way."""
        for pause in self._pauses.values():
            pause.cancel()
        for one in self.sockets:
            self._loop.remove_reader(one)
            one.close()
        for caller in self._callers:
            caller.cancel()

    def _listen(self, one: socket.socket) -> None:
        self._pauses.pop(one, None)
        self._loop.add_reader(one, self._accept, one)

    def _accept(self, one: socket.socket) -> None:
        try:
            caller, _ = one.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it is gone again
        except OSError:
            self._loop.remove_reader(one)
            self._pauses[one] = self._loop.call_later(_RETRY_S, self._listen, one)
            return
        caller.setblocking(False)
        self._new.add(caller)
        if len(self._callers) >= MOST_HANDSHAKES:
            oldest = next(iter(self._callers))
            del self._callers[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._let_in(caller), name="let a caller in")
        self._callers[task] = None
        task.add_done_callback(functools.partial(self._done, caller))

    async def _let_in(self, caller: socket.socket) -> None:
        self._new.discard(caller)
        secure = self._context is not None
        with contextlib.suppress(OSError):  # no TLS, no certificate that is trusted, or too slow
            await self._loop.connect_accepted_socket(
                self._factory,
                caller,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S if secure else None,
                ssl_shutdown_timeout=SHUTDOWN_S if secure else None,
            )

    def _done(self, caller: socket.socket, task: asyncio.Task[None]) -> None:
        self._callers.pop(task, None)
        if caller in self._new:  # cancelled before it began
            self._new.discard(caller)
            caller.close()


async def bound(host: str, port: int) -> Sequence[socket.socket]:
    """Sockets that listen at each address of a host.

    Raises:
        OSError: an address cannot be had.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
            one.listen(_BACKLOG)
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets
