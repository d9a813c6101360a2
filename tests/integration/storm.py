"""Storms of malformed messages: what is sent, to whom, and whether it left a trace.

What went over a line between good peers is recorded, and played to one of them again with damage. Seeded: the
same storm at each run. `HILGATE_STORM=100000` has every end get so many; else each test says how many.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

PATIENCE_S = 60.0
ASKING_S = 0.02
"""How long a hostile server waits for what a client asks next."""
MOST = 65536
"""Bytes of a damaged message, at most."""
ENOUGH_S = 10.0
"""Seconds after which a storm whose length nobody chose ends, so that no machine is too slow for it."""
LEAST = 0.05
"""What part of it is sent however long that takes."""
PARTS = (0.4, 0.6, 0.8, 1.0)
"""After which parts of a storm memory is looked at."""
KEPT_BLOCKS, KEPT_BYTES = 2000, 4 * 1024 * 1024
"""What each part may leave behind if every one does: Python's blocks, bytes of the process.

What grows for each message grows in each part; what is loaded or remembered once, in one.
"""
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Turns = list[tuple[bool, bytes]]
"""What was said on a line: whether by who called, and the bytes."""


def damaged(chance: random.Random, message: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A message with a few of the faults that parsers stumble over."""
    data = bytearray(message)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 2, 4, 8, 64)))
        match chance.randrange(10):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(data):
                data[at] = chance.choice(EDGES) & 0xFF
            case 3:
                del data[at:]
            case 4:
                data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 16, 200)))
            case 5:
                del data[at:end]
            case 6:
                data[at:at] = data[at:end] * chance.choice((1, 2, 50))
            case 7 if others:
                other = chance.choice(others)
                data[at:] = other[chance.randrange(len(other) + 1) :]
            case 8:  # a field of a length or a count
                size = chance.choice((1, 2, 4))
                order = chance.choice(("big", "little"))
                value = chance.choice(EDGES) & (1 << 8 * size) - 1
                data[at : at + size] = value.to_bytes(size, "big" if order == "big" else "little")
            case 9:
                data[:] = chance.randbytes(chance.choice((1, 7, 64, 300)))
        del data[MOST:]
    return bytes(data)


