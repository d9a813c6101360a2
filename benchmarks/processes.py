"""Processes under measurement: the installed `hilgate`, and what the kernel says it used."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

HILGATE = str(Path(sys.executable).with_name("hilgate"))
_TICK = os.sysconf("SC_CLK_TCK")


class Used(NamedTuple):
    """What a process has used so far: CPU seconds, and its largest resident memory in MB."""

    cpu_s: float
    peak_mb: float


def used(pid: int) -> Used:
    """Reads proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kb = int(status.partition("VmHWM:")[2].split()[0])
    return Used((int(fields[11]) + int(fields[12])) / _TICK, peak_kb / 1024)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def hilgate(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs the installed command; leaving ends it with SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        HILGATE, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 15)


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[str]:
    """The embedded broker in a process of its own; its URL."""
    port = free_port()
    async with hilgate("broker", "--listen", f"127.0.0.1:{port}"):
        await until_open(port)
        yield f"amqp://127.0.0.1:{port}"


async def until_open(port: int) -> None:
    """Returns when somebody listens on a port of loopback."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
