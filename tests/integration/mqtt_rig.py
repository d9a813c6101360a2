"""A broker, a driver and a far end, for tests of MQTT."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from scripted import Heard, running

from protocols.base import Quality, Value
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice, Tcp
from protocols.mqtt.driver import MqttDriver
from protocols.mqtt.message import Message, Publication, Subscription


def device(
    port: int, points: dict[str, Any], connection: dict[str, Any] | None = None, **fields: Any
) -> MqttDevice:
    where = {"transport": "tcp", "host": "127.0.0.1", "port": port} | (connection or {})
    whole = {"protocol": "mqtt", "connection": where, "points": points} | fields
    return MqttDevice.model_validate(whole).named("oven")


class FarEnd:
    """A client that publishes what devices would, and keeps what it hears."""

    def __init__(self, port: int, client_id: str = "far-end", **connection: Any) -> None:
        where = Tcp(transport="tcp", host="127.0.0.1", port=port, **connection)
        self.heard: list[Message] = []
        self.client = Client(where, client_id, self.heard.append)

    async def says(
        self, topic: str, payload: bytes | str, qos: int = 1, *, retain: bool = False, **more: Any
    ) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        await self.client.publish(Publication(topic, data, qos, retain, **more))

    async def hears(self, *filters: str) -> None:
        await self.client.subscribe([Subscription(one, 2) for one in filters])


@contextlib.asynccontextmanager
async def far_end(port: int, *args: Any, **connection: Any) -> AsyncIterator[FarEnd]:
    made = FarEnd(port, *args, **connection)
    await made.client.open()
    try:
        yield made
    finally:
        await made.client.close()


@contextlib.asynccontextmanager
async def driven(config: MqttDevice, heard: Heard | None = None) -> AsyncIterator[tuple[MqttDriver, Heard]]:
    """A driver that is connected and runs."""
    driver = MqttDriver(config)
    try:
        await driver.connect()
        async with running(driver, heard) as sink:
            yield driver, sink
    finally:
        await driver.close()


def takes(heard: Heard, point: str) -> list[Value | Quality]:
    """Everything that was said of a point, in its order."""
    found: list[Value | Quality] = []
    for sample in heard.samples:
        if point in sample.values:
            found.append(sample.values[point])
        if point in sample.bad:
            found.append(sample.bad[point])
    return found
