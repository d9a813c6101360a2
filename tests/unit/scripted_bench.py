"""A bench of devices that do what a test says, and a log of what they saw, in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from agent.bench import Bench
from agent.device import Device
from agent.events import Events, Mode
from agent.profile import Profile
from agent.safety import Safety
from agent.store import Store
from protocols.base import DriverError, Quality, Sample, Sink, Value
from protocols.modbus.config import ModbusDevice

PATIENCE_S = 30.0


class ScriptedDriver:
    """Holds values. `refuses` and `sticks` are points that do not take them, with and without saying so."""

    def __init__(self, name: str, values: Mapping[str, Value], log: list[str]) -> None:
        self.name = name
        self.values = dict(values)
        self.log = log
        self.refuses: set[str] = set()
        self.sticks: set[str] = set()
        self.unreadable: set[str] = set()
        self.hangs = False
        self.dead = False
        self.broken = False
        self.lost = asyncio.Event()

    def die(self) -> None:
        """Loses the link, and is not there any more."""
        self.dead = True
        self.lost.set()

    def rise(self) -> None:
        """Is there again."""
        self.dead = False

    async def connect(self) -> None:
        self._need()
        self.lost.clear()

    async def run(self, sink: Sink) -> None:
        sink.sample(Sample(1, dict.fromkeys(self.values, 0)))
        await self.lost.wait()
        raise DriverError("disconnected", f"{self.name}: cable pulled")

    async def read(self, points: Sequence[str]) -> Sample:
        await self._touch()
        self.log.append(f"{self.name} read {' '.join(points)}")
        values = {name: self.values[name] for name in points if name not in self.unreadable}
        if not values:
            raise DriverError("timeout", f"{self.name} does not answer")
        return Sample(1, values, {name: Quality.TIMEOUT for name in points if name in self.unreadable})

    async def write(self, values: Mapping[str, Value]) -> Sample:
        await self._touch()
        written: dict[str, Value] = {}
        for name, value in values.items():
            if name in self.refuses:
                raise DriverError("device-error", f"{self.name} refuses {name}", written)
            self.log.append(f"{self.name} {name}={value}")
            if name not in self.sticks:
                self.values[name] = value
            written[name] = value
        return Sample(1, written)

    async def _touch(self) -> None:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.broken:
            raise ZeroDivisionError("a bug")
        self._need()

    def _need(self) -> None:
        if self.dead:
            raise DriverError("disconnected", f"{self.name}: nobody there")

    def rest(self) -> None: ...

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        self.lost.clear()


class RecordedEvents(Events):
    """Keeps what is said of the bench itself: type, body and mode."""

    def __init__(self, store: Store) -> None:
        super().__init__("rig", store)
        self.said: list[tuple[str, Any, Mode]] = []

    def bench(self, kind: str, body: Any, *, mode: Mode) -> None:
        self.said.append((kind, body, mode))
        super().bench(kind, body, mode=mode)


class Rig:
    """A bench under supervision, its safety, and what came of both."""

    def __init__(
        self, store: Store, devices: Mapping[str, Mapping[str, Any]], broker_loss: float | None = None
    ) -> None:
        self.store = store
        self.log: list[str] = []
        self.connected = True
        self.changes = 0
        self.events = events = RecordedEvents(store)
        configs = {name: config(name, points) for name, points in devices.items()}
        self.bench = Bench(Profile(profile="rig", devices=configs), events, sil=False)
        self.drivers: dict[str, ScriptedDriver] = {}
        for name, one in configs.items():
            values = {point: each.kind != "boolean" and 0 for point, each in one.points.items()}
            self.drivers[name] = driver = ScriptedDriver(name, values, self.log)
            self.bench.devices[name] = Device(one, driver, "hil", events, self.bench.latest, lambda: None)
        self.safety = Safety(
            self.bench,
            store,
            events,
            changed=self._changed,
            connected=lambda: self.connected,
            broker_loss=broker_loss,
        )

    def _changed(self) -> None:
        self.changes += 1

    def __getitem__(self, name: str) -> Device:
        return self.bench.devices[name]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Supervises the devices; those that are not dead are online within."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(device.supervise()) for device in self.bench.devices.values()]
            async with asyncio.timeout(PATIENCE_S):
                while not all(device.tried for device in self.bench.devices.values()):
                    await asyncio.sleep(0)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


async def until(found: Callable[[], object]) -> None:
    """Waits until something is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not found():
            await asyncio.sleep(0.005)


def config(name: str, points: Mapping[str, Any]) -> ModbusDevice:
    """A device with points at addresses far from each other; each is `rw` if it says nothing else."""
    described = {
        point: {"table": "holding", "address": 10 * number, "access": "rw"} | fields
        for number, (point, fields) in enumerate(points.items())
    }
    content = {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc.bench.example"},
        "address_base": 0,
        "points": described,
    }
    return ModbusDevice.model_validate(content).named(name)
