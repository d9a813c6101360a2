"""KubeEdge's device twin over mosquitto, as EdgeCore uses it; twin and mapper are simulated."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mosquitto import GET, mosquitto, why_missing

from protocols.base import DriverError
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.driver import MqttDriver
from sim.mqtt.kubeedge import make

WAIT_S = 20.0


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, need: Any) -> Iterator[int]:
    need("mosquitto", why_missing(), GET)
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as found:
        yield found


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("name", ["pump", "default/pump"])
async def test_a_twin_is_read_and_followed(port: int, version: str, name: str) -> None:
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "127.0.0.1", "port": port, "version": version},
        "payload": "kubeedge",
        "kubeedge": {"device": name},
        "timeout": "20s",
        "poll": "100ms",
        "points": {"speed": {"property": "speed", "access": "rw"}},
        "sim": {"speed": 5},
    }
    device = MqttDevice.model_validate(whole).named("pump")
    ready = asyncio.Event()
    playing = asyncio.create_task(make(device, port).run(ready))
    driver = MqttDriver(device)
    try:
        async with asyncio.timeout(WAIT_S):
            await ready.wait()
        await driver.connect()
        assert (await driver.read(["speed"])).values == {"speed": 5}
        await driver.write({"speed": 7.5})
        assert (await driver.read(["speed"])).values == {"speed": 7.5}
    finally:
        await driver.close()
        playing.cancel()
        await asyncio.wait([playing])


async def test_without_edgecore_a_read_times_out(port: int) -> None:
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "127.0.0.1", "port": port},
        "payload": "kubeedge",
        "kubeedge": {"device": "nobody"},
        "timeout": "500ms",
        "points": {"speed": {"property": "speed"}},
    }
    driver = MqttDriver(MqttDevice.model_validate(whole).named("pump"))
    try:
        await driver.connect()
        with pytest.raises(DriverError) as caught:
            await driver.read(["speed"])
        assert caught.value.code == "timeout"
    finally:
        await driver.close()
