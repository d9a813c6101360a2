"""opendnp3 as a peer: its outstation and its master as programs, driven from a test.

In processes of their own, because an exception in one of its callbacks, or a fault of it, ends the process.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import platform
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

GET = "pip install 'hilgate[opendnp3]' (x86_64 only)"
PATIENCE_S = 30.0
T = TypeVar("T")
Line = Mapping[str, Any]
"""A channel as the programs take it: see opendnp3_lines.channel."""


def why_missing() -> str | None:
    """Why opendnp3 cannot run here, or None."""
    return None if importlib.util.find_spec("opendnp3") else "not installed"


def demand(need: Callable[[str, str | None, str], None]) -> None:
    """Skips or fails the test where opendnp3 is missing; where there is no build of it, it only skips."""
    machine = platform.machine()
    if machine != "x86_64" and why_missing():
        pytest.skip(f"opendnp3 has no build for {machine}, only for x86_64")
    need("opendnp3", why_missing(), GET)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Peer:
    """A running program: what it said, and orders to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._news = asyncio.Event()
        self.said: list[dict[str, Any]] = []

    async def listen(self) -> None:
        """Reads what the program says until it ends."""
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            line = json.loads(text)
            assert line["event"] != "fault", line
            self.said.append(line)
            self._news.set()

    async def do(self, action: str, **fields: Any) -> Any:
        """Has something done, waits for its end, and returns what came of it."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": action, **fields}).encode() + b"\n")
        done = await self.until(lambda: [one for one in self.of("done") if one["id"] == number], action)
        assert "error" not in done[0], done[0]
        return done[0]["result"]

    def of(self, event: str) -> list[dict[str, Any]]:
        """What it said of one kind."""
        return [line for line in self.said if line["event"] == event]

    async def until(self, found: Callable[[], T], what: str) -> T:
        """Waits until something is true of what was said, and returns it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (result := found()):
                    self._news.clear()
                    await self._news.wait()
                return result
        except TimeoutError:
            raise AssertionError(f"waited for {what}; opendnp3 said last: {self.said[-6:]}") from None

    async def until_said(self, event: str, nth: int = 1, /, **fields: Any) -> dict[str, Any]:
        """Waits for the `nth` line of a kind that has these fields."""

        def found() -> list[dict[str, Any]]:
            mine = [line for line in self.of(event) if fields.items() <= line.items()]
            return mine[nth - 1 :]

        return (await self.until(found, f"{event} {fields}"))[0]

    # What a master heard.

    def values(self, group: int, since: int = 0) -> list[list[Any]]:
        """Objects of a group in the order they came: index, value, flags, time, its quality."""
        return [
            value
            for line in self.said[since:]
            if line["event"] == "values" and line["group"] == group
            for value in line["values"]
        ]


@contextlib.asynccontextmanager
async def peer(program: Literal["outstation", "master"], line: Line, **options: Any) -> AsyncIterator[Peer]:
    """Runs a program, enabled."""
    path = Path(__file__).with_name(f"opendnp3_{program}.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(path), json.dumps({"line": dict(line), **options}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=16 * 1024 * 1024,
    )  # fmt: skip
    one = Peer(process)
    listening = asyncio.create_task(one.listen(), name=f"opendnp3 {program}")
    try:
        assert await one.do("enable")
        yield one
        process.stdin.close()  # type: ignore[union-attr]
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
            await listening
    finally:
        await _ended(process)
        await asyncio.wait([listening])


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def serial_pair(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Two pseudo terminals that are joined like by a null modem cable."""
    ends = folder / "master", folder / "outstation"
    process = await asyncio.create_subprocess_exec("socat", *(f"pty,raw,echo=0,link={end}" for end in ends))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not all(end.exists() for end in ends):
                await asyncio.sleep(0.01)
        yield str(ends[0]), str(ends[1])
    finally:
        await _ended(process)
