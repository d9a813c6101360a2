"""A device's supervisor, with drivers that do what the test says: states, qualities, faults kept inside."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import structlog

from agent import device as device_module
from agent.device import Device
from agent.events import Events
from agent.latest import LatestValues
from agent.store import SqliteStore
from protocols.amqp.flavours import Address
from protocols.base import DeviceState, DriverError, Quality, Sample, Sink, Value
from protocols.modbus.config import ModbusDevice

CONFIG = {
    "protocol": "modbus",
    "connection": {"transport": "tcp", "host": "plc.bench.example"},
    "address_base": 0,
    "points": {
        "speed": {"table": "input", "address": 0},
        "secret": {"table": "holding", "address": 1, "access": "wo"},
    },
}

Run = Callable[[Sink], Awaitable[None]]


class ScriptedDriver:
    """Connects and runs as its lists say, one entry an attempt; the last one stays."""

    def __init__(self, connects: Sequence[Exception | None], runs: Sequence[Run]) -> None:
        self._connects = list(connects)
        self._runs = list(runs)
        self.attempts = 0
        self.closed = 0

    async def connect(self) -> None:
        self.attempts += 1
        error = self._connects.pop(0) if len(self._connects) > 1 else self._connects[0]
        if error is not None:
            raise error

    async def run(self, sink: Sink) -> None:
        await (self._runs.pop(0) if len(self._runs) > 1 else self._runs[0])(sink)

    async def read(self, points: Sequence[str]) -> Sample:
        return Sample(0, dict.fromkeys(points, 1))

    async def write(self, values: Mapping[str, Value]) -> Sample:
        return Sample(0, values)

    def rest(self) -> None: ...

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        return method

    async def close(self) -> None:
        self.closed += 1


async def forever(sink: Sink) -> None:
    sink.sample(Sample(1, {"speed": 5}))
    await asyncio.get_running_loop().create_future()


async def lose(sink: Sink) -> None:
    sink.sample(Sample(1, {"speed": 5}))
    raise DriverError("disconnected", "cable pulled")


async def crash(sink: Sink) -> None:
    raise ZeroDivisionError("a bug")


class Bench:
    """A supervised device and what was seen of it."""

    store: SqliteStore

    def __init__(self, driver: ScriptedDriver, **config: Any) -> None:
        self.latest = LatestValues()
        self.states: list[tuple[DeviceState, str]] = []
        self.changed = asyncio.Event()
        configured = ModbusDevice.model_validate(CONFIG | config).named("plc")
        events = Events("rig", self.store)
        self.device = Device(configured, driver, "hil", events, self.latest, self._note)

    def _note(self) -> None:
        self.states.append((self.device.status, self.device.reason))
        self.changed.set()

    async def until(self, *states: DeviceState) -> None:
        async with asyncio.timeout(10):
            while [state for state, _ in self.states[-len(states) :]] != list(states):
                self.changed.clear()
                await self.changed.wait()

    @contextlib.asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.device.supervise())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with contextlib.closing(SqliteStore(None, 10**6, 3600)) as store:
        monkeypatch.setattr(Bench, "store", store, raising=False)
        yield


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(device_module, "BACKOFF_MOST_S", 0.004)


async def test_it_is_online_with_the_first_value_and_not_before() -> None:
    bench = Bench(ScriptedDriver([None], [forever]))
    assert bench.device.status is DeviceState.CONNECTING
    async with bench.supervised():
        await bench.until(DeviceState.ONLINE)
        assert bench.latest.get("plc")["speed"].value == 5


async def test_samples_that_a_device_may_forget_are_in_the_store() -> None:
    """Without a wait for the batch window, which would let the device wait for it too."""
    kept = asyncio.Event()

    async def confirm(sink: Sink) -> None:
        sink.sample(Sample(1, {"speed": 5}))
        assert bench.store.outbox.take(Address("hil.rig.events.plc", "topic")) is None
        await sink.kept()
        kept.set()
        await asyncio.get_running_loop().create_future()

    bench = Bench(ScriptedDriver([None], [confirm]), batch={"window": 3600.0})
    async with bench.supervised(), asyncio.timeout(20):
        await kept.wait()
        taken = []
        while (message := bench.store.outbox.take(Address("hil.rig.events.plc", "topic"))) is not None:
            taken.append(message.data)
    assert any(b'"speed":5' in data for data in taken)


async def test_an_absent_device_is_tried_again_and_said_once() -> None:
    absent = DriverError("disconnected", "nobody there")
    driver = ScriptedDriver([absent, absent, absent, None], [forever])
    bench = Bench(driver)
    async with bench.supervised():
        await bench.until(DeviceState.OFFLINE, DeviceState.ONLINE)
    assert bench.states[0] == (DeviceState.OFFLINE, "nobody there")
    assert driver.attempts == 4
    assert driver.closed == 4


async def test_a_lost_link_leaves_no_old_value() -> None:
    hold = asyncio.Event()

    async def second(sink: Sink) -> None:
        await hold.wait()
        await forever(sink)

    bench = Bench(ScriptedDriver([None], [lose, second]))
    async with bench.supervised():
        await bench.until(DeviceState.ONLINE, DeviceState.OFFLINE)
        last = bench.latest.get("plc")
        assert (last["speed"].value, last["speed"].bad) == (None, Quality.DISCONNECTED)
        assert "secret" not in last
        with pytest.raises(DriverError, match="cable pulled"):
            await bench.device.read(["speed"])
        hold.set()
        await bench.until(DeviceState.OFFLINE, DeviceState.ONLINE)
        assert (await bench.device.read(["speed"])).values == {"speed": 1}


async def test_a_fault_of_the_driver_is_the_devices_and_ends_nothing() -> None:
    bench = Bench(ScriptedDriver([None], [crash, forever]))
    async with bench.supervised():
        await bench.until(DeviceState.OFFLINE, DeviceState.ONLINE)
    assert "ZeroDivisionError" in bench.states[0][1]


async def test_a_fault_that_comes_again_is_logged_once() -> None:
    bench = Bench(ScriptedDriver([None], [crash, crash, crash, forever]))
    with structlog.testing.capture_logs() as lines:
        async with bench.supervised():
            await bench.until(DeviceState.OFFLINE, DeviceState.ONLINE)
    assert len([line for line in lines if line["event"] == "driver failed"]) == 1


async def test_a_driver_that_fails_to_close_or_ends_by_itself_is_connected_again() -> None:
    class Clumsy(ScriptedDriver):
        async def close(self) -> None:
            await super().close()
            raise OSError("cannot close")

    async def end(sink: Sink) -> None:
        sink.sample(Sample(1, {"speed": 5}))

    driver = Clumsy([None], [end, forever])
    bench = Bench(driver)
    async with bench.supervised():
        await bench.until(DeviceState.ONLINE, DeviceState.OFFLINE, DeviceState.ONLINE)
    assert driver.closed == 2


async def test_a_link_that_goes_as_the_agent_stops_does_not_keep_the_device_alive() -> None:
    running = asyncio.Event()

    async def lose_when_cancelled() -> None:
        running.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise DriverError("disconnected", "cable pulled") from None

    async def run(sink: Sink) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lose_when_cancelled())
        except* DriverError:
            pass  # the cancellation is not among them
        raise DriverError("disconnected", "cable pulled")

    driver = ScriptedDriver([None], [run, forever])
    supervising = asyncio.create_task(Bench(driver).device.supervise())
    await running.wait()
    supervising.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([supervising])
    assert supervising.cancelled()
    assert (driver.attempts, driver.closed) == (1, 1)


async def test_a_task_of_a_driver_that_fails_ends_the_link_and_not_the_device() -> None:
    """Python 3.11 leaves the mark of a cancellation on the task whose group a child has failed."""

    async def run(sink: Sink) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lose(sink))
                group.create_task(asyncio.Event().wait())
        except* DriverError:
            pass
        raise DriverError("disconnected", "cable pulled")

    driver = ScriptedDriver([None], [run, run, forever])
    bench = Bench(driver)
    async with bench.supervised():
        await bench.until(DeviceState.OFFLINE, DeviceState.ONLINE, DeviceState.OFFLINE, DeviceState.ONLINE)
    assert driver.attempts == 3


async def test_a_disabled_device_is_left_alone() -> None:
    driver = ScriptedDriver([None], [forever])
    bench = Bench(driver, enabled=False)
    await bench.device.supervise()
    assert (bench.device.status, driver.attempts) == (DeviceState.DISABLED, 0)


async def test_missed_cycles_are_handed_out_once() -> None:
    bench = Bench(ScriptedDriver([None], [forever]))
    bench.device.missed(2, 0.01)
    bench.device.missed(3, 0.01)
    (lost,) = bench.device.losses.take()
    assert (lost.reason, lost.count) == ("missed-cycles", 5)
    assert bench.device.losses.take() == []


async def test_with_report_change_equal_values_leave_once_and_again_after_a_loss() -> None:
    async def same(sink: Sink) -> None:
        for number in range(5):
            sink.sample(Sample(number, {"speed": 5}))
        raise DriverError("disconnected", "cable pulled")

    bench = Bench(ScriptedDriver([None], [same, same, forever]), report="change")
    sent: list[Sample] = []
    bench.device._batch.add = sent.append  # type: ignore[method-assign, assignment]
    async with bench.supervised():
        await bench.until(DeviceState.OFFLINE, DeviceState.ONLINE, DeviceState.OFFLINE, DeviceState.ONLINE)
    assert [(dict(sample.values), dict(sample.bad)) for sample in sent] == [
        ({"speed": 5}, {}),
        ({}, {"speed": "disconnected"}),
    ] * 2 + [({"speed": 5}, {})]
