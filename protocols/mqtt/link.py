"""paho's client without its socket and threads: an asyncio transport feeds it.

What paho keeps to itself is overridden in three places, for want of another way: where its bytes come from,
when a QoS 2 message is acknowledged (paho does as soon as it comes), and what a refusal of one says.
Imported only when a device is made.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from paho.mqtt import _packet
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

_PACKETS = 100
"""Packets that are taken before others have their turn on the loop."""
_REFUSED = 0x80


class PahoClient(paho.Client):
    """paho's state machine over a `Stream`; `taken` gets each PUBLISH; `ack` answers it."""

    def __init__(
        self,
        client_id: str,
        version: MQTTProtocolVersion,
        stream: "Stream",
        taken: Callable[[_packet.PublishPacket], None],
        received: set[int],
        **options: Any,
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
            **options,
        )
        self._stream = stream
        self._taken = taken
        self._received = received  # QoS 2 messages of the session that were taken and are not yet complete

    def ack(self, mid: int, qos: int) -> MQTTErrorCode:
        """Tells the broker that it may forget the message (MQTT 5.0, 4.3.2 and 4.3.3, method B)."""
        return self._send_pubrec(mid) if qos == 2 else self._send_puback(mid)

    def _create_socket(self) -> "Stream":
        return self._stream

    def _handle_publish(self) -> MQTTErrorCode:
        packet = _packet.decode_publish(self._in_packet["command"], self._in_packet["packet"], self._protocol)
        if packet.qos == 3:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if packet.qos == 2:
            if packet.mid in self._received:
                return self._send_pubrec(packet.mid)
            self._received.add(packet.mid)
        self._taken(packet)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubrel(self) -> MQTTErrorCode:
        packet = _packet.decode_pubrel(self._in_packet["command"], self._in_packet["packet"], self._protocol)
        self._received.discard(packet.mid)
        return self._send_pubcomp(packet.mid)

    def _handle_pubrec(self) -> MQTTErrorCode:
        packet = _packet.decode_pubrec(self._in_packet["command"], self._in_packet["packet"], self._protocol)
        if packet.reason.value >= _REFUSED and packet.mid in self._out_messages:
            return self._do_on_publish(packet.mid, packet.reason, packet.properties)
        return super()._handle_pubrec()


class Stream(asyncio.Protocol):
    """A connection's bytes, in the shape of the socket that paho wants."""

    def __init__(self, largest: int) -> None:
        self.client: PahoClient | None = None
        self.ended = asyncio.Event()
        """Set once the connection is gone."""
        self.reason = ""
        """Why, where more is known than that it was closed."""
        self._largest = largest
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._at = 0
        self._eof = False
        self._paused = False
        self._writes = False

    # -- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Takes what came."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._eof = True
        if error is not None and not self.reason:
            self.reason = str(error)
        self.ended.set()
        self._pump()

    def pause_writing(self) -> None:
        """The broker does not read: nothing is read from it either, or the answers to it would pile up."""
        self._paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self._write()
        self._pump()

    # -- what paho takes for a socket -----------------------------------------------------------

    def recv(self, buffer_size: int) -> bytes:
        """Up to so many bytes; none where the connection is gone."""
        if buffer_size > self._largest:
            self.reason = f"a packet of {buffer_size} bytes is larger than max_payload can bear"
            raise ConnectionAbortedError(self.reason)
        if self._at >= len(self._data):
            if self._eof:
                return b""
            raise BlockingIOError
        start = self._at
        self._at = start + buffer_size
        return self._data[start : self._at]

    def send(self, buffer: bytes | bytearray) -> int:
        """Sends; nothing more is taken while the broker does not read."""
        if self._paused:
            raise BlockingIOError
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(bytes(buffer))
        return len(buffer)

    def close(self) -> None:
        """Closes once what was sent is out; again it does nothing, or Python 3.11.2's TLS could not abort."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """It has none: asyncio waits for it, not paho."""
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    # -- inside ---------------------------------------------------------------------------------

    def register_write(self, *_: object) -> None:
        """paho has something to send: it goes out once whatever is at work is done, all of it together."""
        if not self._writes:
            self._writes = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._writes = False
        if self.client is not None and not self._paused:
            self.client.loop_write()

    def _pump(self) -> None:
        client, transport = self.client, self._transport
        if client is None or transport is None:
            return
        for _ in range(_PACKETS):
            if self._paused and not self._eof:
                transport.pause_reading()
                return
            if self._at >= len(self._data) and not self._eof:
                break
            try:
                code = client.loop_read()
            except Exception as error:  # noqa: BLE001  # paho's parsers raise many kinds of it for hostile packets
                self.reason = f"it broke the protocol: {type(error).__name__}: {error}"
                self.abort()
                return
            if code:
                self.abort()
                return
        if self._at >= len(self._data):
            self._data, self._at = b"", 0
            transport.resume_reading()
        else:
            transport.pause_reading()
            self._loop.call_soon(self._pump)
