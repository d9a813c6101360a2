"""Our driver against node-opcua's server."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from node_opcua import GET, POLICIES, URI, Files, Need, Program, program, why_missing
from opendnp3_peer import free_port

from protocols.base import DeviceState, DriverError, Sample
from protocols.opcua.browse import browse
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.driver import OpcuaDriver
from protocols.opcua.session import Session
from protocols.opcua.walk import Bounds

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_S = 60.0
MODES = {0: "stopped", 1: "manual", 2: "auto"}
POINTS: Mapping[str, Mapping[str, Any]] = {
    "level": {"node": "Level", "unit": "m", "deadband": 0.5},
    "level-as-it-is": {"node": "Level"},
    "pressure": {"node": "Pressure", "deadband_percent": 10.0},
    "pressure-as-it-is": {"node": "Pressure"},
    "count": {"node": "Count", "type": "integer"},
    "speed": {"node": "Speed", "type": "integer", "access": "rw"},
    "running": {"node": "Running", "type": "boolean", "access": "rw"},
    "name": {"node": "Name", "type": "string", "access": "rw"},
    "label": {"node": "Label", "type": "string"},
    "temperatures": {"node": "Temperatures", "type": "array", "access": "rw"},
    "two": {"node": "Temperatures", "type": "array", "index_range": "1:2"},
    "guid": {"node": "Guid", "type": "string"},
    "raw": {"node": "Raw", "type": "string"},
    "since": {"node": "Since", "type": "string"},
    "mode": {"node": "Mode", "type": "enumeration", "labels": MODES, "access": "rw"},
    "phase": {"node": "Phase", "type": "enumeration", "labels": {0: "idle", 10: "filling"}},
    "limits": {"node": "Limits", "type": "object"},
    "setpoint": {"node": "Setpoint", "access": "rw"},
    "secret": {"node": "Secret", "access": "rw"},
}  # fmt: skip
VALUES = {
    "level": 1.5,
    "level-as-it-is": 1.5,
    "pressure": 101.5,
    "pressure-as-it-is": 101.5,
    "count": 7,
    "speed": 1200,
    "running": True,
    "name": "tank 7",
    "label": "Tank seven",
    "temperatures": [20.5, 21.5, 22.5],
    "two": [21.5, 22.5],
    "raw": "beef",
    "since": "2024-01-02T03:04:05.678000Z",
    "mode": "manual",
    "phase": "filling",
    "limits": {"Low": 0.5, "High": 3.5},
    "setpoint": 2.0,
    "secret": 1.0,
}


class Heard:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.losses: list[tuple[int, str]] = []
        self._news = asyncio.Event()

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)
        self._news.set()

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append((state, reason))
        self._news.set()

    def frames(self, body: bytes, time_ns: int) -> None:
        raise AssertionError

    def missed(self, cycles: int, period: float) -> None:
        pass

    def lost(self, count: int, reason: str) -> None:
        self.losses.append((count, reason))

    async def kept(self) -> None:
        pass

    def of(self, point: str) -> list[Any]:
        return [one.values[point] for one in self.samples if point in one.values]

    async def when(self, true: Callable[[], bool]) -> None:
        """Returns when something is true of what was heard."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def until(self, point: str, last: Any) -> None:
        """Returns when a point had a value."""
        await self.when(lambda: last in self.of(point))

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """The first event of the alarms that has these fields."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.of("alarms") if wanted.items() <= event.items()]

        await self.when(lambda: bool(found()))
        return found()[0]


class Rig:
    """node-opcua's server, and our drivers at it."""

    def __init__(self, server: Program, port: int, files: Files) -> None:
        self.server = server
        self.port = port
        self.files = files

    def device(self, *, policy: str = "None", user: str | None = "operator", **more: Any) -> OpcuaDevice:
        points = {
            name: {**fields, "node": f"nsu={URI};s=Plant.Tank.{fields['node']}"}
            for name, fields in POINTS.items()
        }
        events = {"node": "i=2253", "type": "object", "events": "alarms"}
        points |= {"alarms": events, "severe": {**events, "severity": 100}}
        who: dict[str, Any] = {"name": user, "password_file": str(self.files.folder / "password")}
        if policy == "None":
            who["allow_insecure"] = True
        connection = {
            "url": f"opc.tcp://127.0.0.1:{self.port}",
            "security": self.files.security(policy),
            "user": who,
        }
        fields = {
            "protocol": "opcua",
            "connection": connection,
            "subscription": {"publishing_interval": "50ms"},
            "sampling_interval": "20ms",
            "connect_timeout": "30s",
            "timeout": "10s",
            "queue": 100,
            "methods": {
                "mix": {"object": f"nsu={URI};s=Plant.Tank", "method": f"nsu={URI};s=Plant.Tank.Mix"}
            },
            "points": points,
        }
        return OpcuaDevice.model_validate({**fields, **more}).named("tank")


