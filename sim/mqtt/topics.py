"""A simulated device with topics of its own: publishes its points, and takes what is written to them."""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from protocols.base import Quality, Refused, Value
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.encodings import NUMBERS, UnreadableError, decoded, encoded, json_of, text_of
from protocols.mqtt.message import Message, Publication, Subscription
from protocols.mqtt.paths import Step, steps_of
from protocols.mqtt.plan import matches
from protocols.mqtt.point import MqttPoint, QoS
from protocols.schedule import Schedule
from protocols.timestamps import rfc3339
from sim.mqtt.playing import Played, until_ended

_FASTEST_S: Final = 0.01
_WORD = re.compile(r"\\\{(value|text|point|device|time|id)\\\}")


def make(device: MqttDevice, port: int) -> "SimulatedTopics":
    """The device, at a broker on this port of its connection's host.

    Raises:
        pydantic.ValidationError: the `sim` section is wrong.
    """
    connection = device.connection.model_copy(update={"port": port, "client_id": None, "session_expiry": 0.0})
    return SimulatedTopics(device.model_copy(update={"connection": connection}))


class SimulatedTopics:
    """Implements `sim.mqtt.devices.SimulatedDevice`."""

    def __init__(self, device: MqttDevice) -> None:
        self._device = device
        self._played = Played(device)
        self._orders: asyncio.Queue[Message] = asyncio.Queue(1000)
        presence = device.presence
        self._will = None
        if presence is not None:
            self._will = Publication(presence.topic, self._presence(presence.offline), 1, retain=True)

    async def run(self, ready: asyncio.Event) -> None:
        """Publishes and listens until cancelled.

        Raises:
            DriverError: the broker is gone.
        """
        device = self._device
        client = Client(
            device.connection, f"{device.name}-simulated", self._order, will=self._will, folder=device.folder
        )
        try:
            await client.open()
            wanted = {point.write.topic for point in device.points.values() if point.write is not None}
            await client.subscribe([Subscription(topic, 1) for topic in sorted(wanted)])
            if device.presence is not None:
                online = self._presence(device.presence.online)
                await client.publish(Publication(device.presence.topic, online, 1, retain=True))
            async with asyncio.TaskGroup() as group:
                for period, names in self._groups().items():
                    await self._publish(client, names, retain=True)
                    group.create_task(self._publish_each(client, period, names))
                group.create_task(self._obey(client))
                group.create_task(until_ended(client))
                ready.set()
        finally:
            await client.close()

    # -- what it says ---------------------------------------------------------------------------

    def _groups(self) -> Mapping[float, list[str]]:
        """Readable points by how often they are published."""
        groups: dict[float, list[str]] = {}
        for name, point in self._device.points.items():
            if point.readable and self._played.value(name) is not None:
                groups.setdefault(max(point.poll or self._device.poll, _FASTEST_S), []).append(name)
        return groups

    async def _publish_each(self, client: Client, period: float, names: list[str]) -> None:
        loop = asyncio.get_running_loop()
        schedule = Schedule(period, loop.time() + period)
        while True:
            await asyncio.sleep(schedule.due - loop.time())
            schedule.begin(loop.time())
            await self._publish(client, names)

    async def _publish(self, client: Client, names: list[str], *, retain: bool = False) -> None:
        for topic, (qos, payload) in self._payloads(names).items():
            await client.publish(Publication(topic, payload, qos, retain=retain))

    def _payloads(self, names: list[str]) -> Mapping[str, tuple[QoS, bytes]]:
        """What is published of these points: those of one topic together."""
        documents: dict[str, Any] = {}
        buffers: dict[str, bytes | bytearray] = {}
        qos: dict[str, QoS] = {}
        now_ns = time.time_ns()
        for name in names:
            point = self._device.points[name]
            topic = topic_of(point)
            qos[topic] = self._device.qos if point.qos is None else point.qos
            value = self._played.value(name)
            assert value is not None  # only those that have one are published
            raw = point.raw(value)
            if point.encoding == "json":
                document = _put(documents.get(topic), steps_of(point.path) if point.path else (), raw)
                if point.time_path:
                    document = _put(document, steps_of(point.time_path), rfc3339(now_ns))
                documents[topic] = document
            elif point.encoding in NUMBERS:
                part = encoded(point.encoding, raw)
                buffer = bytearray(buffers.get(topic, b"").ljust(point.offset_bytes + len(part), b"\0"))
                buffer[point.offset_bytes : point.offset_bytes + len(part)] = part
                buffers[topic] = buffer
            else:
                buffers[topic] = encoded(point.encoding, raw)
        made = {topic: bytes(buffer) for topic, buffer in buffers.items()}
        made |= {topic: encoded("json", document) for topic, document in documents.items()}
        return {topic: (qos[topic], payload) for topic, payload in made.items()}

    def _presence(self, word: Any) -> bytes:
        presence = self._device.presence
        assert presence is not None
        if presence.path is None:
            return text_of(word).encode()
        return encoded("json", _put(None, steps_of(presence.path), word))

    # -- what it takes --------------------------------------------------------------------------

    def _order(self, message: Message) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # as a device that is told too much
            self._orders.put_nowait(message)

    async def _obey(self, client: Client) -> None:
        while True:
            message = await self._orders.get()
            for name, point in self._device.points.items():
                if point.write is None or point.write.topic != message.topic:
                    continue
                value = self._meant(point, message.payload)
                if value is None:
                    continue
                self._played.write(name, value)
                if point.readable:
                    same = [
                        other
                        for other, one in self._device.points.items()
                        if one.readable
                        and self._played.value(other) is not None
                        and topic_of(one) == topic_of(point)
                    ]
                    await self._publish(client, same)
                await self._answer(client, point, message, value)

    def _meant(self, point: MqttPoint, payload: bytes) -> Value | None:
        """The value that was written, by the point's own template or encoding; None if it is none of it."""
        assert point.write is not None
        try:
            if point.write.template is None:
                raw = decoded(point.encoding, payload)
            else:
                raw = self._raw_of(point, point.write.template, payload.decode())
            value = point.engineering(raw)
            return None if isinstance(value, Quality) else point.typed(value)
        except (UnreadableError, UnicodeDecodeError, Refused):
            return None

    def _raw_of(self, point: MqttPoint, template: str, text: str) -> Any:
        known = {"point": point.name, "device": self._device.name}
        pattern = _WORD.sub(lambda found: _group(found[1], known), re.escape(template))
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found is None:
            raise UnreadableError("no-match")
        groups = found.groupdict()
        return json_of(groups["value"].encode()) if "value" in groups else groups.get("text")

    async def _answer(self, client: Client, point: MqttPoint, message: Message, value: Value) -> None:
        how = point.write
        assert how is not None
        if how.answer is None:
            return
        word: Any = how.answer_ok
        if word is None:
            word = point.raw(value)
        payload = text_of(word).encode()
        if how.answer_path is not None:
            payload = encoded("json", _put(None, steps_of(how.answer_path), word))
        topic = message.response_topic or _named(how.answer, None)
        await client.publish(Publication(topic, payload, 1, correlation=message.correlation))


