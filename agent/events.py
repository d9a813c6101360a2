"""Events as they leave: CloudEvents with their sequence, put into the outbox."""

import secrets
from typing import Any, Literal, NamedTuple

import msgspec

from agent import clock
from agent.store import Lane, Outgoing, Store
from protocols.amqp.cloudevents import DUPLICATE_ID, Event, to_message
from protocols.amqp.codec import MessageId, encode
from protocols.amqp.flavours import Address

Mode = Literal["hil", "sil"]

SAMPLES = "io.hilgate.samples.v1"
FRAMES = "io.hilgate.frames.v1"
AVAILABILITY = "io.hilgate.availability.v1"
DEVICE = "io.hilgate.device.v1"
LEASE = "io.hilgate.lease.v1"
LOSS = "io.hilgate.loss.v1"
RESULT = "io.hilgate.result.v1"
SAFETY = "io.hilgate.safety.v1"

PCAP = "application/vnd.tcpdump.pcap"
"""Content type of raw bus frames."""

AVAILABILITY_ADDRESS = Address("hil.availability", "topic")

LAST_VALUE_KEY = "_AMQ_LVQ_NAME"
"""The application property by which Artemis and the embedded broker keep a last value for each key."""

_PRIORITY = {AVAILABILITY: 7, SAFETY: 7, RESULT: 6}
_OTHER_PRIORITY = 4


class Identity(NamedTuple):
    """What tells one event from every other; whoever gets it twice knows it by this."""

    id: str
    sequence: int
    time_ns: int
    epoch: int


class Events:
    """Makes the events of one agent. Each source has one counter; results, read by one each, their own."""

    def __init__(self, bench: str, store: Store, *, structured: bool = False) -> None:
        self.instance = secrets.token_hex(6)
        """Begins every event id of this process, so that another agent's events can be told apart."""
        self._bench = bench
        self._store = store
        self._structured = structured
        self._count = 0

    @property
    def bench_source(self) -> str:
        """The `source` of events of the bench itself."""
        return f"/benches/{self._bench}"

    def device_source(self, device: str) -> str:
        """The `source` of a device's events."""
        return f"/benches/{self._bench}/devices/{device}"

    def device(
        self,
        device: str,
        body: bytes,
        *,
        time_ns: int,
        mode: Mode,
        ttl: float | None,
        durable: bool,
        kind: str = SAMPLES,
    ) -> None:
        """Sends samples of a device (`body` is the encoded JSON) or, as FRAMES, raw frames (a pcap file)."""
        address = Address(f"hil.{self._bench}.events.{device}", "topic")
        source = self.device_source(device)
        self._put(kind, source, address, Lane.TELEMETRY, body, time_ns, mode, ttl=ttl, durable=durable)

    def device_change(self, device: str, body: Any, *, mode: Mode) -> None:
        """Sends a change of a device's state, to the device's own topic."""
        address = Address(f"hil.{self._bench}.events.{device}", "topic")
        data = msgspec.json.encode(body)
        self._put(DEVICE, self.device_source(device), address, Lane.EVENT, data, clock.now_ns(), mode)

    def bench(self, kind: str, body: Any, *, mode: Mode) -> None:
        """Sends an event of the bench itself."""
        address = Address(f"hil.{self._bench}.events.bench", "topic")
        self._put(
            kind, self.bench_source, address, Lane.EVENT, msgspec.json.encode(body), clock.now_ns(), mode
        )

    async def stored(self) -> None:
        """Returns when all events sent before are in the store."""
        await self._store.stored()

    def availability(self, body: Any, *, mode: Mode, ttl: float) -> None:
        """Sends availability; `ttl` in seconds."""
        data = msgspec.json.encode(body)
        time_ns = clock.now_ns()
        self._put(
            AVAILABILITY, self.bench_source, AVAILABILITY_ADDRESS, Lane.EVENT, data, time_ns, mode, ttl=ttl
        )

    def result(
        self,
        body: bytes,
        *,
        mode: Mode,
        reply_to: str | None,
        correlation_id: MessageId | None,
        again: Identity | None = None,
    ) -> Identity:
        """Sends a command's result to whoever asked, or to the bench's results topic.

        Args:
            body: The encoded result.
            mode: Whether the bench was real.
            reply_to: Where it goes.
            correlation_id: What it answers.
            again: The identity of the event of which this is another copy.
        """
        address = Address(reply_to, "direct") if reply_to else Address(f"hil.{self._bench}.results", "topic")
        return self._put(
            RESULT,
            self.bench_source,
            address,
            Lane.RESULT,
            body,
            clock.now_ns(),
            mode,
            counter=f"{self.bench_source}#results",
            correlation_id=correlation_id,
            again=again,
        )

    def _put(
        self,
        kind: str,
        source: str,
        address: Address,
        lane: Lane,
        data: bytes,
        time_ns: int,
        mode: Mode,
        *,
        ttl: float | None = None,
        durable: bool = True,
        counter: str | None = None,
        correlation_id: MessageId | None = None,
        again: Identity | None = None,
    ) -> Identity:
        identity = again or self._identity(counter or source, time_ns)
        event = Event(
            id=identity.id,
            source=source,
            type=kind,
            time_ns=identity.time_ns,
            sequence=identity.sequence,
            epoch=identity.epoch,
            mode=mode,
            data=data,
            datacontenttype=PCAP if kind == FRAMES else "application/json",
        )
        message = to_message(event, structured=self._structured)
        message.durable = durable
        message.priority = _PRIORITY.get(kind, _OTHER_PRIORITY)
        message.ttl_ms = None if ttl is None else max(1, round(ttl * 1000))
        message.creation_ms = identity.time_ns // 1_000_000
        message.to = address.name
        if kind == AVAILABILITY:
            message.properties[LAST_VALUE_KEY] = self._bench
        message.correlation_id = correlation_id
        if again is not None:
            # Somebody asked for it anew: a broker must not take it for a copy that the network made.
            message.properties[DUPLICATE_ID] = f"{identity.id}+{secrets.token_hex(6)}"
        # Only telemetry goes stale in the outbox: a hole in the bench's own sequence would read as loss.
        expires = self._store.timeline.now() + ttl if ttl is not None and lane is Lane.TELEMETRY else None
        self._store.outbox.put(
            Outgoing(
                address,
                lane,
                source,
                identity.sequence,
                identity.time_ns,
                encode(message),
                counter=counter or source,
                event_id=identity.id,
                expires=expires,
                durable=durable,
            )
        )
        return identity

    def _identity(self, counter: str, time_ns: int) -> Identity:
        self._count += 1
        return Identity(
            f"{self.instance}-{self._count}", self._store.next_sequence(counter), time_ns, self._store.epoch
        )