@contextlib.asynccontextmanager
async def driven(device: OpcuaDevice) -> AsyncIterator[tuple[OpcuaDriver, Heard, "asyncio.Task[None]"]]:
    """A driver that runs, all its points monitored."""
    driver, heard = OpcuaDriver(device), Heard()
    await driver.connect()
    running = asyncio.create_task(driver.run(heard))
    try:
        await heard.when(lambda: bool(heard.states) or running.done())
        assert [state for state, _ in heard.states] == [DeviceState.ONLINE]
        yield driver, heard, running
    finally:
        running.cancel()
        await asyncio.wait([running])
        await driver.close()


def config(port: int, files: Files) -> dict[str, Any]:
    return {
        "port": port,
        "policies": ["None", *POLICIES],
        "user": "operator",
        "password": "open sesame",
        "limits": {"maxNodesPerRead": 10, "maxMonitoredItemsPerCall": 4, "maxNodesPerBrowse": 3},
        **files.theirs(),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("opcua"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(need: Need, files: Files) -> AsyncIterator[Rig]:
    """A server for all tests of the module: it takes seconds to start."""
    need("node-opcua", why_missing(), GET)
    port = free_port()
    async with program("server", **config(port, files)) as server:
        yield Rig(server, port, files)


@pytest_asyncio.fixture(loop_scope="module")
async def rig(shared: Rig) -> Rig:
    """The server, its values as they are at its start."""
    await shared.server.do("set", values={"Level": 1.5, "Pressure": 101.5, "Setpoint": 2.0})
    return shared


async def test_all_kinds_of_values_are_read_reported_and_written(rig: Rig) -> None:
    async with driven(rig.device()) as (driver, heard, _):
        sample = await driver.read(list(POINTS))
        assert sample.bad == {}
        assert sample.values["guid"].lower() == "72962b91-fa75-4ae6-8d28-b404dc7daf63"  # type: ignore[union-attr]  # it is a text
        assert {name: value for name, value in sample.values.items() if name != "guid"} == VALUES
        for name, value in VALUES.items():
            await heard.until(name, value)
        told: dict[str, Any] = {
            "speed": -5,
            "running": False,
            "name": "Kessel 9 °",
            "temperatures": [1.0, 2.5],
            "mode": "auto",
            "setpoint": 3.25,
        }
        written = await driver.write(told)
        assert dict(written.values) == told
        for name, value in told.items():
            await heard.until(name, value)
        assert await rig.server.do("get", name="Temperatures") == [1.0, 2.5]
        with pytest.raises(DriverError, match="secret") as refused:
            await driver.write({"setpoint": 1.5, "secret": 2.0})
        assert refused.value.code == "device-error"
        assert dict(refused.value.written) == {"setpoint": 1.5}


async def test_deadbands_qualities_and_source_times(rig: Rig) -> None:
    async with driven(rig.device()) as (_, heard, _):
        await heard.until("level", 1.5)
        for level in (1.7, 1.9):
            await rig.server.do("set", values={"Level": level})
            await heard.until("level-as-it-is", level)
        await rig.server.do("set", values={"Level": 2.5})
        await heard.until("level", 2.5)
        await rig.server.do("set", values={"Level": 2.6})
        await heard.until("level-as-it-is", 2.6)
        await rig.server.do("set", values={"Level": 1.8})
        await heard.until("level", 1.8)
        assert heard.of("level") == [1.5, 2.5, 1.8]
        await rig.server.do("set", values={"Pressure": 130.0})
        await heard.until("pressure-as-it-is", 130.0)
        await rig.server.do("set", values={"Pressure": 170.0})
        await heard.until("pressure", 170.0)
        assert heard.of("pressure") == [101.5, 170.0]
        for name, status in (
            ("stale", "UncertainLastUsableValue"),
            ("device-error", "BadSensorFailure"),
            ("disconnected", "BadCommunicationError"),
        ):
            await rig.server.do("set", values={"Setpoint": 9.5}, status=status)
            await heard.when(lambda name=name: any(one.bad.get("setpoint") == name for one in heard.samples))  # type: ignore[misc]  # a default binds the name
        assert heard.losses == []


async def test_methods_and_history(rig: Rig) -> None:
    async with driven(rig.device()) as (driver, heard, _):
        done = await driver.call("call", {"name": "mix", "args": {"speed": 2.5, "times": 3}})
        assert "7.5" in str(done)
        with pytest.raises(DriverError, match="BadOutOfRange"):
            await driver.call("call", {"name": "mix", "args": [1.0, 0]})
        for value in (4.0, 5.0, 6.0):
            await driver.write({"setpoint": value})
            await heard.until("setpoint", value)
        told = await driver.call("history", {"point": "setpoint", "start": "2020-01-01T00:00:00Z"})
        assert [row.get("value") for row in told["values"]][-3:] == [4.0, 5.0, 6.0]


async def test_an_alarm_comes_is_acknowledged_refreshed_and_confirmed(rig: Rig) -> None:
    async with driven(rig.device()) as (driver, heard, _):
        await rig.server.do("set", values={"Level": 3.9})
        begun = await heard.event(active=True, acked=False)
        identity = {name: begun[name] for name in ("event_id", "condition")}
        assert begun["type"] == "ExclusiveLimitAlarmType"
        assert begun["condition"] == f"nsu={URI};s=Plant.Tank.LevelAlarm"
        assert begun["source_node"] == f"nsu={URI};s=Plant.Tank"
        assert (begun["name"], begun["severity"], begun["retain"]) == ("LevelAlarm", 150, True)
        assert begun["message"] == "Condition is 3.900 and state is HighHigh"
        done = await driver.call("acknowledge", {**identity, "comment": "seen"})
        assert done == {"status": "acknowledged"}
        acked = await heard.event(active=True, acked=True, comment="seen")
        with pytest.raises(DriverError, match="Bad"):
            await driver.call("acknowledge", identity)
        before = len(heard.of("alarms"))
        assert await driver.call("refresh", {}) == {"subscriptions": 1}
        await heard.when(lambda: len(heard.of("alarms")) > before)
        again = heard.of("alarms")[-1]
        assert (again["name"], again["active"], again["acked"]) == ("LevelAlarm", True, True)
        identity = {name: acked[name] for name in ("event_id", "condition")}
        assert await driver.call("confirm", {**identity, "comment": "done"}) == {"status": "confirmed"}
        await heard.event(confirmed=True, comment="done")
        await rig.server.do("set", values={"Level": 1.5})
        over = await heard.event(active=False)
        assert over["severity"] == 0
        assert {event["severity"] for event in heard.of("severe")} == {150}


async def test_browsing_finds_units_ranges_labels_and_methods_and_ends_in_loops(rig: Rig) -> None:
    session = Session(rig.device())
    await session.open()
    try:
        browsed = await browse(session, f"nsu={URI};s=Plant", Bounds(), lambda _: None)
    finally:
        await session.close()
    assert browsed.complete
    found = {one.fields.get("method") or one.fields["node"]: one.fields for one in browsed.found}
    level = found[f"nsu={URI};s=Plant.Tank.Level"]
    assert (level["unit"], level["min"], level["max"]) == ("m", 0, 4)
    assert level["description"] == "Level of the tank"
    mode, phase = (found[f"nsu={URI};s=Plant.Tank.{name}"] for name in ("Mode", "Phase"))
    assert mode["labels"] == {0: "Stopped", 1: "Manual", 2: "Auto"}
    assert phase["labels"] == {0: "Idle", 10: "Filling"}
    assert found[f"nsu={URI};s=Plant.Tank.Mix"]["inputs"] == {"speed": "Double", "times": "UInt32"}
    assert {f"nsu={URI};s=Plant.Wide.{number}" for number in range(100)} <= found.keys()


@pytest.mark.parametrize("policy", POLICIES)
async def test_sign_and_encrypt(rig: Rig, policy: str) -> None:
    async with driven(rig.device(policy=policy)) as (driver, heard, _):
        await heard.until("level", 1.5)
        await driver.write({"setpoint": 7.5})
        await heard.until("setpoint", 7.5)


async def test_a_wrong_password_and_a_stranger_are_refused_in_words(rig: Rig, tmp_path: Path) -> None:
    device = rig.device(policy="Basic256Sha256", user="stranger")
    with pytest.raises(DriverError, match="Bad") as refused:
        await OpcuaDriver(device).connect()
    assert refused.value.code == "disconnected"
    other = Files(tmp_path)  # whose certificates the server does not know
    with pytest.raises(DriverError, match="trust") as untrusted:
        await OpcuaDriver(Rig(rig.server, rig.port, other).device(policy="Basic256Sha256")).connect()
    assert untrusted.value.code == "disconnected"


async def test_after_the_server_was_killed_everything_is_made_anew_with_its_deadband(
    need: Need, files: Files
) -> None:
    need("node-opcua", why_missing(), GET)
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(program("server", **config(port, files)))
        device = Rig(first, port, files).device(policy="Basic256Sha256")
        driver, heard = OpcuaDriver(device), Heard()
        await driver.connect()
        running = asyncio.create_task(driver.run(heard))
        await heard.until("level", 1.5)
        first.process.kill()
        with pytest.raises(DriverError) as lost:
            async with asyncio.timeout(PATIENCE_S):
                await running
        assert lost.value.code == "disconnected"
        heard = Heard()
        async with program("server", **config(port, files)) as second:
            await driver.connect()
            running = asyncio.create_task(driver.run(heard))
            try:
                await heard.until("level", 1.5)
                await second.do("set", values={"Level": 1.7})
                await heard.until("level-as-it-is", 1.7)
                await second.do("set", values={"Level": 2.5})
                await heard.until("level", 2.5)
                assert heard.of("level") == [1.5, 2.5]
            finally:
                running.cancel()
                await asyncio.wait([running])
                await driver.close()


async def test_a_server_that_hangs_is_noticed_and_taken_up_again(rig: Rig) -> None:
    device = rig.device(policy="Basic256Sha256", timeout="1s")
    async with driven(device) as (driver, heard, running):
        await heard.until("level", 1.5)
        rig.server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DriverError):
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.shield(running)
        finally:
            rig.server.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(DriverError):
                    await driver.connect()
                    break
        again = asyncio.create_task(driver.run(heard))
        try:
            await rig.server.do("set", values={"Level": 3.0})
            await heard.until("level", 3.0)
        finally:
            again.cancel()
            await asyncio.wait([again])
