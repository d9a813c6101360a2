"""The driver against the simulated device twin, over a real broker."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest
from mqtt_rig import driven, far_end
from scripted import Heard
from waiting import until

from protocols.base import DeviceState, Quality, Refused
from protocols.mqtt.config import MqttDevice
from sim.mqtt.devices import simulated

POINTS: dict[str, Any] = {
    "speed": {"property": "speed", "access": "rw"},
    "running": {"property": "running", "type": "boolean", "access": "rw"},
    "count": {"property": "count", "type": "integer"},
    "name": {"property": "name", "type": "string"},
}
BASE = "$hw/events/device/default/pump/"


def _stands(heard: Heard, state: DeviceState) -> bool:
    return heard.states[-1][0] is state


@pytest.fixture
async def device() -> AsyncIterator[MqttDevice]:
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "127.0.0.1"},
        "payload": "kubeedge",
        "kubeedge": {"device": "default/pump"},
        "poll": "50ms",
        "timeout": "15s",
        "points": POINTS,
        "sim": {
            "speed": 5,
            "name": "pump-7",
            "count": {"ramp": {"from": 0, "to": 1000, "period": "10s"}},
        },
    }
    made = MqttDevice.model_validate(whole).named("pump")
    async with simulated({"pump": made}) as moved:
        yield moved["pump"]


async def test_what_is_reported_becomes_samples(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard):
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        values = (await driver.read(["speed", "running", "name"])).values
        assert values == {"speed": 5, "running": False, "name": "pump-7"}
        await until(lambda: len({s.values["count"] for s in heard.samples if "count" in s.values}) > 3)


async def test_what_is_wanted_is_followed(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard), far_end(device.connection.port) as other:
        await other.hears(BASE + "twin/update/delta")
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        await driver.write({"speed": 12.5, "running": True})
        assert (await driver.read(["speed", "running"])).values == {"speed": 12.5, "running": True}
        await until(lambda: any(b'"delta"' in message.payload for message in other.heard))


async def test_a_device_that_goes_offline_leaves_its_points_disconnected(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard), far_end(device.connection.port) as other:
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        for word in ("offline", "online"):
            told = {"event_id": "", "timestamp": 1, "device": {"name": "pump", "state": word}}
            await other.says(BASE + "state/update/result", msgspec.json.encode(told))
            wanted = DeviceState.ONLINE if word == "online" else DeviceState.DEGRADED
            await until(partial(_stands, heard, wanted))
            if word == "offline":
                assert any(s.bad.get("speed") is Quality.DISCONNECTED for s in heard.samples)
        assert (await driver.read(["speed"])).values == {"speed": 5}


async def test_what_edgecore_refuses_is_shown(device: MqttDevice) -> None:
    async with driven(device) as (driver, heard), far_end(device.connection.port) as other:
        await until(lambda: DeviceState.ONLINE in [state for state, _ in heard.states])
        result = {"event_id": "", "timestamp": 1, "code": 404, "reason": "not found"}
        await other.says(BASE + "twin/get/result", msgspec.json.encode(result))
        await until(lambda: "not found" in heard.states[-1][1])
        with pytest.raises(Refused):
            await driver.call("rebirth", {})
