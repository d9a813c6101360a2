"""A proxy before an OPC UA server without security that knows the server's answers, and can change them."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress

from asyncua.ua.object_ids import ObjectIdNames
from asyncua.ua.status_codes import StatusCodes

Meddle = Callable[[str, bytes], bytes | None]
"""Given an answer's name and its chunk: what is sent instead; nothing for silence, None ends the link."""


class Meddler:
    """Passes chunks on; those of the server as `meddle` would have them."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.meddle: Meddle = lambda _, chunk: chunk
        self.passed: list[str] = []
        self.url = ""

    async def __aenter__(self) -> "Meddler":
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.url = f"opc.tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._to)
            both = (self._up(reader, there), self._down(back, writer))
            pumps = [asyncio.create_task(one) for one in both]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._links.discard(task)
            for one in (writer, there):
                if one is not None:
                    one.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await reader.readexactly(8)
                chunk = header + await reader.readexactly(int.from_bytes(header[4:], "little") - 8)
                name = answer_of(chunk)
                self.passed.append(name)
                instead = self.meddle(name, chunk)
                if instead is None:
                    return
                writer.write(instead)
                await writer.drain()


def answer_of(chunk: bytes) -> str:
    """The name of what a chunk has in it: ACK, OPN, or of a service, such as `Read`."""
    if chunk[:3] != b"MSG":
        return chunk[:3].decode("ascii")
    (number,) = struct.unpack_from("<H", chunk, 26)  # after two bytes that say that a node id is a short one
    return ObjectIdNames[number].removesuffix("Response_Encoding_DefaultBinary")


def sized(chunk: bytes) -> bytes:
    """A chunk whose header says how long it is."""
    return chunk[:4] + len(chunk).to_bytes(4, "little") + chunk[8:]


def cut_short(chunk: bytes) -> bytes:
    """An answer whose end is missing, so that it cannot be decoded; its own header is whole."""
    return sized(chunk[: 12 + 4 + 8 + 4 + 24]) if chunk[:3] == b"MSG" else sized(chunk[:-3])


def aborted(chunk: bytes) -> bytes:
    """That there will be no answer: its message is given up (OPC 10000-6, MessageChunk)."""
    return sized(b"MSGA" + chunk[4:24] + struct.pack("<Ii", StatusCodes.BadResponseTooLarge, -1))


def endless(chunk: bytes, count: int, size: int) -> bytes:
    """Chunks of one message, of which none is the last."""
    first = struct.unpack_from("<I", chunk, 16)[0] if chunk[:3] == b"MSG" else 0
    made = []
    for place in range(count):
        number = struct.pack("<I", first + place)
        made.append(sized(b"MSGC" + chunk[4:16] + number + chunk[20:24] + bytes(size)))
    return b"".join(made)
