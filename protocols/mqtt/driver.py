"""The MQTT driver: the glue between a broker, a kind of payload, and the agent."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from protocols.base import DeviceState, DriverError, Sample, Sink, Value
from protocols.mqtt.calls import METHODS, carry_out
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Message, Payloads, Publication, Subscription
from protocols.mqtt.plan import matches, overlapping, unshared
from protocols.units import format_duration

_HELD: Final = 10_000
"""Messages that came before the session was ready, and samples before `run`, kept for it."""
_FAREWELL_S: Final = 0.4
"""How long a last word may take."""


class MqttDriver:
    """One device behind a broker. Implements `protocols.base.Driver`, and `Host` for its payloads."""

    def __init__(self, device: MqttDevice) -> None:
        self._device = device
        self._client_id = device.connection.client_id or f"hilgate-{device.name}-{secrets.token_hex(4)}"
        self._received: set[int] = set()
        self._had: set[str] = set()
        self._client: Client | None = None
        self._payloads: Payloads | None = None
        self._early: list[Message] | None = None
        self._sink: Sink | None = None
        self._held: list[Sample] = []
        self._state: tuple[DeviceState, str] | None = None
        self._losses: Counter[str] = Counter()
        self._unsaid: Counter[str] = Counter()
        self._answers: dict[asyncio.Future[Message | None], tuple[str, bytes | None]] = {}
        self._own: Sequence[Subscription] = ()
        self._asked: Counter[str] = Counter()
        self._handed_on = False

    def _linked(self) -> tuple[Client, Payloads]:
        if self._client is None or self._payloads is None:
            where = f"{self._device.connection.host}:{self._device.connection.port}"
            raise DriverError("disconnected", f"broker {where} is not connected")
        return self._client, self._payloads

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connects to the broker and subscribes.

        Raises:
            DriverError: the broker cannot be reached, does not let us in, or does not answer.
        """
        device = self._device
        await self.close()
        payloads = _payloads_of(device, self._had)
        client = Client(
            device.connection,
            self._client_id,
            self._take,
            timeout=device.timeout,
            connect_timeout=device.connect_timeout,
            max_payload=device.max_payload,
            will=payloads.will,
            manual=True,
            lost=self.lost,
            received=self._received,
            folder=device.folder,
        )
        self._client, self._payloads, self._early = client, payloads, []
        self._state, self._held, self._handed_on = None, [], False
        await client.open()
        self._own = payloads.subscriptions()
        apart = overlapping([unshared(one.filter) for one in self._own])
        await client.subscribe(self._own, apart=apart)
        await payloads.begin(self)
        early, self._early = self._early, None
        for message in early:
            payloads.take(message)

    async def run(self, sink: Sink) -> None:
        """Hands on what comes until cancelled; the broker forgets what came once the agent keeps it.

        Raises:
            DriverError: `disconnected`: the link was lost, or the broker says nothing any more.
        """
        client, _ = self._linked()
        for sample in self._held:
            sink.sample(sample)
        self._held, self._handed_on = [], True
        for reason, count in self._unsaid.items():
            sink.lost(count, reason)
        self._unsaid.clear()
        self._sink = sink
        self._tell_state()
        keeping = asyncio.create_task(self._keep(client, sink), name=f"{self._device.name}: acknowledge")
        ended = asyncio.create_task(client.ended(), name=f"{self._device.name}: watch the link")
        try:
            await asyncio.wait((keeping, ended), return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
            raise DriverError("disconnected", ended.result())
        finally:
            self._sink = None
            for task in (keeping, ended):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _keep(self, client: Client, sink: Sink) -> None:
        """Acknowledges messages to the broker, all that came meanwhile together."""
        while True:
            await client.arrived.wait()
            client.arrived.clear()
            batch, client.unacknowledged = client.unacknowledged, []
            await sink.kept()
            client.acknowledge(batch)

    def rest(self) -> None:
        """Nothing goes on by itself."""

    async def close(self) -> None:
        """Says good-bye to the broker. Safe at any time, also twice."""
        client, payloads, self._payloads = self._client, self._payloads, None
        for future in self._answers:
            if not future.done():
                future.set_result(None)
        try:
            if payloads is not None:
                with contextlib.suppress(DriverError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await payloads.end()
        finally:
            if client is not None:
                self._client = None
                if not self._handed_on:  # what waited for `run` is taken when the broker sends it again
                    self._received.difference_update(mid for mid, qos in client.unacknowledged if qos == 2)
                await client.close()

    # -- commands -------------------------------------------------------------------------------

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads points.

        Raises:
            DriverError: not one has a value.
        """
        _, payloads = self._linked()
        return await payloads.read(points)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Publishes values, each once.

        Raises:
            DriverError: not all were written.
        """
        _, payloads = self._linked()
        return await payloads.write(values)

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of `PROTOCOL.methods`.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the broker or the device said no, or did not answer.
        """
        client, payloads = self._linked()
        if method in METHODS:
            return await carry_out(method, args, self)
        if method == "status" and not args:
            return self._status(client, payloads)
        return await payloads.call(method, args)

    def _status(self, client: Client, payloads: Payloads) -> Mapping[str, Any]:
        return {
            "broker": client.name.removeprefix("broker "),
            "client_id": client.client_id,
            "session_present": client.session_present,
            "granted": dict(client.granted),
            "lost": dict(self._losses),
            **payloads.status(),
        }

    # -- Host -----------------------------------------------------------------------------------

    @property
    def refused(self) -> Mapping[str, str]:
        """Topic filters that the broker refused, and why."""
        granted = self._client.granted if self._client is not None else {}
        return {name: reason for name, reason in granted.items() if isinstance(reason, str)}

    def sample(self, sample: Sample) -> None:
        """Hands readings on; those before `run` wait for it."""
        if self._sink is not None:
            self._sink.sample(sample)
        elif len(self._held) < _HELD:
            self._held.append(sample)
        else:
            self.lost(1, "receive-overflow")

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Takes the state of the device behind the broker."""
        self._state = state, reason
        self._tell_state()

    def lost(self, count: int, reason: str) -> None:
        """Counts what could not be taken."""
        self._losses[reason] += count
        if self._sink is not None:
            self._sink.lost(count, reason)
        else:
            self._unsaid[reason] += count

    async def publish(self, publication: Publication) -> None:
        """See `protocols.mqtt.message.Host`."""
        if self._client is None:
            raise DriverError("disconnected", f"{self._device.name} is not connected")
        await self._client.publish(publication)

    async def request(self, publication: Publication, answers: str, timeout: float) -> Message:
        """See `protocols.mqtt.message.Host`."""
        client, _ = self._linked()
        plain = not set(answers) & set("+#")
        if self._device.connection.version == "5" and plain and publication.response_topic is None:
            publication = _asking(publication, answers)
        known = any(matches(one.filter, answers) or one.filter == answers for one in self._own)
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._asked[answers] += 1
        try:
            if not known:
                granted = (await client.subscribe([Subscription(answers, 1)]))[answers]
                if isinstance(granted, str):
                    text = f"{client.name} refused the subscription of the answers on {answers}: {granted}"
                    raise DriverError("device-error", f"{text}; nothing was published")
            self._answers[future] = answers, publication.correlation
            async with asyncio.timeout(timeout) as deadline:
                await client.publish(publication)
                answer = await future
        except TimeoutError:
            if not deadline.expired():
                raise
            text = f"nobody answered on {answers} in {format_duration(timeout)}"
            raise DriverError("timeout", f"{text}; {_UNKNOWN}") from None
        finally:
            self._answers.pop(future, None)
            self._asked[answers] -= 1
            if not self._asked[answers]:
                del self._asked[answers]
                if not known:
                    await client.unsubscribe(answers)
        if answer is None:
            text = f"the link was lost before an answer came on {answers}"
            raise DriverError("disconnected", f"{text}; {_UNKNOWN}")
        return answer

    # -- inside ---------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        if not message.retain:
            for future, (answers, correlation) in self._answers.items():
                own = message.correlation is None or message.correlation == correlation
                if own and not future.done() and matches(answers, message.topic):
                    future.set_result(message)
                    break  # one answer is one request's: without correlation data, the first one's
        if self._early is not None:
            if len(self._early) < _HELD:
                self._early.append(message)
            else:
                self.lost(1, "receive-overflow")
        elif self._payloads is not None and any(matches(one.filter, message.topic) for one in self._own):
            self._payloads.take(message)

    def _tell_state(self) -> None:
        """The worse of what the broker does and what the device says."""
        if self._sink is None:
            return
        if self.refused:
            told = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
            self._sink.state(DeviceState.DEGRADED, f"the broker refused subscriptions: {told:.500}")
        elif self._state is not None:
            self._sink.state(*self._state)


_UNKNOWN = "whether it was carried out is not known, and it is not repeated"


def _asking(publication: Publication, answers: str) -> Publication:
    """With what MQTT 5 has for requests (MQTT 5.0, 4.10)."""
    return Publication(
        publication.topic,
        publication.payload,
        publication.qos,
        publication.retain,
        answers,
        secrets.token_bytes(8),
        publication.expiry_s,
    )


def _payloads_of(device: MqttDevice, had: set[str]) -> Payloads:
    """The kind of the device's payloads, imported where it is used."""
    if device.payload == "sparkplug":
        from protocols.mqtt.sparkplug import Sparkplug

        return Sparkplug(device)
    if device.payload == "kubeedge":
        from protocols.mqtt.kubeedge import KubeEdge

        return KubeEdge(device)
    from protocols.mqtt.topics import Topics

    return Topics(device, had)
