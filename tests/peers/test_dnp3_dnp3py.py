"""Our DNP3 master and simulated outstation with a third implementation: dnp3py, pure Python, on any CPU."""

import asyncio
import contextlib
import importlib
import importlib.util
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from opendnp3_rig import MASTER, NOISELESS, OUTSTATION, connect, device
from scripted import Heard, running
from waiting import until

from protocols.dnp3.driver import Dnp3Driver
from sim.dnp3.lines import serving
from sim.dnp3.outstation import SimulatedOutstation

pytestmark = pytest.mark.peer("dnp3py")

GET = "pip install dnp3py==0.6.0"
LINE = {"transport": "tcp", "host": "127.0.0.1", "port": 20000}
STAMP_MS = 1_700_000_000_123
POINTS: dict[str, Any] = {
    "door": {"type": "binary_input", "index": 0},
    "level": {"type": "analog_input", "index": 3},
    "energy": {"type": "counter", "index": 1},
    "frozen": {"type": "frozen_counter", "index": 1},
    "lamp": {"type": "binary_output", "index": 2, "access": "rw"},
    "fan": {"type": "binary_output", "index": 1, "access": "rw", "mode": "direct"},
    "horn": {"type": "binary_output", "index": 0, "access": "rw", "mode": "direct-no-ack"},
    "setpoint": {"type": "analog_output", "index": 0, "access": "rw", "output": "int16"},
}


@pytest.fixture(autouse=True)
def _dnp3py(need: Callable[[str, str | None, str], None]) -> None:
    need("dnp3py", None if importlib.util.find_spec("dnp3") else "not installed", GET)


def module(name: str) -> Any:
    """A module of dnp3py, which is imported only where it is there."""
    return importlib.import_module(f"dnp3.{name}")


class Far:
    """Their outstation: what it holds, and what it was told to do."""

    def __init__(self) -> None:
        database, outstation = module("database"), module("outstation")
        self.times: list[Any] = []
        self.operated: list[tuple[str, int]] = []
        self.points = points = database.Database()
        for index in range(4):
            points.add_binary_input(index, database.BinaryInputConfig())
            points.add_analog_input(index, database.AnalogInputConfig())
            points.add_counter(index, database.CounterConfig())
            points.add_frozen_counter(index, database.CounterConfig())
            points.add_binary_output(index, database.BinaryOutputConfig())
            points.add_analog_output(index, database.AnalogOutputConfig())
        succeeded = outstation.CommandResult.success()

        def told(name: str) -> Callable[..., Any]:
            def tell(_handler: object, index: int, **_: Any) -> Any:
                self.operated.append((name, index))
                return succeeded

            return tell

        def freeze(_handler: object, **_: Any) -> Any:  # it takes no ranges: all is frozen
            for index in range(4):
                points.freeze_counter(index)
            return succeeded

        names = [f"{what}_{kind}_output" for what in ("select", "operate", "direct_operate")
                 for kind in ("binary", "analog")]  # fmt: skip
        methods: dict[str, Any] = {name: told(name) for name in names}
        handler = type("Handler", (outstation.DefaultCommandHandler,), {**methods, "freeze_counters": freeze})
        config = outstation.OutstationConfig(address=OUTSTATION, master_address=MASTER)
        made = outstation.Outstation(config, points, handler(), self.times.append)
        self.runner = outstation.OutstationTcpRunner(outstation=made, host="127.0.0.1", port=0)


