"""The installed command, run as a user runs it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("hilgate")
WAIT_S = 60.0
"""How long a test waits for something that takes a second, on a machine that is busy."""


def environment(**more: str) -> dict[str, str]:
    """The user's environment without settings of ours; wide, so that no sentence is folded."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HILGATE_")}
    return kept | {"COLUMNS": "200", "TERM": "dumb", "PYTHONWARNINGS": "error::ResourceWarning"} | more


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that runs; what it prints is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            line = await self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            said = (await self.process.stderr.read()).decode()
            raise AssertionError(f"it ended with {await self.process.wait()} and said: {said}")
        return line.decode().rstrip("\n")

    async def said(self, words: str) -> str:
        """The first of the next lines of standard error that has these words."""
        assert self.process.stderr is not None
        passed = ""
        async with asyncio.timeout(WAIT_S):
            while line := (await self.process.stderr.readline()).decode():
                if words in line:
                    return line.rstrip("\n")
                passed += line
        raise AssertionError(f"it ended with {await self.process.wait()} and said: {passed}")

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The first of the next JSON lines that is wanted."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = json.loads(await self.line())
                if wanted(found):
                    return found

    async def end(self, number: signal.Signals = signal.SIGTERM) -> Finished:
        """Sends a signal; the command ends by itself."""
        self.process.send_signal(number)
        async with asyncio.timeout(WAIT_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Finished(self.process.returncode, out.decode(), err.decode())


async def hilgate(*words: str, **variables: str) -> Finished:
    """Runs a command to its end."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    try:
        async with asyncio.timeout(WAIT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def running(*words: str) -> AsyncIterator[Running]:
    """Runs a command during the body; it is killed if it is still there after it."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        limit=2**22,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@contextlib.asynccontextmanager
async def watching(broker: str, *bench: str) -> AsyncIterator[Running]:
    """Runs `hilgate watch --json` during the body, subscribed: whatever is sent in the body comes.

    Topics keep nothing (but availability): what is sent before a subscription stands is missed.
    """
    async with running("watch", *bench, "--json", "--broker", broker) as watch:
        await watch.said("hilgate: watching ")
        yield watch
