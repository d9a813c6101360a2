"""What simulated devices have in common: values over time, those that were written, and orders."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from protocols.base import DriverError, Value
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Message
from protocols.mqtt.point import MqttPoint
from sim.behaviour import behaviours


async def until_ended(client: Client) -> None:
    """Waits until the broker is gone.

    Raises:
        DriverError: `disconnected`: it is; the text says why.
    """
    raise DriverError("disconnected", await client.ended())


async def next_order(orders: asyncio.Queue[Message], period: float) -> Message | None:
    """The next message, or None where none came within `period` seconds."""
    try:
        async with asyncio.timeout(period):
            return await orders.get()
    except TimeoutError:
        return None


class Played:
    """The points of a device: what each is now, in engineering units, and as the device says it."""

    def __init__(self, device: MqttDevice) -> None:
        self._device = device
        self._behaviours = behaviours(device)
        self._written: dict[str, Value] = {}
        self._began = time.monotonic()

    @property
    def period(self) -> float:
        """Seconds between two looks at what has changed."""
        polls = [point.poll for point in self._device.points.values() if point.poll is not None]
        return min([self._device.poll, *polls])

    def value(self, name: str) -> Value | None:
        """What a point is now; None: it has no value."""
        value = self._written.get(name)
        if value is None and name in self._behaviours:
            value = self._behaviours[name].at(time.monotonic() - self._began)
        return value

    def now(self) -> Iterator[tuple[MqttPoint, Any]]:
        """Each point that has a value, and that value as the device says it."""
        for name, point in self._device.points.items():
            value = self.value(name)
            if value is not None:
                yield point, point.raw(value)

    def write(self, name: str, value: Value) -> None:
        """Takes a value that was written to a point; points that follow it set out for it."""
        self._written[name] = value
        for behaviour in self._behaviours.values():
            if behaviour.follows == name and isinstance(value, int | float):
                behaviour.aim(time.monotonic() - self._began, value)
