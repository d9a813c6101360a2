"""A protocol whose driver hangs the loop when told to, or crashes: for trying restarts."""

import asyncio
import os
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from protocols.base import DeviceConfig, Kind, Name, PlannedRequest, Point, Sample, Shared, Sink, Value


class FreezingPoint(Point):
    @property
    def kind(self) -> Kind:
        return "number"


class Nowhere(BaseModel):
    crashes: bool = False


class FreezingDevice(DeviceConfig):
    protocol: Literal["freezing"]
    connection: Nowhere = Nowhere()
    points: Mapping[Name, FreezingPoint]


class FreezingDriver:
    def __init__(self, device: FreezingDevice) -> None:
        self._crashes = device.connection.crashes

    async def connect(self) -> None:
        if self._crashes:
            os.abort()  # as a library in C does

    async def run(self, sink: Sink) -> None:
        sink.sample(Sample(time.time_ns(), {"zero": 0}))
        await asyncio.get_running_loop().create_future()

    async def read(self, points: Sequence[str]) -> Sample:
        return Sample(time.time_ns(), dict.fromkeys(points, 0))

    async def write(self, values: Mapping[str, Value]) -> Sample:
        return Sample(time.time_ns(), values)

    def rest(self) -> None: ...

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        time.sleep(3600)  # noqa: ASYNC251  # this is what it is for

    async def close(self) -> None: ...


class Freezing:
    name = "freezing"
    methods: Mapping[str, str] = {"freeze": "hang the loop"}
    writing: Collection[str] = ()

    def config(self) -> type[DeviceConfig]:
        return FreezingDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        return []

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def driver(self, device: Any, shared: Shared) -> FreezingDriver:
        return FreezingDriver(device)


PROTOCOL = Freezing()
