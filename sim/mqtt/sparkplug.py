"""A simulated Sparkplug B device with its edge node: births, data by exception, commands, a death."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from protocols.base import Quality, Refused
from protocols.mqtt import tahu
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice, Sparkplug
from protocols.mqtt.message import Message, Publication, Subscription
from protocols.mqtt.point import MqttPoint
from protocols.mqtt.sparkplug import BD_SEQ, NAMESPACE, REBIRTH, SEQUENCE
from protocols.mqtt.tahu_values import DataType, Malformed
from sim.mqtt.playing import Played, next_order, until_ended

_Metric = tuple[str | None, int | None, int, Any]


def make(device: MqttDevice, port: int) -> "SimulatedSparkplug":
    """The device, at a broker on this port of its connection's host.

    Raises:
        pydantic.ValidationError: the `sim` section is wrong.
    """
    connection = device.connection.model_copy(update={"port": port, "client_id": None, "session_expiry": 0.0})
    return SimulatedSparkplug(device.model_copy(update={"connection": connection}))


def _type_of(point: MqttPoint, raw: Any) -> int:
    """The data type that a simulated metric has, by its first value."""
    match raw:
        case int() | float() if point.kind == "number":
            return DataType.Double
        case bool():
            return DataType.Boolean
        case int():
            return DataType.Int64
        case float():
            return DataType.Double
        case list() if all(isinstance(one, int | float) and not isinstance(one, bool) for one in raw):
            return DataType.DoubleArray
        case list():
            return DataType.StringArray
        case dict():
            return DataType.DataSet
    return DataType.String


class SimulatedSparkplug:
    """Implements `sim.mqtt.devices.SimulatedDevice`."""

    def __init__(self, device: MqttDevice) -> None:
        assert device.sparkplug is not None
        self._device, self._place = device, device.sparkplug
        self._played = Played(device)
        self._aliases = {name: place for place, name in enumerate(device.points, 1)}
        self._types: dict[str, int] = {}
        self._said: dict[str, Any] = {}
        self._bd_seq = time.time_ns() % SEQUENCE
        self._seq = 0
        self._orders: asyncio.Queue[Message] = asyncio.Queue(1000)

    def _topic(self, kind: str, place: Sparkplug) -> str:
        device = f"/{place.device}" if kind.startswith("D") else ""
        return f"{NAMESPACE}/{place.group}/{kind}/{place.edge_node}{device}"

    def _payload(self, metrics: list[_Metric], *, numbered: bool = True, typed: bool = True) -> bytes:
        seq = None
        if numbered:
            seq, self._seq = self._seq, (self._seq + 1) % SEQUENCE
        return tahu.encode(metrics, time.time_ns() // 1_000_000, seq, typed=typed)

    async def run(self, ready: asyncio.Event) -> None:
        """Publishes and listens until cancelled.

        Raises:
            DriverError: the broker is gone.
        """
        device, place = self._device, self._place
        death = self._payload([(BD_SEQ, None, DataType.Int64, self._bd_seq)], numbered=False)
        client = Client(
            device.connection,
            f"{device.name}-simulated",
            self._take,
            will=Publication(self._topic("NDEATH", place), death, 1),
            folder=device.folder,
        )
        try:
            await client.open()
            wanted = ["NCMD", "DCMD"] if place.device else ["NCMD"]
            await client.subscribe([Subscription(self._topic(kind, place), 1) for kind in wanted])
            await self._birth(client)
            async with asyncio.TaskGroup() as group:
                group.create_task(until_ended(client))
                group.create_task(self._play(client))
                ready.set()
        finally:
            await client.close()

    def _take(self, message: Message) -> None:
        if not self._orders.full():
            self._orders.put_nowait(message)

    async def _play(self, client: Client) -> None:
        """One task says and obeys, so that sequence numbers go out in order."""
        while True:
            message = await next_order(self._orders, self._played.period)
            if message is not None:
                await self._obey(client, message)
            await self._data(client)

    async def _birth(self, client: Client) -> None:
        """The edge node's birth begins the sequence anew; the device's follows."""
        self._seq = 0
        node: list[_Metric] = [
            (BD_SEQ, None, DataType.Int64, self._bd_seq),
            (REBIRTH, None, DataType.Boolean, False),
        ]
        own = list(self._births())
        if self._place.device is None:
            node += own
        await client.publish(Publication(self._topic("NBIRTH", self._place), self._payload(node)))
        if self._place.device is not None:
            await client.publish(Publication(self._topic("DBIRTH", self._place), self._payload(own)))

    def _births(self) -> Iterator[_Metric]:
        for point, raw in self._played.now():
            datatype = self._types.setdefault(point.name, _type_of(point, raw))
            self._said[point.name] = raw
            yield point.metric, self._aliases[point.name], datatype, self._fitting(point, raw)

    def _fitting(self, point: MqttPoint, raw: Any) -> Any:
        if self._types[point.name] == DataType.Int64 and isinstance(raw, float):
            return round(raw)
        return raw

    async def _data(self, client: Client) -> None:
        """What has changed, by alias."""
        changed: list[_Metric] = []
        for point, raw in self._played.now():
            if point.name in self._types and self._said.get(point.name) != raw:
                self._said[point.name] = raw
                name = self._fitting(point, raw)
                changed.append((None, self._aliases[point.name], self._types[point.name], name))
        if changed:
            kind = "DDATA" if self._place.device else "NDATA"
            payload = self._payload(changed, typed=False)
            await client.publish(Publication(self._topic(kind, self._place), payload))

    async def _obey(self, client: Client, message: Message) -> None:
        """A command that is wrong is not carried out; Sparkplug has no answer that could say so."""
        try:
            metrics = tahu.parse(message.payload).metrics
        except Malformed:
            return
        for metric in metrics:
            if metric.name == REBIRTH:
                await self._birth(client)
                continue
            for name, point in self._device.points.items():
                if point.metric == metric.name and name in self._types and point.writable:
                    try:
                        value = point.engineering(metric.value(self._types[name]))
                        if not isinstance(value, Quality):
                            self._played.write(name, point.accept(value))
                    except (Malformed, Refused):
                        continue
