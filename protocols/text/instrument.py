"""One instrument on a line: asked in turn with others, brought back into step after an answer was lost."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from protocols.base import DriverError, Shared
from protocols.text.config import TextDevice
from protocols.text.framing import LINE, NOTHING, Framing, Reply, Want
from protocols.text.line import Line, join, part
from protocols.text.plan import name_of
from protocols.text.point import compiled

_FIRST_REST = 2  # timeouts in a row after which it is silent, and on a shared line left alone for a while
_LONGEST_REST = 10  # times its timeout: a dead instrument takes at most a tenth of the line's time

_log = structlog.get_logger("text")


class Instrument:
    """What a device's queries and commands go through. Implements `line.Listener`."""

    def __init__(self, device: TextDevice, shared: Shared, hear: Callable[[str, int], bool]) -> None:
        self.device = device
        self.framing = Framing(device)
        self.name = f"{device.name or 'the instrument'} at {name_of(device.connection)}{_of(device)}"
        self.dropped: Counter[str] = Counter()
        self.stale = False
        self.identity: str | None = None
        self.errors_found: list[str] = []
        """What the error queue held when nothing had been written: the last few."""
        self.heard = hear
        self._shared = shared
        self._line: Line | None = None
        self._syncs = 0
        self._failures = 0
        self._rest_until = 0.0

    @property
    def line(self) -> Line:
        """The line that it is on.

        Raises:
            DriverError: it is on none.
        """
        if self._line is None:
            raise DriverError("disconnected", f"{self.name} is not connected")
        return self._line

    @property
    def silent(self) -> bool:
        """Did not answer several times in a row: one query a cycle is enough to see whether it does again."""
        return self._failures >= _FIRST_REST

    @property
    def resting(self) -> bool:
        """Left alone for a while, since it did not answer and others are on the line."""
        return self.line.now() < self._rest_until

    async def open(self) -> None:
        """Opens the line, finds out what the instrument is, and sends `init`.

        Raises:
            DriverError: the line cannot be opened; the instrument does not answer, or is another.
        """
        if self._line is None:
            self._line = join(self, self._shared)
        await self._line.open(self.device.connect_timeout)
        self._failures, self._rest_until = 0, 0.0
        self.stale, self._syncs, self.identity = False, 0, None
        async with self.turn():
            await self._introduce()
            await self._drain()
            for command in self.device.init:
                await self.tell(command)
            if self.device.init:
                await self.check("init")

    async def close(self) -> None:
        """Leaves the line, which closes after its last device."""
        line, self._line = self._line, None
        if line is not None:
            await part(line, self, self._shared)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Has the line for one or several commands that nothing comes between."""
        async with self.line.turn:
            yield

    async def ask(self, command: str, want: Want = LINE, timeout: float | None = None) -> tuple[Reply, int]:
        """The answer to a query, and when it came (UTC, ns); within a turn.

        Raises:
            DriverError: no answer, or none that can be it.
        """
        sent = self.framing.command(command)
        if self.stale:
            await self.synchronise()
        return await self._exchange(sent, want, timeout)

    async def tell(
        self, command: str, block: bytes | None = None, want: Want = NOTHING, timeout: float | None = None
    ) -> Reply:
        """Sends a command, and waits for what it is answered with if anything; within a turn.

        Raises:
            DriverError: it could not be sent; `disconnected` or `timeout` where an answer was to come.
        """
        sent = self.framing.command(command, block)
        if self.stale:
            await self.synchronise()
        reply, _ = await self._exchange(sent, want, timeout)
        return reply

    async def _exchange(self, sent: bytes, want: Want, timeout: float | None) -> tuple[Reply, int]:
        line = self.line
        try:
            answered = await line.exchange(self, sent, want, timeout or self.device.timeout)
        except DriverError as error:
            if error.code == "timeout":
                self._failures += 1
                if self.silent and len(line.members) > 1:
                    times = min(2 ** (self._failures - 1), _LONGEST_REST)
                    self._rest_until = line.now() + times * self.device.timeout
            raise
        if not answered[0].empty:
            self._failures, self._rest_until = 0, 0.0
        return answered

    # In step.

    async def _introduce(self) -> None:
        """Learns the identity, twice: the first answer may be a late one to whoever had the line before."""
        identify = self.device.identify
        if identify is None:
            return
        expected = compiled(identify.expect) if identify.expect is not None else None
        sent = self.framing.command(identify.query)
        reply, _ = await self._exchange(sent, LINE, None)
        identity = reply.text
        if expected is not None and not expected.fullmatch(identity):
            text = f"{self.name} is {identity[:200]!r}, and {identify.expect!r} is expected"
            raise DriverError("device-error", text)
        await self._exchange(sent, Want(line=True, accept=lambda line: line == identity), None)
        self.identity = identity

    async def synchronise(self) -> None:
        """Sees to it that what is answered next is answered to what is asked next.

        Instruments answer in order: once the identity comes, all that was asked before is answered or never
        will be. Without `identify` it is the line's silence alone that says so.
        """
        line, device = self.line, self.device
        if device.clear is not None:
            await line.clear(self, device.clear.encode())
        if device.identify is not None and self.identity is not None:
            self._syncs += 1
            known = Want(line=True, accept=lambda text: text == self.identity)
            await self._exchange(self.framing.command(device.identify.query), known, None)
            if self._syncs > 1:
                line.hush(device.silence)  # the answers to the ones before may come too
        self._syncs = 0
        self.stale = False
        await self._drain()

    async def _drain(self) -> None:
        """Empties the error queue: what it holds is of no command that is about to be sent."""
        found = await self._errors()
        self.errors_found = (self.errors_found + found)[-20:]
        if found:
            _log.warning("errors found in the instrument", device=self.device.name, errors=found)

    async def _errors(self) -> list[str]:
        errors = self.device.errors
        if errors is None:
            return []
        found: list[str] = []
        sent, ok = self.framing.command(errors.query), compiled(errors.ok)
        for _ in range(errors.most):
            reply, _ = await self._exchange(sent, LINE, None)
            if ok.fullmatch(reply.text):
                return found
            found.append(reply.text[:200])
        return found

    async def check(self, what: str) -> None:
        """Asks for errors after a command; within the turn that it was sent in.

        Raises:
            DriverError: `device-error` with the instrument's words; or they could not be had.
        """
        if found := await self._errors():
            raise DriverError("device-error", f"{self.name} says to {what}: {'; '.join(found)}")

    def status(self) -> dict[str, object]:
        """What `call status` says of the line and the conversation."""
        line = self._line
        return {
            "line": name_of(self.device.connection),
            "open": line is not None and line.is_open,
            "devices": 0 if line is None else len(line.members),
            "identity": self.identity,
            "in_step": not self.stale,
            "silent_s": None if line is None or not line.heard_ns else (time.time_ns() - line.heard_ns) / 1e9,
            "dropped": dict(self.dropped),
            "errors_found": list(self.errors_found),
        }


def _of(device: TextDevice) -> str:
    return f" ({device.prefix.strip()})" if device.prefix.strip() else ""
