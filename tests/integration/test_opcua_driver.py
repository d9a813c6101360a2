"""The driver against a server: values, errors, reads and polls."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from opcua_server import Plant, device, plant, running
from waiting import until

from protocols.base import DeviceState, DriverError, Quality
from protocols.opcua.driver import OpcuaDriver

pytestmark = pytest.mark.asyncio(loop_scope="module")
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIME_NS = 1767323045 * 10**9


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="plant")
async def _plant() -> AsyncIterator[Plant]:
    async with plant() as one:
        await one.variable("speed", 1.0)
        await one.variable("level", 2.0)
        yield one


async def test_initial_values_come_by_themselves_with_the_time_of_their_source(plant: Plant) -> None:
    await plant.put("speed", 1.5, SourceTimestamp=TIME)
    async with running(device(plant.url)) as one:
        await until(lambda: one.sink.samples)
    assert one.sink.samples[0].values == {"speed": 1.5}
    assert one.sink.samples[0].time_ns == TIME_NS
    assert one.sink.states == [(DeviceState.ONLINE, "")]


async def test_changes_of_one_time_are_one_sample(plant: Plant) -> None:
    async with running(device(plant.url, {"speed": {}, "level": {}})) as one:
        await until(lambda: one.sink.of("speed") and one.sink.of("level"))
        one.sink.samples.clear()
        # Without an await that waits between them, both are in one notification.
        await plant.put("speed", 3.5, SourceTimestamp=TIME)
        await plant.put("level", 4.5, SourceTimestamp=TIME)
        await until(lambda: one.sink.of("level"))
    assert [(sample.time_ns, sample.values) for sample in one.sink.samples] == [
        (TIME_NS, {"speed": 3.5, "level": 4.5})
    ]


async def test_several_changes_of_a_point_keep_their_order(plant: Plant) -> None:
    async with running(device(plant.url, {"speed": {"queue": 100}})) as one:
        await until(lambda: one.sink.samples)
        one.sink.samples.clear()
        for value in range(50):
            await plant.put("speed", 100.0 + value, SourceTimestamp=TIME)
        await until(lambda: one.sink.of("speed")[-1:] == [149.0])
    assert one.sink.of("speed") == [100.0 + value for value in range(50)]


async def test_the_gateways_clock_is_that_of_when_values_came(plant: Plant) -> None:
    await plant.put("speed", 1.0, SourceTimestamp=TIME)
    async with running(device(plant.url, time="gateway")) as one:
        await until(lambda: one.sink.samples)
    assert one.sink.samples[0].time_ns > TIME_NS


async def test_a_bad_status_is_a_quality(plant: Plant) -> None:
    async with running(device(plant.url)) as one:
        await until(lambda: one.sink.samples)
        await plant.put("speed", 1.0, StatusCode=ua.StatusCode(ua.UInt32(StatusCodes.BadSensorFailure)))
        await until(lambda: one.sink.bad("speed"))
        await plant.put("speed", 1.0)
    assert one.sink.bad("speed") == [Quality.DEVICE_ERROR]


@pytest.mark.parametrize(
    "node", ["ns=2;s=nothing", "nsu=urn:nobody.example;s=speed", ["Objects", "2:nothing"]]
)
async def test_a_node_that_is_not_there_is_the_points_fault_alone(plant: Plant, node: Any) -> None:
    config = device(plant.url, {"speed": {}, "other": {"node": node}})
    async with running(config) as one:
        await until(lambda: one.sink.of("speed"))
        assert one.sink.bad("other") == [Quality.BAD_CONFIG]
        state, reason = one.sink.states[0]
        assert state is DeviceState.DEGRADED
        assert "other" in reason
        sample = await one.driver.read(["speed", "other"])
        assert set(sample.values) == {"speed"}
        assert sample.bad == {"other": Quality.BAD_CONFIG}


async def test_nodes_are_found_by_uri_and_by_browse_path(plant: Plant) -> None:
    await plant.put("speed", 7.0)
    points = {
        "by_uri": {"node": "nsu=urn:plant.example;s=speed"},
        "by_path": {"node": "/Objects/2:speed"},
        "by_names": {"node": ["Objects", "nsu=urn:plant.example;speed"]},
    }
    async with running(device(plant.url, points)) as one:
        sample = await one.driver.read(list(points))
    assert sample.values == {"by_uri": 7.0, "by_path": 7.0, "by_names": 7.0}


async def test_points_are_polled_at_their_rates(plant: Plant) -> None:
    await plant.put("speed", 7.0)
    points = {"speed": {"poll": "20ms"}, "level": {}, "gone": {"node": "ns=2;s=gone"}}
    async with running(device(plant.url, points, acquisition="poll", poll="1h")) as one:
        await until(lambda: len(one.sink.of("speed")) >= 5)
        assert one.sink.of("level")
        assert one.sink.bad("gone") == [Quality.BAD_CONFIG]
        assert await one.driver.status()
        assert one.driver.subscription_ids() == []


async def test_a_cut_during_polling_ends_the_run(plant: Plant) -> None:
    from opcua_server import Proxy

    async with Proxy(plant.port) as proxy:
        async with running(device(proxy.url, acquisition="poll", poll="50ms")) as one:
            await until(lambda: one.sink.samples)
            await proxy.cut()
            assert (await one.ended()).code == "disconnected"
            await one.start()
            seen = len(one.sink.samples)
            await until(lambda: len(one.sink.samples) > seen)


async def test_a_write_is_read_back(plant: Plant) -> None:
    async with running(device(plant.url, {"speed": {"access": "rw"}})) as one:
        assert (await one.driver.write({"speed": 12.5})).values == {"speed": 12.5}
        await until(lambda: one.sink.of("speed")[-1:] == [12.5])
        assert (await one.driver.read(["speed"])).values == {"speed": 12.5}


async def test_without_a_session_everything_says_so(plant: Plant) -> None:
    driver = OpcuaDriver(device(plant.url))
    with pytest.raises(DriverError, match="not connected") as caught:
        await driver.read(["speed"])
    assert caught.value.code == "disconnected"
    with pytest.raises(DriverError, match="not connected"):
        await driver.call("status", {})
    await driver.close()
    await driver.close()


async def test_the_server_is_left_without_session_and_subscriptions(plant: Plant) -> None:
    async with running(device(plant.url)) as one:
        await until(lambda: one.sink.samples)
    assert not plant.server.iserver.subscription_service.subscriptions
    assert not plant.server.iserver._external_sessions
