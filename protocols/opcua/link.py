"""The connection of asyncua's client, held to what a server may send. Importing this puts it in its place.

asyncua takes messages of any size in any number of chunks, and says of what it cannot read only in its log
that it closes the connection.
"""

import asyncio
import struct
from typing import Any, Final

from asyncua import ua
from asyncua.client import ua_client
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import header_from_binary, struct_from_binary, uatcp_to_binary
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.opcua.errors import Unsound

MOST_CHUNK: Final = 65535
"""Bytes of one chunk, either way."""
_LEAST_CHUNK: Final = 8192
"""Bytes of a chunk that every server takes (OPC 10000-6, OPC UA Connection Protocol, Hello)."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of one message."""
MOST_CHUNKS: Final = MOST_BYTES // _LEAST_CHUNK
"""Chunks of one message: those of the largest, where a server's buffers are as small as they may be."""
_HEADER: Final = struct.Struct("<3sxI")


class Link(ua_client.UASocketProtocol):
    """One connection. It is given up for what may not be sent; requests that wait end with `Unsound`."""

    _fault: Exception | None = None

    async def send_hello(self, url: str, max_messagesize: int = 0, max_chunkcount: int = 0) -> ua.Acknowledge:
        """Says what is taken here, and keeps to what the server takes, which asyncua does not."""
        hello = ua.Hello(
            ReceiveBufferSize=ua.UInt32(MOST_CHUNK),
            SendBufferSize=ua.UInt32(MOST_CHUNK),
            MaxMessageSize=ua.UInt32(MOST_BYTES),
            MaxChunkCount=ua.UInt32(MOST_CHUNKS),
            EndpointUrl=ua.String(url),
        )
        if self.transport is None:
            raise ConnectionError("the connection was lost")
        answer = self._callbackmap[0] = asyncio.get_running_loop().create_future()
        kind: Any = ua.MessageType.Hello  # asyncua says that it is a MessageType, and it is bytes
        self.transport.write(uatcp_to_binary(kind, hello))
        async with asyncio.timeout(self.timeout):
            taken = await answer
        if not isinstance(taken, ua.Acknowledge):
            raise Unsound("answered something else to Hello")
        size = min(max(taken.ReceiveBufferSize, _LEAST_CHUNK), MOST_CHUNK)
        self._connection._limits = TransportLimits(MOST_CHUNK, size, 0, 0)
        return taken

    async def send_request(self, *args: Any, **more: Any) -> Any:
        """Ends as cancelled, where asyncua ends by a subclass of that, which task groups take for a fault."""
        try:
            return await super().send_request(*args, **more)
        except asyncio.CancelledError:
            raise asyncio.CancelledError from None

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what waits, with what was wrong."""
        super().connection_lost(self._fault or exc)

    def _process_received_data(self, data: bytes) -> None:
        place = 0
        try:
            while len(data) - place >= _HEADER.size:
                kind, size = _HEADER.unpack_from(data, place)
                if not _HEADER.size <= size <= MOST_CHUNK:
                    raise Unsound(f"sent a chunk that says that it has {size} bytes")
                if len(data) - place < size:
                    break
                self._take(kind, Buffer(data, place, size))
                place += size
        except UaStatusCodeError as error:
            self._give_up(error)
        except Unsound as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the server's bytes made it
            self._give_up(Unsound(f"sent what cannot be read: {type(error).__name__}: {error}"[:200]))
        else:
            self.receive_buffer = data[place:]

    def _take(self, kind: bytes, chunk: Buffer) -> None:
        connection = self._connection
        message = connection.receive_from_header_and_body(header_from_binary(chunk), chunk)
        if connection._incoming_size > MOST_BYTES or len(connection._incoming_parts) > MOST_CHUNKS:
            raise Unsound(f"sent a message of more than {MOST_BYTES} bytes or {MOST_CHUNKS} chunks")
        if kind == ua.MessageType.SecureOpen:
            self._opened(message)
        self._process_received_message(message)

    def _opened(self, message: Any) -> None:
        """Has the channel's keys before the answer is known: asyncua has them after, and may then not."""
        asked = self._open_secure_channel_exchange
        if message is None or not isinstance(asked, ua.OpenSecureChannelParameters):
            raise Unsound("opened a channel that was not asked for")
        answer = struct_from_binary(ua.OpenSecureChannelResponse, message.body())
        answer.ResponseHeader.ServiceResult.check()
        self._open_secure_channel_exchange = answer
        self._connection.set_channel(answer.Parameters, asked.RequestType, asked.ClientNonce)

    def _give_up(self, fault: Exception) -> None:
        self._fault = fault
        if self.transport is not None:
            self.transport.abort()


ua_client.UASocketProtocol = Link  # type: ignore[misc]  # there is no other way in
