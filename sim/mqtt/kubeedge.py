"""EdgeCore's device twin module and the mapper behind it, simulated for one device.

It answers on the topics of EdgeCore (KubeEdge, edge/pkg/devicetwin): `twin/get`, `twin/update`, with
`twin/update/document` and `twin/update/delta` after each change; the mapper reports, and follows what is
wanted.
"""

import asyncio
import time
import uuid
from typing import Any

import msgspec

from protocols.base import Quality, Refused
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.kubeedge import PREFIX, text_of
from protocols.mqtt.message import Message, Publication, Subscription
from sim.mqtt.playing import Played, next_order, until_ended

_NO_VALUE = "unmarshal update request body failed, Please check the request"
_KINDS = {"number": "float", "integer": "int", "boolean": "boolean"}


def make(device: MqttDevice, port: int) -> "SimulatedTwin":
    """The device's twin, at a broker on this port of its connection's host.

    Raises:
        pydantic.ValidationError: the `sim` section is wrong.
    """
    connection = device.connection.model_copy(update={"port": port, "client_id": None, "session_expiry": 0.0})
    return SimulatedTwin(device.model_copy(update={"connection": connection}))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class SimulatedTwin:
    """Implements `sim.mqtt.devices.SimulatedDevice`."""

    def __init__(self, device: MqttDevice) -> None:
        assert device.kubeedge is not None
        self._device = device
        self._base = f"{PREFIX}{device.kubeedge.device}/"
        self._played = Played(device)
        self._asked: asyncio.Queue[Message] = asyncio.Queue(1000)
        self._twins: dict[str, dict[str, Any]] = {
            point.property or "": {"optional": True, "metadata": {"type": _KINDS.get(point.kind, "string")}}
            for point in device.points.values()
        }

    async def run(self, ready: asyncio.Event) -> None:
        """Reports and answers until cancelled.

        Raises:
            DriverError: the broker is gone.
        """
        device = self._device
        client = Client(device.connection, f"{device.name}-simulated", self._take, folder=device.folder)
        try:
            await client.open()
            await client.subscribe(
                [Subscription(self._base + topic, 1) for topic in ("twin/get", "twin/update")]
            )
            await self._report(client)
            state = {"device": {"name": device.name, "state": "online"}}
            await self._say(client, "state/update/result", uuid.uuid4().hex, state)
            async with asyncio.TaskGroup() as group:
                group.create_task(until_ended(client))
                group.create_task(self._play(client))
                ready.set()
        finally:
            await client.close()

    def _take(self, message: Message) -> None:
        if not self._asked.full():
            self._asked.put_nowait(message)

    async def _play(self, client: Client) -> None:
        while True:
            message = await next_order(self._asked, self._played.period)
            if message is not None:
                await self._answer(client, message)
            await self._report(client)

    async def _say(self, client: Client, topic: str, event_id: str, content: dict[str, Any]) -> None:
        payload = {"event_id": event_id, "timestamp": _now_ms(), **content}
        await client.publish(Publication(self._base + topic, msgspec.json.encode(payload), 1))

    async def _answer(self, client: Client, message: Message) -> None:
        try:
            said = msgspec.json.decode(message.payload)
        except msgspec.DecodeError:
            said = None
        event_id = str(said.get("event_id", "")) if isinstance(said, dict) else ""
        if message.topic.endswith("/twin/get"):
            await self._say(client, "twin/get/result", event_id, {"twin": self._twins})
            return
        wanted = said.get("twin") if isinstance(said, dict) else None
        if not isinstance(wanted, dict) or not all(isinstance(one, dict) for one in wanted.values()):
            await self._say(client, "twin/update/result", event_id, {"code": 400, "reason": _NO_VALUE})
            return
        last = {name: dict(self._twins.get(name, {})) for name in wanted}
        for name, one in wanted.items():
            expected = one.get("expected")
            if isinstance(expected, dict) and isinstance(expected.get("value"), str):
                twin = self._twins.setdefault(name, {"optional": True, "metadata": {"type": "string"}})
                twin["expected"] = {"value": expected["value"], "metadata": {"timestamp": _now_ms()}}
                self._follow(name, expected["value"])
        await self._say(client, "twin/update/result", event_id, {"twin": wanted})
        await self._changed(client, event_id, last)

    def _follow(self, name: str, text: str) -> None:
        """The mapper does what is wanted; what the device refuses stays wanted, and is not reported."""
        for point in self._device.points.values():
            if point.property == name and point.writable:
                value = point.engineering(text)
                if not isinstance(value, Quality):
                    try:
                        self._played.write(point.name, point.accept(value))
                    except Refused:
                        continue

    async def _report(self, client: Client) -> None:
        """What has changed, as the mapper reports it and EdgeCore tells it."""
        last = {}
        for point, raw in self._played.now():
            twin, text = self._twins[point.property or ""], text_of(raw)
            if point.readable and twin.get("actual", {}).get("value") != text:
                last[point.property or ""] = dict(twin)
                twin["actual"] = {"value": text, "metadata": {"timestamp": _now_ms()}}
        if last:
            await self._changed(client, uuid.uuid4().hex, last)

    async def _changed(self, client: Client, event_id: str, last: dict[str, dict[str, Any]]) -> None:
        twins = {name: {"last": before, "current": self._twins[name]} for name, before in last.items()}
        await self._say(client, "twin/update/document", event_id, {"twin": twins})
        delta = {
            name: twin["expected"]["value"]
            for name, twin in self._twins.items()
            if "expected" in twin and twin["expected"] != twin.get("actual")
        }
        if delta:
            await self._say(client, "twin/update/delta", event_id, {"twin": self._twins, "delta": delta})
