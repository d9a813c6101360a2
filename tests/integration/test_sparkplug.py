"""The driver against the simulated Sparkplug B device, over a real broker."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from mqtt_rig import driven, far_end
from waiting import until

from protocols.base import DeviceState, DriverError, Quality
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Message
from sim.mqtt.devices import simulated

POINTS: dict[str, Any] = {
    "speed": {"metric": "Line/Speed", "access": "rw", "min": 0, "max": 100},
    "count": {"metric": "Line/Count", "type": "integer"},
    "running": {"metric": "Line/Running", "type": "boolean"},
    "mode": {"metric": "Line/Mode", "type": "enumeration", "labels": {0: "idle", 1: "auto"}},
    "profile": {"metric": "Line/Profile", "type": "array"},
    "reset": {"metric": "Line/Reset", "type": "boolean", "access": "wo"},
}
SIM: dict[str, Any] = {
    "speed": 5,
    "running": True,
    "mode": "auto",
    "profile": [1.5, 2.5],
    "count": {"ramp": {"from": 0, "to": 1000, "period": "10s"}},
}


def packer(**place: Any) -> MqttDevice:
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "127.0.0.1"},
        "payload": "sparkplug",
        "sparkplug": {"group": "plant", "edge_node": "line-1", "device": "packer", **place},
        "poll": "50ms",
        "timeout": "15s",
        "points": POINTS,
        "sim": SIM,
    }
    return MqttDevice.model_validate(whole).named("packer")


@pytest.fixture(params=["packer", None])
async def device(request: pytest.FixtureRequest) -> AsyncIterator[MqttDevice]:
    """A device of an edge node, and an edge node by itself."""
    async with simulated({"packer": packer(device=request.param)}) as moved:
        yield moved["packer"]


async def test_births_and_data_become_samples(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard):
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        first = await driver.read(["speed", "running", "mode", "profile"])
        assert first.values == {"speed": 5, "running": True, "mode": "auto", "profile": [1.5, 2.5]}
        await until(lambda: len({s.values["count"] for s in heard.samples if "count" in s.values}) > 3)
        status = await driver.call("status", {})
        assert status["born"]
        assert status["skipped"] == {}


async def test_a_command_is_shown_by_the_device(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard):
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        await driver.write({"speed": 42.5, "reset": True})
        assert (await driver.read(["speed"])).values == {"speed": 42.5}


async def test_a_rebirth_is_asked_for_and_had(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard):
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        answer = await driver.call("rebirth", {})
        assert answer["metrics"] >= len(POINTS)


async def test_the_primary_host_says_that_it_is_there_and_when_it_goes() -> None:
    async with simulated({"packer": packer(host="hil")}) as moved:
        device = moved["packer"]
        async with far_end(device.connection.port) as other:
            heard: list[Message] = other.heard
            await other.hears("spBv1.0/STATE/hil")
            async with driven(device):
                await until(lambda: any(b'"online":true' in message.payload for message in heard))
            await until(lambda: b'"online":false' in heard[-1].payload)


async def test_an_edge_node_that_dies_leaves_its_points_disconnected() -> None:
    async with simulated({"packer": packer()}) as moved:
        device = moved["packer"]
        async with far_end(device.connection.port) as other, driven(device) as (driver, heard):
            await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
            await other.says("spBv1.0/plant/NDEATH/line-1", b"")
            await until(lambda: "died" in heard.states[-1][1])
            assert heard.samples[-1].bad["speed"] is Quality.DISCONNECTED
            with pytest.raises(DriverError, match="died"):
                await driver.read(["speed"])
            with pytest.raises(DriverError, match="nothing was published"):
                await driver.write({"speed": 1})
            await driver.call("rebirth", {})
            await until(lambda: heard.states[-1][0] is DeviceState.ONLINE)
