"""Sparkplug B with payloads that another implementation writes and reads, over mosquitto, in both roles.

pysparkplug's own MQTT client does not work with paho-mqtt 2: its payloads go by a client of ours.
"""

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mosquitto import GET, mosquitto, why_missing

from protocols.base import DeviceState
from protocols.mqtt.client import Client
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.driver import MqttDriver
from protocols.mqtt.message import Message, Publication, Subscription
from sim.mqtt.sparkplug import make

WAIT_S = 20.0
POINTS: dict[str, Any] = {
    "speed": {"metric": "Speed", "access": "rw"},
    "count": {"metric": "Count", "type": "integer"},
    "on": {"metric": "On", "type": "boolean"},
    "name": {"metric": "Name", "type": "string"},
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, need: Any) -> Iterator[int]:
    need("mosquitto", why_missing(), GET)
    there = importlib.util.find_spec("pysparkplug") is not None
    need("pysparkplug", None if there else "no pysparkplug", "pip install pysparkplug")
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as found:
        yield found


def device(port: int) -> MqttDevice:
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "127.0.0.1", "port": port},
        "payload": "sparkplug",
        "sparkplug": {"group": "g", "edge_node": "n", "device": "d"},
        "timeout": "20s",
        "poll": "100ms",
        "points": POINTS,
        "sim": {"speed": 1.5, "count": -7, "on": True, "name": "packer"},
    }
    return MqttDevice.model_validate(whole).named("rig")


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.states: list[DeviceState] = []
        self.losses: list[str] = []

    def sample(self, sample: Any) -> None:
        self.values.update(sample.values)

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append(state)

    def frames(self, body: bytes, time_ns: int) -> None: ...

    def missed(self, cycles: int, period: float) -> None: ...

    def lost(self, count: int, reason: str) -> None:
        self.losses.append(reason)

    async def kept(self) -> None: ...


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_edge_node_that_pysparkplug_plays(port: int) -> None:
    import pysparkplug as other

    kinds = other.DataType
    heard: list[Message] = []
    node = Client(device(port).connection, "edge-node", heard.append)
    await node.open()
    await node.subscribe([Subscription("spBv1.0/g/NCMD/n", 1), Subscription("spBv1.0/g/DCMD/n/d", 1)])

    def metric(name: str, datatype: Any, value: Any) -> Any:
        return other.Metric(timestamp=1000, name=name, datatype=datatype, value=value)

    async def says(kind: str, payload: Any) -> None:
        topic = f"spBv1.0/g/{kind}/n{'/d' if kind[0] == 'D' else ''}"
        await node.publish(Publication(topic, payload.encode(include_dtypes=True)))

    driver, sink = MqttDriver(device(port)), Sink()
    run = None
    try:
        await driver.connect()
        run = asyncio.create_task(driver.run(sink))
        await until(lambda: heard)
        (asked,) = other.NCmd.decode(heard[0].payload).metrics
        assert (asked.name, asked.value) == ("Node Control/Rebirth", True)
        await says("NBIRTH", other.NBirth(1000, 0, [metric("bdSeq", kinds.INT64, 3)]))
        born = [
            metric("Speed", kinds.FLOAT, 1.5),
            metric("Count", kinds.INT8, -7),
            metric("On", kinds.BOOLEAN, True),
            metric("Name", kinds.STRING, "packer"),
        ]
        await says("DBIRTH", other.DBirth(1000, 1, born))
        await until(lambda: DeviceState.ONLINE in sink.states)
        assert sink.values == {"speed": 1.5, "count": -7, "on": True, "name": "packer"}
        writing = asyncio.create_task(driver.write({"speed": 42.0}))
        await until(lambda: len(heard) == 2)
        (command,) = other.DCmd.decode(heard[1].payload).metrics
        assert (command.name, command.datatype, command.value) == ("Speed", kinds.FLOAT, 42.0)
        await says("DDATA", other.DData(1000, 2, [metric("Speed", kinds.FLOAT, 42.0)]))
        assert (await writing).values == {"speed": 42.0}
        await says("NDEATH", other.NDeath(timestamp=1, bd_seq_metric=metric("bdSeq", kinds.INT64, 3)))
        await until(lambda: sink.states[-1] is DeviceState.DEGRADED)
        assert sink.losses == []
    finally:
        if run is not None:
            run.cancel()
            await asyncio.wait([run])
        await driver.close()
        await node.close()


async def test_a_host_that_pysparkplug_plays(port: int) -> None:
    import pysparkplug as other

    heard: list[Message] = []
    host = Client(device(port).connection, "host", heard.append)
    await host.open()
    await host.subscribe([Subscription("spBv1.0/g/DBIRTH/n/d", 1), Subscription("spBv1.0/g/DDATA/n/d", 1)])
    ready = asyncio.Event()
    playing = asyncio.create_task(make(device(port), port).run(ready))
    try:
        await until(lambda: heard)
        birth = other.DBirth.decode(heard[0].payload)
        values = {metric.name: metric.value for metric in birth.metrics}
        assert values == {"Speed": 1.5, "Count": -7, "On": True, "Name": "packer"}
        command = other.Metric(timestamp=1, name="Speed", datatype=other.DataType.DOUBLE, value=9.25)
        payload = other.DCmd(1, [command]).encode(include_dtypes=True)
        await host.publish(Publication("spBv1.0/g/DCMD/n/d", payload))
        await until(lambda: len(heard) > 1)
        (changed,) = other.DData.decode(heard[1].payload, birth=birth).metrics
        assert (changed.name, changed.value) == ("Speed", 9.25)
    finally:
        playing.cancel()
        await asyncio.wait([playing])
        await host.close()