class Storm:
    """One end's storm: how many messages, what they are, and what they leave behind."""

    def __init__(self, end: str, in_ci: int) -> None:
        self.end = end
        chosen = os.environ.get("HILGATE_STORM")
        self.count = int(chosen or in_ci)
        self._enough = float("inf") if chosen else ENOUGH_S
        self.chance = random.Random(end)
        self.sent = 0
        self.refused = 0
        """How many of them, or of their connections, were seen to be refused; the test counts."""
        self.logged = 0
        self.failures: list[str] = []
        self._marks: list[tuple[int, int]] = []
        self._begun = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether it is at its end; looks at the memory on the way."""
        part = self.sent / self.count
        if part >= LEAST:
            part = max(part, (time.monotonic() - self._begun) / self._enough)
        while len(self._marks) < len(PARTS) and part >= PARTS[len(self._marks)]:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self._marks.append((sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE")))
        return len(self._marks) == len(PARTS)

    def some(self, messages: Sequence[bytes], most: int = 8) -> list[bytes]:
        """A few damaged messages, which count as sent; rarely a good one is among them."""
        wanted = min(self.chance.choice((1, 1, 2, most, most)), max(1, self.count - self.sent))
        self.sent += wanted
        return [damaged(self.chance, self.chance.choice(messages), messages) for _ in range(wanted)]

    def judge(self) -> None:
        """Holds that it went by without a trace, and writes its figures where they are wanted."""
        assert self.over
        blocks, sizes = zip(*self._marks, strict=True)
        figures = {
            "end": self.end,
            "messages": self.sent,
            "refused": self.refused,
            "log lines": self.logged,
            "seconds": round(time.monotonic() - self._begun, 1),
            "MiB": [round(size / 2**20, 1) for size in sizes],
            "blocks": blocks,
        }
        print(figures)
        if report := os.environ.get("HILGATE_STORM_REPORT"):
            with Path(report).open("a") as file:
                file.write(json.dumps(figures) + "\n")
        assert not self.failures, self.failures[:3]
        assert min(after - before for before, after in itertools.pairwise(blocks)) < KEPT_BLOCKS, blocks
        assert min(after - before for before, after in itertools.pairwise(sizes)) < KEPT_BYTES, sizes


@contextlib.contextmanager
def quiet(storm: Storm) -> Iterator[None]:
    """Counts log lines in place of keeping them, as pytest would; takes what nobody caught as a failure."""

    def count(*_: Any) -> Any:
        storm.logged += 1
        raise structlog.DropEvent

    def no_record(record: logging.LogRecord) -> bool:
        storm.logged += 1
        if (record.levelno >= logging.ERROR and record.name == "asyncio") or (
            record.exc_info and not record.name.startswith("asyncua")
        ):
            storm.failures.append(record.getMessage())
        return False

    before = structlog.get_config()
    structlog.configure(processors=[count])
    handlers, root = logging.getLogger().handlers[:], logging.getLogger()
    for handler in handlers:
        handler.addFilter(no_record)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None  # what other tests left is not this one's
    gc.collect()
    gc.freeze()  # nor looked at again and again
    sys.unraisablehook = lambda what: storm.failures.append(repr(what))
    try:
        yield
        gc.collect()
    finally:
        gc.unfreeze()
        sys.unraisablehook = hook
        for handler in handlers:
            handler.removeFilter(no_record)
        root.setLevel(root.level)
        structlog.configure(**before)


@contextlib.asynccontextmanager
async def storming(end: str, in_ci: int) -> AsyncIterator[Storm]:
    """A storm at one end, judged when it is over."""
    storm = Storm(end, in_ci)
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: storm.failures.append(repr(context)))
    try:
        with quiet(storm):
            yield storm
            await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
    storm.judge()


async def left(writer: asyncio.StreamWriter) -> None:
    """Ends a connection, also one whose other end takes nothing any more."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[int]:
    """A port of loopback on which `serve` has each connection; at the end none is left.

    asyncio's own server may still be accepting when it is closed, and calls that an error.
    """
    loop = asyncio.get_running_loop()
    lines: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    over = False

    async def accept() -> None:
        while True:
            line, _ = await loop.sock_accept(listener)
            if over:
                line.close()
                return
            reader, writer = await asyncio.open_connection(sock=line)
            task = asyncio.create_task(serve(reader, writer))
            lines[task] = writer
            task.add_done_callback(lines.pop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(accept())
        try:
            yield listener.getsockname()[1]
        finally:
            over = True
            _, writer = await asyncio.open_connection(*listener.getsockname())
            await accepting
            await left(writer)
            if lines:
                await asyncio.wait(lines, timeout=PATIENCE_S)
            for writer in lines.values():
                writer.transport.abort()
            if lines:
                await asyncio.wait(lines, timeout=PATIENCE_S)


@contextlib.asynccontextmanager
async def recording(port: int) -> AsyncIterator[tuple[int, Turns]]:
    """A way to a server on which what is said is kept: its port, and the turns."""
    turns: Turns = []

    async def pump(up: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(MOST):
                turns.append((up, data))
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(True, reader, forth), pump(False, back, writer))

    async with listening(serve) as own:
        yield own, turns


async def at_server(storm: Storm, port: int, said: Sequence[bytes]) -> None:
    """Calls a server again and again: some of what a good client said, then damaged messages."""
    while not storm.over:
        good = said[: storm.chance.randrange(len(said) + 1)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(b"".join((*good, *storm.some(said))))
                    writer.write_eof()
                    while await reader.read(MOST):
                        pass
                finally:
                    await left(writer)
        except ConnectionError:
            storm.refused += 1


async def at_client(
    storm: Storm, turns: Turns, live: Callable[[int], Awaitable[None]], most: int = 8
) -> None:
    """Is the server that a client calls again and again: plays what a good one said, then damaged messages.

    `live` calls the port, and returns when the connection is lost. `most`: messages of one connection.
    """
    parts = [
        (up, b"".join(data for _, data in part)) for up, part in itertools.groupby(turns, lambda one: one[0])
    ]
    answers = [data for up, data in parts if not up]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers[: storm.chance.randrange(len(answers) + 1)]:
                with contextlib.suppress(
                    TimeoutError
                ):  # it asks something else than was recorded, or nothing
                    async with asyncio.timeout(ASKING_S):
                        await reader.read(MOST)
                writer.write(answer)
            writer.write(b"".join(storm.some(answers, most)))
            writer.write_eof()
            while await reader.read(MOST):
                pass
        except OSError:
            pass  # the client had enough
        finally:
            await left(writer)

    async with listening(serve) as port:
        while not storm.over:
            async with asyncio.timeout(PATIENCE_S):
                await live(port)