@contextlib.asynccontextmanager
async def far_outstation(**fields: Any) -> AsyncIterator[tuple[Far, Dnp3Driver, Heard]]:
    """Their outstation, and our driver that runs with it."""
    far = Far()
    task = asyncio.create_task(far.runner.run())
    try:
        await until(lambda: far.runner.is_running)
        driver = Dnp3Driver(device({**LINE, "port": far.runner.local_address[1]}, POINTS, **fields), {})
        try:
            await connect(driver)
            async with running(driver) as heard:
                await heard.until(lambda: heard.samples)
                yield far, driver, heard
        finally:
            await driver.close()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_our_master_reads_their_outstation() -> None:
    async with far_outstation(**NOISELESS) as (far, driver, heard):
        far.points.update_binary_input(0, True)
        far.points.update_analog_input(3, -70_000)
        far.points.update_counter(1, 77)
        values = {"door": True, "level": -70_000, "energy": 77}
        assert (await driver.read(list(values))).values == values
        heard.samples.clear()
        await driver.call("class-poll", {})
        events: dict[str, Any] = {}
        for sample in heard.samples:
            events |= sample.values
        assert events == values
        await driver.call("freeze", {})
        assert (await driver.read(["frozen"])).values == {"frozen": 77}


async def test_our_master_operates_their_outstation() -> None:
    async with far_outstation(**NOISELESS) as (far, driver, _heard):
        await driver.write({"lamp": True})
        assert far.operated == [("select_binary_output", 2), ("operate_binary_output", 2)]
        far.operated.clear()
        await driver.write({"fan": True})
        await driver.write({"horn": True})
        await driver.write({"setpoint": -5})
        controls = [("direct_operate_binary_output", 1), ("direct_operate_binary_output", 0)]
        assert far.operated == [*controls, ("select_analog_output", 0), ("operate_analog_output", 0)]


async def test_our_master_sets_the_clock_of_their_outstation() -> None:
    async with far_outstation(**NOISELESS) as (far, driver, _heard):
        far.times.clear()  # it asked for the time at its start
        for procedure in ("lan", "non-lan"):
            await driver.call("time-sync", {"procedure": procedure})
        assert len(far.times) == 2
        assert all(abs(one.milliseconds - time.time() * 1000) < 60_000 for one in far.times)


@contextlib.asynccontextmanager
async def far_master() -> AsyncIterator[tuple[Any, Any, Any, SimulatedOutstation]]:
    """Their master's handler, master and runner, and our simulated outstation."""
    masters = module("master")
    simulated = device(LINE, POINTS, simulation={"need_time": False})
    async with serving({"bay": simulated}) as served:
        handler = masters.DefaultSOEHandler()
        config = masters.MasterConfig(address=MASTER, outstation_address=OUTSTATION)
        master = masters.Master(handler=handler, config=config)
        port = served.devices["bay"].connection.port
        runner = masters.MasterTcpRunner(master=master, host="127.0.0.1", port=port, response_timeout=20.0)
        async with runner:
            yield handler, master, runner, served.outstations["bay"]


async def test_their_master_reads_our_outstation() -> None:
    async with far_master() as (handler, _master, runner, outstation):
        await runner.integrity_poll()
        assert handler.analog_inputs[3].value == 0
        for name, value in {"door": True, "level": -12.75, "energy": 77}.items():
            outstation.set(name, value, time_ms=STAMP_MS)
        await runner.class_poll()
        for event, value in (
            (handler.binary_inputs[0], True),
            (handler.analog_inputs[3], -12.75),
            (handler.counters[1], 77),
        ):
            assert event.value == value
            assert round(event.timestamp.timestamp() * 1000) == STAMP_MS
        assert len(outstation.buffer) == 0


async def test_their_master_hears_our_outstation_unasked() -> None:
    async with far_master() as (handler, _master, runner, outstation):
        await runner.enable_unsolicited()
        outstation.set("level", 5)
        async with asyncio.timeout(20):
            while 3 not in handler.analog_inputs:
                await runner.listen_unsolicited(timeout=5.0)
        assert handler.analog_inputs[3].value == 5


async def test_their_master_operates_our_outstation() -> None:
    async with far_master() as (_handler, master, runner, outstation):
        commands = module("master").CommandBuilder().latch_on(2)
        await runner.request(master.build_operate(commands.build_operate()))
        assert not outstation.operations  # nothing was selected
        await runner.request(master.build_select(commands.build_select()))
        await runner.request(master.build_operate(commands.build_operate()))
        await runner.request(master.build_direct_operate(commands.build_direct_operate()))
        assert [one.point for one in outstation.operations] == ["lamp", "lamp"]
