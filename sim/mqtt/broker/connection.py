"""One client's connection to the broker."""

import asyncio
import struct
import uuid
from typing import TYPE_CHECKING, cast

import msgspec

from sim.mqtt.broker import packets
from sim.mqtt.broker.packets import Connect, Malformed, Reader, packet
from sim.mqtt.broker.session import Session

if TYPE_CHECKING:
    from sim.mqtt.broker.broker import Broker

_LIMIT = 16 * 1024 * 1024
_BACKLOG = 4 * 1024 * 1024
_NOT_AUTHORISED = {True: 0x87, False: 0x05}
_TAKEN_OVER = 0x8E
_NO_SUBSCRIPTION = 0x11
_NO_RECEIVERS = 0x10
_REFUSED = 0x80
_PROTOCOL_ERROR = 0x82


class Connection(asyncio.Protocol):
    """Speaks MQTT with one client; the session outlives it where the client wants so."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._connect: Connect | None = None
        self._session: Session | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()
        """Set once nothing of it is left."""

    # -- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client called."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._transport.set_write_buffer_limits(_BACKLOG)
        self._broker.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Takes what came; a client that breaks the rules is put out."""
        self._buffer += data
        self._wait()
        try:
            for kind, flags, body in packets.split(self._buffer, _LIMIT):
                if self._transport is None or self._transport.is_closing():
                    return
                self._take(kind, flags, body)
        except Malformed:
            self._broker.malformed += 1
            self.close(_PROTOCOL_ERROR)

    def pause_writing(self) -> None:
        """The client does not read: what is for it waits, or at QoS 0 is dropped."""
        if self._session is not None:
            self._session.send = None

    def resume_writing(self) -> None:
        """It reads again."""
        if self._session is not None:
            self._session.send = self._send
            self._session.flush(self._loop.time())

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone; its last will speaks, unless it had said good-bye."""
        self._broker.connections.discard(self)
        self.gone.set()
        if self._watch is not None:
            self._watch.cancel()
        session, connect, self._session = self._session, self._connect, None
        if session is not None and connect is not None:
            self._broker.left(session, connect.will)

    # -- inside ---------------------------------------------------------------------------------

    def close(self, reason: int | None = None) -> None:
        """Ends the connection, with a word where MQTT 5 has one."""
        if self._transport is None or self._transport.is_closing():
            return
        if reason is not None and self._connect is not None and self._connect.v5:
            self._send(packet(packets.DISCONNECT, bytes((reason, 0))))
        self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once, whatever the client has not read."""
        if self._transport is not None:
            self._transport.abort()

    def take_over(self) -> packets.Message | None:
        """Another connection takes the session: this one ends, and its will speaks (MQTT 5.0, 3.1.4)."""
        self._session = None
        self.close(_TAKEN_OVER)
        return self._connect.will if self._connect is not None else None

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _wait(self) -> None:
        """Silence for one and a half times the keep alive ends the connection (MQTT 5.0, 3.1.2.10)."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._connect is not None and self._connect.keep_alive:
            self._watch = self._loop.call_later(self._connect.keep_alive * 1.5, self.close)

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == packets.CONNECT and self._connect is None:
            self._take_connect(body)
            return
        session, connect = self._session, self._connect
        if session is None or connect is None:
            raise Malformed("a packet before CONNECT")
        now = self._loop.time()
        match kind:
            case packets.PUBLISH:
                self._take_publish(flags, body, session, connect)
            case packets.PUBACK | packets.PUBCOMP:
                session.acknowledged(Reader(body).number(2), now)
            case packets.PUBREC:
                reader = Reader(body)
                number = reader.number(2)
                if reader.left and reader.number(1) >= _REFUSED:
                    session.acknowledged(number, now)
                else:
                    session.taken(number)
            case packets.PUBREL:
                number = Reader(body).number(2)
                session.received.discard(number)
                self._send(packet(packets.PUBCOMP, struct.pack(">H", number)))
            case packets.SUBSCRIBE:
                self._take_subscribe(body, session, connect)
            case packets.UNSUBSCRIBE:
                self._take_unsubscribe(body, session, connect)
            case packets.PINGREQ:
                self._send(packet(packets.PINGRESP))
            case packets.DISCONNECT:
                self._take_disconnect(body, connect)
            case _:
                raise Malformed(f"a client does not send packets of type {kind}")

    def _take_connect(self, body: bytes) -> None:
        connect = packets.read_connect(body)
        if not self._broker.lets_in(connect):
            self._send(packet(packets.CONNACK, self._connack(False, _NOT_AUTHORISED[connect.v5], connect)))
            self.close()
            return
        assigned: tuple[packets.Property, ...] = ()
        client_id = connect.client_id
        if not client_id:
            if not connect.v5 and not connect.clean:
                self._send(packet(packets.CONNACK, b"\0\2"))
                self.close()
                return
            client_id = f"client-{uuid.uuid4().hex[:12]}"
            assigned = ((packets.ASSIGNED_ID, client_id.encode()),) if connect.v5 else ()
        self._connect = connect
        self._session, present = self._broker.joined(self, client_id, connect)
        self._session.attach(connect, self._send)
        self._send(packet(packets.CONNACK, self._connack(present, 0, connect, assigned)))
        self._session.resume(self._loop.time())
        self._wait()

    @staticmethod
    def _connack(
        present: bool, reason: int, connect: Connect, properties: tuple[packets.Property, ...] = ()
    ) -> bytes:
        return bytes((present, reason)) + (packets.write_properties(properties) if connect.v5 else b"")

    def _take_publish(self, flags: int, body: bytes, session: Session, connect: Connect) -> None:
        now = self._loop.time()
        message, number = packets.read_publish(flags, body, connect.v5, now)
        known = message.qos == 2 and number in session.received
        reached = 0 if known else self._broker.router.route(message, session, now)
        if message.qos == 0:
            return
        reason = b"" if reached or known or not connect.v5 else bytes((_NO_RECEIVERS,))
        if message.qos == 2:
            session.received.add(number)
        answer = packets.PUBREC if message.qos == 2 else packets.PUBACK
        self._send(packet(answer, struct.pack(">H", number) + reason))

    def _take_subscribe(self, body: bytes, session: Session, connect: Connect) -> None:
        number, wanted = packets.read_subscribe(body, connect.v5)
        now, reasons = self._loop.time(), bytearray()
        kept: list[packets.Message] = []
        for one in wanted:
            try:
                kept += self._broker.router.subscribe(session, one, now)
                reasons.append(one.qos)
            except Malformed:
                reasons.append(_REFUSED)
        properties = b"\0" if connect.v5 else b""
        self._send(packet(packets.SUBACK, struct.pack(">H", number) + properties + bytes(reasons)))
        for message in kept:
            session.give(message, now)

    def _take_unsubscribe(self, body: bytes, session: Session, connect: Connect) -> None:
        number, filters = packets.read_unsubscribe(body, connect.v5)
        found = [self._broker.router.unsubscribe(session, name) for name in filters]
        reasons = bytes(0 if there else _NO_SUBSCRIPTION for there in found)
        answer = struct.pack(">H", number) + (b"\0" + reasons if connect.v5 else b"")
        self._send(packet(packets.UNSUBACK, answer))

    def _take_disconnect(self, body: bytes, connect: Connect) -> None:
        """Good-bye; with reason 4 (MQTT 5.0, 3.14.2.1) the will speaks all the same."""
        if body[:1] != b"\x04":
            self._connect = msgspec.structs.replace(connect, will=None)
        self.close()
