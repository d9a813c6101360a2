"""Runs a program to its end, or ends it with all that it started."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from protocols.base import DriverError

_KEPT_BYTES = 2000
"""What is kept of a program's output: its end."""
_DRAIN_S = 0.2
"""How long output is awaited after a program ended whose children still hold it open."""


class _Output(asyncio.Protocol):
    def __init__(self) -> None:
        self.end = b""
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.end = (self.end + data)[-_KEPT_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    @property
    def said(self) -> str:
        """The last lines in one, behind a colon."""
        lines = self.end.decode(errors="replace").split("\n")
        text = " | ".join(line.strip() for line in lines if line.strip())
        return f": {text}" if text else ""


async def run(command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float) -> None:
    """Runs a program, without a shell, in a process group of its own, which is killed when time is over.

    Args:
        command: The program and its arguments.
        environment: All of its environment.
        folder: Where it runs.
        timeout: Seconds that it may take.

    Raises:
        DriverError: it could not be started, did not end in time, or ended with another status than 0.
    """
    async with _listening() as (output, end):
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=end,
                stderr=end,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            raise DriverError("device-error", f"{command[0]} could not be started: {error}") from None
        finally:
            end.close()
        try:
            async with asyncio.timeout(timeout):
                status = await process.wait()
        except TimeoutError:
            text = f"{command[0]} did not end within {timeout:g} s and was killed{output.said}"
            raise DriverError("timeout", text) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it ended this very moment
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await output.closed.wait()
        if status:
            raise DriverError("device-error", f"{command[0]} ended with status {status}{output.said}")


@contextlib.asynccontextmanager
async def _listening() -> AsyncIterator[tuple[_Output, IO[bytes]]]:
    """What a program says, and the file to which it says it.

    A pipe of our own: asyncio would wait for the end of all that hold its pipes, not of the program.
    """
    reading, writing = os.pipe()
    output, loop = _Output(), asyncio.get_running_loop()
    with os.fdopen(writing, "wb") as end:
        transport, _ = await loop.connect_read_pipe(lambda: output, os.fdopen(reading, "rb", buffering=0))
        try:
            yield output, end
        finally:
            transport.close()
