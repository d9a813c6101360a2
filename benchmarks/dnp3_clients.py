"""The masters that the DNP3 benchmark measures, each in a process of its own: `CLIENT PORT`.

Prints a line of JSON: CPU and wall-clock seconds of the polls, and the seconds that each operate took.
"""

import asyncio
import json
import queue
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

POINTS = 1000
POLLS = 100
WARM_UP = 20
OPERATES = 200
OUTSTATION, MASTER = 10, 1
LAMP = 0
"""The binary output that is operated."""


async def _measured(poll: Callable[[], Awaitable[None]], operate: Callable[[], Awaitable[None]]) -> None:
    """For a client on asyncio."""
    for _ in range(WARM_UP):
        await poll()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(POLLS):
        await poll()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    took = []
    for _ in range(OPERATES):
        start = time.perf_counter()
        await operate()
        took.append(time.perf_counter() - start)
    print(json.dumps([cpu, wall, took]))


class _Values:
    """A sink that keeps the last value of each point."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def sample(self, sample: Any) -> None:
        self.values.update(sample.values)

    def state(self, *_: Any) -> None:
        pass

    def frames(self, *_: Any) -> None:
        pass

    def missed(self, *_: Any) -> None:
        pass

    def lost(self, *_: Any) -> None:
        pass

    async def kept(self) -> None:
        pass


async def _hilgate(port: int) -> None:
    """hilgate's driver: engineering values by name, with their qualities."""
    from protocols.dnp3.config import Dnp3Device
    from protocols.dnp3.driver import Dnp3Driver

    points: dict[str, Any] = {f"a{n}": {"type": "analog_input", "index": n} for n in range(POINTS)}
    points["lamp"] = {"type": "binary_output", "index": LAMP, "access": "wo", "mode": "direct"}
    never = dict.fromkeys(("class_1", "class_2", "class_3", "integrity"), "never")
    device = Dnp3Device.model_validate(
        {
            "protocol": "dnp3",
            "connection": {"transport": "tcp", "host": "127.0.0.1", "port": port},
            "outstation": OUTSTATION,
            "master": MASTER,
            "points": points,
            "polls": never,
            "unsolicited": [],
        }
    ).named("bay")
    driver, sink = Dnp3Driver(device, {}), _Values()
    await driver.connect()
    running = asyncio.create_task(driver.run(sink))
    while len(sink.values) < POINTS:  # what it does at its start
        await asyncio.sleep(0.01)

    async def poll() -> None:
        sink.values = {}
        await driver.call("integrity", {})
        assert len(sink.values) == POINTS
        assert sink.values["a7"] == 7

    async def operate() -> None:
        await driver.write({"lamp": True})

    await _measured(poll, operate)
    running.cancel()
    await asyncio.wait([running])
    await driver.close()


def _opendnp3(port: int, taking: bool) -> None:
    """opendnp3's master in Python, `taking` value and flags of each object it is handed, or leaving them."""
    import opendnp3

    finished: queue.Queue[bool] = queue.Queue()
    started: queue.Queue[bool] = queue.Queue()

    class Measurements(opendnp3.ISOEHandler):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            super().__init__()
            self.values: dict[int, tuple[float, int]] = {}
            self.count = 0

        def BeginFragment(self, info: Any) -> None:
            pass

        def EndFragment(self, info: Any) -> None:
            pass

        def Process(self, info: Any, values: Any) -> None:
            if info.gv.name.startswith("Group30"):
                self.count += len(values)
                if taking:
                    for one in values:
                        analog = one.value
                        self.values[one.index] = (analog.value, analog.flags.value)

    class Application(opendnp3.IMasterApplication):  # type: ignore[misc]  # it has no types
        def OnReceiveIIN(self, iin: Any) -> None:
            pass

        def OnTaskStart(self, kind: Any, number: Any) -> None:
            pass

        def OnTaskComplete(self, info: Any) -> None:
            if info.type == opendnp3.MasterTaskType.USER_TASK:
                finished.put(info.result == opendnp3.TaskCompletion.SUCCESS)
            elif info.type == opendnp3.MasterTaskType.ENABLE_UNSOLICITED:
                started.put(True)

        def OnOpen(self) -> None:
            pass

        def OnClose(self) -> None:
            pass

        def AssignClassDuringStartup(self) -> bool:
            return False

        def Now(self) -> Any:
            return opendnp3.UTCTimestamp(time.time_ns() // 1_000_000)

    manager, measurements, application = opendnp3.DNP3Manager(1), Measurements(), Application()
    end = opendnp3.IPEndpoint("127.0.0.1", port)
    quiet, retry = opendnp3.levels.NOTHING, opendnp3.ChannelRetry.Default()
    line = manager.AddTCPClient("line", quiet, retry, [end], "127.0.0.1", None)
    config = opendnp3.MasterStackConfig()
    config.link.LocalAddr, config.link.RemoteAddr = MASTER, OUTSTATION
    master = line.AddMaster("master", measurements, application, config)
    master.Enable()
    started.get(timeout=30)
    field = opendnp3.ClassField.AllClasses()

    async def poll() -> None:  # asynchronous in name only: its threads work while this one waits
        measurements.values, measurements.count = {}, 0
        master.ScanClasses(field, measurements)
        assert finished.get(timeout=30)
        assert measurements.count == POINTS
        assert not taking or measurements.values[7][0] == 7

    answers: queue.Queue[bool] = queue.Queue()
    lamp = opendnp3.ControlRelayOutputBlock(opendnp3.OperationType.LATCH_ON)

    def told(result: Any) -> None:
        answers.put(result.summary == opendnp3.TaskCompletion.SUCCESS)

    async def operate() -> None:
        master.DirectOperate(lamp, LAMP, told)
        assert answers.get(timeout=30)

    asyncio.run(_measured(poll, operate))
    manager.Shutdown()


def main() -> None:
    client, port = sys.argv[1], int(sys.argv[2])
    if client == "hilgate":
        asyncio.run(_hilgate(port))
    elif client == "hilgate-uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_hilgate(port))
    else:
        _opendnp3(port, client == "opendnp3")


if __name__ == "__main__":
    main()