def topic_of(point: MqttPoint) -> str:
    """The topic that a simulated device publishes a point on, with words for its wildcards."""
    assert point.topic is not None
    return _named(point.topic, point.wildcard)


def _named(topic_filter: str, wildcard: str | None) -> str:
    words: Iterator[str] = iter(wildcard.split("/") if wildcard is not None else ())
    levels = []
    for level in topic_filter.split("/"):
        if level == "#":
            levels += list(words) or ["simulated"]
        else:
            levels.append(next(words, "simulated") if level == "+" else level)
    made = "/".join(levels)
    assert matches(topic_filter, made)
    return made


def _group(word: str, known: Mapping[str, str]) -> str:
    if word in known:
        return re.escape(known[word])
    return f"(?P<{word}>.*)" if word in ("value", "text") else ".*"


def _put(document: Any, steps: tuple[Step, ...], value: Any) -> Any:
    """The document with a value at the end of a path; what stands in the way is replaced."""
    if not steps:
        return value
    first, rest = steps[0], steps[1:]
    if isinstance(first, str):
        made = dict(document) if isinstance(document, dict) else {}
        made[first] = _put(made.get(first), rest, value)
        return made
    items = list(document) if isinstance(document, list) else []
    items += [None] * (first + 1 - len(items))
    items[first] = _put(items[first], rest, value)
    return items
