"""can-utils (candump, cansend, cangen, canplayer) at work in a test, and what they say of a bus."""

import asyncio
import contextlib
import re
import shutil
import struct
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import NamedTuple

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, REMOTE, Frame

PATIENCE_S = 30.0
_BUFFER = 32 * 1024 * 1024
_LINE = re.compile(
    r"\((\d+)\.(\d{6})\) (\S+) ([0-9A-F]{3}|[0-9A-F]{8})#"
    r"(?:#(?P<flags>[0-9A-F])(?P<fd>(?:[0-9A-F]{2}){0,64})|R(?P<length>\d?)|(?P<data>(?:[0-9A-F]{2}){0,8}))"
    r"(?: [RT])?"  # -x
)
_FD_FLAGS = BRS | ESI


class Logged(NamedTuple):
    """One line of candump -L."""

    channel: str
    frame: Frame


def why_missing() -> str | None:
    missing = [name for name in ("candump", "cansend", "cangen", "canplayer") if not shutil.which(name)]
    return f"no command {', '.join(missing)}" if missing else None


def parse_line(line: str) -> Logged:
    """A line of candump -L, also with -x; nothing else passes."""
    match = _LINE.fullmatch(line)
    assert match, f"no line of candump -L: {line!r}"
    time_ns = (int(match[1]) * 1_000_000 + int(match[2])) * 1000
    can_id = int(match[4], 16)
    if len(match[4]) == 8 and not can_id & ERROR:
        can_id |= EXTENDED
    if match["flags"] is not None:
        flags = FDF | int(match["flags"], 16) & _FD_FLAGS
        return Logged(match[3], Frame(time_ns, can_id, bytes.fromhex(match["fd"]), flags))
    if match["length"] is not None:
        return Logged(match[3], Frame(time_ns, can_id | REMOTE, bytes(int(match["length"] or "0"))))
    return Logged(match[3], Frame(time_ns, can_id, bytes.fromhex(match["data"])))


def pcap_frames(body: bytes) -> list[Frame]:
    """The frames of a pcap file with nanoseconds and LINKTYPE_CAN_SOCKETCAN; nothing else passes."""
    order = ">" if body[:4] == b"\xa1\xb2\x3c\x4d" else "<"
    magic, major, minor, _, _, most, link = struct.unpack_from(order + "IHHiIII", body)
    assert (magic, major, minor, link) == (0xA1B23C4D, 2, 4, 227)
    frames, at = [], 24
    while at < len(body):
        seconds, nanoseconds, size, whole = struct.unpack_from(order + "IIII", body, at)
        assert size == whole <= most
        assert nanoseconds < 1_000_000_000
        packet = body[at + 16 : at + 16 + size]
        assert len(packet) == size
        can_id, length, flags = struct.unpack_from(">IBB", packet)
        assert size == (72 if flags & FDF else 16)
        assert not any(packet[8 + length :])
        frames.append(
            Frame(
                seconds * 1_000_000_000 + nanoseconds,
                can_id,
                packet[8 : 8 + length],
                flags & (FDF | _FD_FLAGS),
            )
        )
        at += 16 + size
    return frames


def content(frames: Collection[Frame]) -> list[tuple[int, bytes, int]]:
    """Frames without their times."""
    return [(frame.can_id, frame.data, frame.flags) for frame in frames]


async def run(*command: str, timeout: float = PATIENCE_S) -> str:
    """Runs a command to its end, which has to be a good one, and returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{command} ended with {process.returncode}: {err.decode()}"
    return out.decode()


async def cansend(channel: str, *frames: str) -> None:
    """Sends frames, written as cansend takes them, one after the other."""
    for frame in frames:
        await run("cansend", channel, frame)


def mixed(channel: str, count: int, gap_ms: int = 0) -> list[str]:
    """The command for frames of all kinds; with no gap as fast as the interface takes them."""
    return ["cangen", channel, "-g", str(gap_ms), "-m", "-p", "10", "-n", str(count)]


def listeners(channel: str) -> int:
    """How many raw sockets get everything on an interface (kernel documentation, networking/can)."""
    lines = Path("/proc/net/can/rcvlist_all").read_text().splitlines()
    return sum(line.split()[0] == channel and line.endswith("raw") for line in lines if line.strip())


class Candump:
    """A running candump, and the frames it has seen."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.lines: list[str] = []
        self.frames: list[Frame] = []
        self._news = asyncio.Event()

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Takes its lines until it ends; a line that says of dropped frames is a failure like any other."""
        while line := await stream.readline():
            self.lines.append(line.decode())
            logged = parse_line(self.lines[-1].rstrip("\n"))
            assert logged.channel == self.channel
            self.frames.append(logged.frame)
            self._news.set()

    async def until(self, found: Callable[[list[Frame]], object]) -> None:
        """Waits until something is true of the frames."""
        async with asyncio.timeout(PATIENCE_S):
            while not found(self.frames):
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def candump(channel: str) -> AsyncIterator[Candump]:
    """Runs candump on an interface, and begins when it listens."""
    before = listeners(channel)
    process = await asyncio.create_subprocess_exec(
        *("candump", "-L", "-d", "-r", str(_BUFFER), channel),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    one = Candump(channel)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(one.read(process.stdout))
            async with asyncio.timeout(PATIENCE_S):
                while listeners(channel) == before:
                    await asyncio.sleep(0.005)
            yield one
            process.terminate()
            await reading
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
