"""Event points of a driver: alarms that were there before it, and what a read of events gives."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import structlog
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from opcua_server import Running, device, plant, running
from waiting import until

from protocols.base import DeviceState, Quality
from protocols.opcua.config import OpcuaDevice
from sim.opcua.devices import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALARMS = {"node": "i=2253", "type": "object", "events": "alarms"}
POINTS = {
    "level": {"node": "nsu=urn:plant.example;s=Level", "access": "rw", "min": 0, "max": 10},
    "alarms": ALARMS,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="served")
async def _served() -> AsyncIterator[Served]:
    """A simulated server whose level is too high since before anybody asked."""
    connection = {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}}
    subscription = {"publishing_interval": "50ms", "keep_alive": "1s"}
    written = {
        "protocol": "opcua",
        "connection": connection,
        "points": POINTS,
        "subscription": subscription,
        "timeout": "30s",
        "connect_timeout": "30s",
    }
    async with serving(OpcuaDevice.model_validate(written).named("plc")) as one:
        async with running(one.device) as first:
            await first.driver.write({"level": 5.0})
            await first.driver.write({"level": 20.0})
            await until(lambda: _active(first))
        yield one


def _active(one: Running) -> list[dict[str, Any]]:
    return [event for event in one.sink.of("alarms") if event["active"]]


async def test_an_alarm_that_was_there_before_is_told_at_connect(served: Served) -> None:
    async with running(served.device) as one:
        await until(lambda: _active(one))
        assert _active(one)[0]["source"] == "level"
        assert one.sink.states == [(DeviceState.ONLINE, "")]


async def test_it_is_told_again_when_its_subscription_was_lost(served: Served) -> None:
    service = served.server.iserver.subscription_service
    async with running(served.device) as one:
        await until(lambda: _active(one))
        one.sink.samples.clear()
        (number,) = one.driver.subscription_ids()
        ended = ua.StatusCode(ua.UInt32(StatusCodes.BadTimeout))
        await service.subscriptions[number].enqueue_statuschange(ended)
        await until(lambda: _active(one))
        assert one.sink.losses == [(1, "subscription-lost")]


async def test_events_that_are_read_are_stale(served: Served) -> None:
    async with running(served.device) as one:
        both = await one.driver.read(["level", "alarms"])
        assert (both.values, both.bad) == ({"level": 20.0}, {"alarms": Quality.STALE})
        alone = await one.driver.read(["alarms"])
        assert (alone.values, alone.bad) == ({}, {"alarms": Quality.STALE})


async def test_a_server_without_alarms_is_well_and_that_is_said_once() -> None:
    async with plant() as server:
        await server.variable("speed", 1.0)
        one = Running(device(server.url, {"speed": {}, "alarms": ALARMS}))
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                await one.start()
                await until(lambda: one.sink.of("speed"))
                assert one.sink.states == [(DeviceState.ONLINE, "")]
                await one.stop()
    told = [log for log in logs if log["event"] == "alarms are told as they change"]
    assert len(told) == 1
    assert "did not refresh its alarms: Bad" in told[0]["why"]
