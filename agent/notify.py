"""What systemd is told of a service of Type=notify: sd_notify(3) and sd_watchdog_enabled(3)."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping

import structlog

TICK_S = 1.0
"""How often the status line is looked at."""
STATUS_LIMIT = 200
"""Characters of a status line."""


class Service:
    """The service manager's end of one service.

    Args:
        address: A path, or `@` and the name of an abstract socket.
        watchdog: Seconds within which it wants a sign of life; None: it does not.

    Raises:
        OSError: no socket can be had.
    """

    def __init__(self, address: str, watchdog: float | None = None) -> None:
        self.watchdog = watchdog
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # systemd reads at once. Where nobody does, a sign is lost rather than the loop held up.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._log = structlog.get_logger("notify")

    def tell(self, **fields: str) -> None:
        """Sends assignments such as `READY="1"` in one datagram; what cannot be sent is logged."""
        lines = (f"{key}={' '.join(text.split())}" for key, text in fields.items())
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._log.warning("systemd cannot be told", what=", ".join(fields), reason=str(error))

    async def keep_told(
        self, ready: asyncio.Event, stalled: Callable[[], str], status: Callable[[], str]
    ) -> None:
        """Says READY once `ready` is set, each new status line, and signs of life, until cancelled.

        There is a sign of life at half of the watchdog's time, as long as nothing is stalled.
        """
        loop = asyncio.get_running_loop()
        announced, said, alive_at = False, "", loop.time()
        tick = TICK_S if self.watchdog is None else min(TICK_S, self.watchdog / 4)
        while True:
            fields = {}
            if (line := _shortened(stalled() or status())) != said:
                fields["STATUS"] = said = line
            if ready.is_set() and not announced:
                announced = True
                fields["READY"] = "1"
            if self.watchdog is not None and loop.time() >= alive_at and not stalled():
                alive_at = loop.time() + self.watchdog / 2 - tick
                fields["WATCHDOG"] = "1"
            if fields:
                self.tell(**fields)
            if announced:
                await asyncio.sleep(tick)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(tick):
                        await ready.wait()

    def close(self) -> None:
        """Lets the socket go."""
        self._socket.close()


def service(environ: MutableMapping[str, str]) -> Service | None:
    """Who started this process as a service, if somebody wants to be told.

    What says so is taken out of the environment: no program that is started from here is to speak for us.

    Raises:
        OSError: no socket can be had.
    """
    address = environ.pop("NOTIFY_SOCKET", "")
    period, owner = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not address.startswith(("/", "@")):
        return None
    mine = not owner or owner == str(os.getpid())
    return Service(address, int(period) / 1e6 if mine and period.isdecimal() and int(period) else None)


def _shortened(line: str) -> str:
    return line if len(line) <= STATUS_LIMIT else f"{line[: STATUS_LIMIT - 1]}…"
