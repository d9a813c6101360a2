"""A client of an MQTT broker on the event loop. I/O only; imported only when a device is made."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from paho.mqtt import _packet
from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from protocols import transport
from protocols.base import DriverError
from protocols.mqtt.config import Connection, Tls
from protocols.mqtt.link import PahoClient, Stream
from protocols.mqtt.message import Message, Publication, Subscription
from protocols.mqtt.plan import matches
from protocols.mqtt.properties import empty, properties_of
from protocols.mqtt.reasons import words
from protocols.tls import UnusableFile, aside, read_secret
from protocols.units import format_duration

_VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_IN_FLIGHT = 20
"""Publishes that are on their way at once, where the broker does not want fewer."""
_FILTERS = 100
"""Topic filters in one SUBSCRIBE."""
_ROOM: Final = 16 * 1024 * 1024
"""What a packet may have beyond `max_payload`: payloads between are taken, counted and not read."""
_MISC_S = 1.0
_KEEP_ALIVE = 0x8D
_PROTOCOL_ERROR = 0x82
_UNKNOWN = "whether it was taken is not known, and it is not repeated"
_T = TypeVar("_T")


class Client:
    """One connection to a broker: opened once, and never again after it was lost.

    `take` gets each message as it comes, and must not raise. Where `manual` is true the broker keeps
    messages of QoS 1 and 2 until `acknowledge`; else they are acknowledged once `take` has returned.
    `received` outlives the client where a kept session does: it tells QoS 2 messages that came before.
    """

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        take: Callable[[Message], None],
        *,
        timeout: float = 5.0,
        connect_timeout: float = 5.0,
        max_payload: int = 1024 * 1024,
        will: Publication | None = None,
        manual: bool = False,
        lost: Callable[[int, str], None] = lambda count, reason: None,
        received: set[int] | None = None,
        folder: Path = Path(),
    ) -> None:
        self.name = f"broker {connection.host}:{connection.port}"
        self.client_id = client_id
        self.session_present = False
        """Whether the broker had kept our session."""
        self.granted: dict[str, int | str] = {}
        """Of each topic filter: the QoS that the broker granted, or why it refused."""
        self.unacknowledged: list[tuple[int, int]] = []
        """Packet identifier and QoS of messages that the broker still keeps, in the order they came."""
        self.arrived = asyncio.Event()
        """Set when `unacknowledged` grows."""
        self._connection = connection
        self._v5 = connection.version == "5"
        self._take = take
        self._timeout, self._connect_timeout = timeout, connect_timeout
        self._most = max_payload + _ROOM
        self._will = will
        self._manual = manual
        self._lost = lost
        self._received: set[int] = set() if received is None else received
        self._folder = folder
        self._paho: PahoClient | None = None
        self._stream: Stream | None = None
        self._misc: asyncio.TimerHandle | None = None
        self._connected: asyncio.Future[DriverError | None] | None = None
        self._ended: asyncio.Future[str] | None = None
        self._subscribed: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._published: dict[int, asyncio.Future[ReasonCode]] = {}
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._limits: Properties | None = None
        self._identified: dict[int, str] = {}

    # -- life -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects; messages of a kept session may come at once.

        Raises:
            DriverError: the broker cannot be reached, or does not let us in; the text says why.
        """
        connection = self._connection
        password = await self._password()
        loop = asyncio.get_running_loop()
        self._connected, self._ended = loop.create_future(), loop.create_future()
        self._stream = stream = Stream(self._most)
        tls = connection if isinstance(connection, Tls) else None
        await transport.connect(
            connection.host, connection.port, self._connect_timeout, stream, tls, self._folder
        )
        clean = not connection.session_expiry
        options: dict[str, Any] = {} if self._v5 else {"clean_session": clean}
        self._paho = client = PahoClient(
            self.client_id, _VERSIONS[connection.version], stream, self._taken, self._received, **options
        )
        client.max_inflight_messages = 0  # `_slots` bounds them, and knows the broker's own bound
        if connection.username is not None:
            client.username_pw_set(connection.username, password)
        if (will := self._will) is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_socket_register_write = stream.register_write
        stream.client = client
        properties = None
        if self._v5:
            properties = empty(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = min(int(connection.session_expiry), 0xFFFFFFFF)
            properties.MaximumPacketSize = self._most
        started: dict[str, Any] = {"clean_start": clean} if self._v5 else {}
        client.connect(
            connection.host, connection.port, connection.keep_alive, properties=properties, **started
        )
        self._misc = loop.call_later(_MISC_S, self._keep_alive)
        try:
            async with asyncio.timeout(self._connect_timeout):
                refused = await asyncio.shield(self._connected)
        except TimeoutError:
            stream.abort()
            text = f"{self.name} took the connection and did not answer CONNECT in"
            raise DriverError("timeout", f"{text} {format_duration(self._connect_timeout)}") from None
        except BaseException:
            stream.abort()
            raise
        if refused is not None:
            stream.abort()
            raise refused

    async def _password(self) -> str | None:
        if self._connection.password_file is None:
            return None
        path = self._folder / self._connection.password_file
        try:
            return await aside(lambda: read_secret(path, "password_file"))
        except UnusableFile as error:
            raise DriverError("disconnected", str(error)) from error

    async def ended(self) -> str:
        """Returns once the connection is gone; says why."""
        assert self._ended is not None, "not opened"
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Says good-bye, so that the broker does not publish our will. Safe to call twice."""
        client, stream = self._paho, self._stream
        self._paho = None
        if self._misc is not None:
            self._misc.cancel()
        if stream is None:
            return
        try:
            if client is not None and client.socket() is not None:
                client.disconnect()
                client.loop_write()
            stream.close()
            async with asyncio.timeout(0.5):
                await stream.ended.wait()
        except TimeoutError:
            pass  # a broker that does not read is not waited for
        finally:
            stream.abort()
            self._end("it was closed")

    # -- what is asked of the broker ------------------------------------------------------------

    async def subscribe(
        self, subscriptions: Sequence[Subscription], *, apart: bool = False
    ) -> Mapping[str, int | str]:
        """Subscribes; of each filter the QoS that was granted, or the broker's reason in words.

        `apart` is for filters that may match one topic: the broker may then send a message once for each
        (MQTT 5.0, 3.3.4), and subscription identifiers tell the copies. MQTT 3.1.1 has none.

        Raises:
            DriverError: `timeout` or `disconnected`.
        """
        apart = apart and self._v5 and bool(getattr(self._limits, "SubscriptionIdentifierAvailable", 1))
        step = 1 if apart else _FILTERS
        for start in range(0, len(subscriptions), step):
            part = subscriptions[start : start + step]
            properties = None
            if apart:
                properties = empty(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = start + 1
                self._identified[start + 1] = part[0].filter
            wanted = [(one.filter, SubscribeOptions(one.qos) if self._v5 else one.qos) for one in part]
            _, mid = self._linked().subscribe(wanted, properties=properties)  # type: ignore[arg-type]  # either form, never mixed
            if mid is None:
                raise DriverError("disconnected", f"the connection to {self.name} was lost")
            reasons = await self._answer(self._subscribed, mid, "SUBSCRIBE")
            for one, reason in zip(part, reasons, strict=False):
                self.granted[one.filter] = str(reason).lower() if reason.is_failure else reason.value
            for one in part[len(reasons) :]:
                self.granted[one.filter] = "the broker did not answer for it"
        return {one.filter: self.granted[one.filter] for one in subscriptions}

    async def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribes; does not wait for the broker."""
        self.granted.pop(topic_filter, None)
        if self._paho is not None and self._paho.socket() is not None:
            self._paho.unsubscribe(topic_filter)

    async def publish(self, publication: Publication) -> None:
        """Publishes once; returns when the broker has it (QoS 1, 2) or it is on its way (QoS 0).

        Raises:
            DriverError: `timeout` or `disconnected`: whether it went out is not known, unless the text says
                that it did not; `device-error`: the broker refused it.
        """
        unsent = "; nothing was published"
        self._check(publication)
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            text = f"{self.name} has not acknowledged what was published before"
            raise DriverError("timeout", text + unsent) from None
        try:
            info = self._linked(unsent).publish(
                publication.topic,
                publication.payload,
                publication.qos,
                publication.retain,
                properties_of(publication) if self._v5 else None,
            )
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise DriverError("device-error", f"{publication.topic}: {info.rc.name}{unsent}")
        except BaseException as error:
            self._slots.release()
            if isinstance(error, ValueError):
                raise DriverError("device-error", f"{publication.topic:.100}: {error}{unsent}") from error
            raise
        reason = await self._answer(self._published, info.mid, f"the publish on {publication.topic}")
        if reason.is_failure:
            text = f"{self.name} refused the publish on {publication.topic}: {str(reason).lower()}"
            raise DriverError("device-error", text)

    def acknowledge(self, messages: Sequence[tuple[int, int]]) -> None:
        """Lets the broker forget messages that were in `unacknowledged`; without a link it keeps them."""
        if self._paho is not None and self._paho.socket() is not None:
            for mid, qos in messages:
                self._paho.ack(mid, qos)

    # -- inside ---------------------------------------------------------------------------------

    def _linked(self, further: str = "") -> PahoClient:
        if self._paho is None or self._paho.socket() is None:
            raise DriverError("disconnected", f"{self.name} is not connected{further}")
        return self._paho

    def _check(self, publication: Publication) -> None:
        """What the broker said that it does not take is not sent: it would end the connection."""
        limits = self._limits
        size = len(publication.payload) + len(publication.topic.encode())
        for name, beyond, text in (
            ("MaximumQoS", publication.qos, f"no QoS {publication.qos}"),
            ("MaximumPacketSize", size, f"no message of {size} bytes"),
        ):
            if beyond > getattr(limits, name, beyond):
                raise DriverError("device-error", f"{self.name} takes {text}; nothing was published")
        if publication.retain and not getattr(limits, "RetainAvailable", 1):
            raise DriverError("device-error", f"{self.name} retains nothing; nothing was published")

    async def _answer(self, waiting: "dict[int, asyncio.Future[_T]]", mid: int, what: str) -> _T:
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        waiting[mid] = future
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait((future, self._ended or future), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            text = f"{self.name} did not acknowledge {what} in {format_duration(self._timeout)}"
            raise DriverError("timeout", f"{text}; {_UNKNOWN}") from None
        finally:
            waiting.pop(mid, None)
        if not future.done():
            text = f"the connection to {self.name} was lost before it acknowledged {what}"
            raise DriverError("disconnected", f"{text}; {_UNKNOWN}")
        return future.result()

    def _end(self, reason: str) -> None:
        if self._connected is not None and not self._connected.done():
            text = f"{self.name} ended the connection before it let us in: {reason}"
            self._connected.set_result(DriverError("disconnected", text))
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(f"{self.name}: {reason}")

    def _taken(self, packet: _packet.PublishPacket) -> None:
        try:
            topic = packet.topic.decode()
        except UnicodeDecodeError:
            self._lost(1, "malformed-topic")
        else:
            properties = packet.properties
            if not self._copy(topic, getattr(properties, "SubscriptionIdentifier", ())):
                self._take(
                    Message(
                        topic,
                        bytes(packet.payload),
                        time.time_ns(),
                        packet.qos,
                        packet.retain,
                        getattr(properties, "CorrelationData", None),
                        getattr(properties, "ResponseTopic", None),
                    )
                )
        if not packet.qos:
            return
        if self._manual:
            self.unacknowledged.append((packet.mid, packet.qos))
            self.arrived.set()
        else:
            self.acknowledge([(packet.mid, packet.qos)])

    def _copy(self, topic: str, identifiers: Sequence[int]) -> bool:
        """Whether another subscription that matches brings the message too: the first one's is taken."""
        if not identifiers or not self._identified:
            return False
        for identifier, name in self._identified.items():
            if isinstance(self.granted.get(name), int) and matches(name, topic):
                return identifier not in identifiers
        return False

    # -- paho's callbacks -----------------------------------------------------------------------

    def _on_connect(
        self, _client: Any, _data: Any, flags: ConnectFlags, reason: ReasonCode, limits: Properties | None
    ) -> None:
        if self._connected is None or self._connected.done():
            return
        self.session_present = flags.session_present
        if not flags.session_present:
            self._received.clear()
        self._limits = limits
        self._slots = asyncio.Semaphore(min(_IN_FLIGHT, getattr(limits, "ReceiveMaximum", _IN_FLIGHT)))
        error = None
        if reason.is_failure:
            error = DriverError("disconnected", f"{self.name} does not let us in: {words(reason, limits)}")
        self._connected.set_result(error)

    def _on_disconnect(
        self, _client: Any, _data: Any, flags: DisconnectFlags, reason: Any, limits: Properties | None
    ) -> None:
        said = self._stream.reason if self._stream is not None else ""
        if flags.is_disconnect_packet_from_server:
            self._end(f"it ended the connection: {words(reason, limits)}")
        elif reason.value == _KEEP_ALIVE:
            self._end(f"it has said nothing for {self._connection.keep_alive} s and more")
        else:
            broke = "it broke the protocol" if reason.value == _PROTOCOL_ERROR else ""
            self._end(said or broke or "it closed the connection")

    def _on_subscribe(
        self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if (future := self._subscribed.get(mid)) is not None and not future.done():
            future.set_result(reasons)

    def _on_publish(
        self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._slots.release()
        if (future := self._published.get(mid)) is not None and not future.done():
            future.set_result(reason)

    def _keep_alive(self) -> None:
        """Pings where nothing is said; a broker that does not answer in `keep_alive` seconds is gone."""
        if self._paho is None or self._paho.socket() is None:
            return
        self._paho.loop_misc()
        if self._paho.socket() is None and self._stream is not None:
            self._stream.abort()
        self._misc = asyncio.get_running_loop().call_later(_MISC_S, self._keep_alive)
