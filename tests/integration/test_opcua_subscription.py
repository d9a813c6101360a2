"""How monitored items are made: in pieces that fit the server, with what it makes of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import structlog
from asyncua import ua
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from opcua_server import Plant, device, plant, running
from waiting import until

from protocols.base import DeviceState, Quality

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = [f"p{place}" for place in range(25)]
ALL: dict[str, Any] = {name: {} for name in NAMES}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[Plant]:
    async with plant() as one:
        for name in NAMES:
            await one.variable(name, 1.0)
        yield one


@pytest.fixture(name="calls")
def _calls(server: Plant, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each request had."""
    service = server.server.iserver.subscription_service
    create, sizes = service.create_monitored_items, []

    async def counted(params: Any) -> Any:
        sizes.append(len(params.ItemsToCreate))
        return await create(params)

    monkeypatch.setattr(service, "create_monitored_items", counted)
    return sizes


async def _say(server: Plant, number: int, value: int) -> None:
    node = server.server.get_node(ua.NodeId(ua.Int32(number)))
    await node.write_value(ua.Variant(value, ua.VariantType.UInt32))


async def test_requests_and_subscriptions_fit_the_servers_limits(server: Plant, calls: list[int]) -> None:
    per_call = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
    await _say(server, per_call, 4)
    try:
        config = device(server.url, ALL, subscription={"publishing_interval": "50ms", "max_items": 10})
        async with running(config) as one:
            await until(lambda: all(one.sink.of(name) for name in NAMES))
            assert calls == [4, 4, 2, 4, 4, 2, 4, 1]
            assert len(one.driver.subscription_ids()) == 3
            status = await one.driver.call("status", {})
            assert [each["items"] for each in status["subscriptions"]] == [10, 10, 5]
            assert status["limits"]["monitor"] == 4
    finally:
        await _say(server, per_call, 10000)


async def test_a_limit_that_the_server_does_not_tell_is_found(
    server: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.server.iserver.subscription_service
    create = service.create_monitored_items
    held: dict[int, int] = {}

    async def limited(params: Any) -> Any:
        room = 10 - held.get(params.SubscriptionId, 0)
        wanted = params.ItemsToCreate
        params.ItemsToCreate = wanted[:room]
        results = await create(params) if room > 0 else []
        held[params.SubscriptionId] = held.get(params.SubscriptionId, 0) + len(results)
        refused = ua.StatusCode(ua.UInt32(StatusCodes.BadTooManyMonitoredItems))
        return results + [ua.MonitoredItemCreateResult(refused) for _ in wanted[len(results) :]]

    monkeypatch.setattr(service, "create_monitored_items", limited)
    async with running(device(server.url, ALL)) as one:
        await until(lambda: all(one.sink.of(name) for name in NAMES))
        assert one.sink.states == [(DeviceState.ONLINE, "")]
        assert sorted(held.values()) == [5, 10, 10]


async def test_a_server_that_monitors_no_more_leaves_the_rest_without_values(
    server: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(params: Any) -> Any:
        refused = ua.StatusCode(ua.UInt32(StatusCodes.BadTooManyMonitoredItems))
        return [ua.MonitoredItemCreateResult(refused) for _ in params.ItemsToCreate]

    monkeypatch.setattr(server.server.iserver.subscription_service, "create_monitored_items", none)
    async with running(device(server.url, ALL)) as one:
        state, reason = one.sink.states[0]
        assert state is DeviceState.DEGRADED
        assert "BadTooManyMonitoredItems" in reason
        assert all(one.sink.bad(name) == [Quality.DEVICE_ERROR] for name in NAMES)


async def test_a_deadband_that_the_server_refuses_is_bad_config(
    server: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.server.iserver.subscription_service
    create = service.create_monitored_items

    async def strict(params: Any) -> Any:
        results = await create(params)
        for item, result in zip(params.ItemsToCreate, results, strict=True):
            wanted = item.RequestedParameters.Filter
            if wanted is not None and wanted.DeadbandType == ua.DeadbandType.Percent:
                result.StatusCode = ua.StatusCode(ua.UInt32(StatusCodes.BadDeadbandFilterInvalid))
        return results

    monkeypatch.setattr(service, "create_monitored_items", strict)
    points = {"p0": {"deadband_percent": 5}, "p1": {"deadband": 5}}
    async with running(device(server.url, points)) as one:
        await until(lambda: one.sink.of("p1"))
        assert one.sink.bad("p0") == [Quality.BAD_CONFIG]
        state, reason = one.sink.states[0]
        assert state is DeviceState.DEGRADED
        assert "p0: BadDeadbandFilterInvalid" in reason


async def test_slower_sampling_is_said_once_and_shown(server: Plant) -> None:
    config = device(server.url, {"p0": {"sampling_interval": "1ms"}, "p1": {}})
    with structlog.testing.capture_logs() as logs:
        async with running(config) as one:
            status = await one.driver.call("status", {})
    assert status["subscriptions"][0]["points"]["p0"] == {"sampling_interval": 0.05, "queue": 10}
    slower = [log for log in logs if log["event"] == "slower sampling"]
    assert [log["points"] for log in slower] == ["p0"]


async def test_a_subscription_that_ends_at_the_server_is_made_anew(server: Plant) -> None:
    service = server.server.iserver.subscription_service
    async with running(device(server.url, {"p0": {}})) as one:
        await until(lambda: one.sink.of("p0"))
        (number,) = one.driver.subscription_ids()
        ended = ua.StatusCode(ua.UInt32(StatusCodes.BadTimeout))
        await service.subscriptions[number].enqueue_statuschange(ended)
        await until(lambda: one.driver.subscription_ids() not in ([], [number]))
        await until(lambda: len(one.sink.of("p0")) >= 2)
        assert one.sink.losses == [(1, "subscription-lost")]


async def test_a_message_that_did_not_come_is_asked_for_again(server: Plant) -> None:
    service = server.server.iserver.subscription_service
    async with running(device(server.url, {"p0": {}})) as one:
        await until(lambda: one.sink.of("p0"))
        (number,) = one.driver.subscription_ids()
        there = service.subscriptions[number]
        one.sink.samples.clear()
        await server.put("p0", 61.0)
        there._pop_publish_result()  # it goes nowhere, and is held for Republish
        await server.put("p0", 62.0)
        await until(lambda: 62.0 in one.sink.of("p0"))
        assert one.sink.of("p0") == [61.0, 62.0]
        assert one.sink.losses == []
        await server.put("p0", 63.0)
        gone = there._pop_publish_result()
        there._not_acknowledged_results.pop(gone.NotificationMessage.SequenceNumber)
        await server.put("p0", 64.0)
        await until(lambda: 64.0 in one.sink.of("p0"))
        assert one.sink.of("p0") == [61.0, 62.0, 64.0]
        assert one.sink.losses == [(1, "missed-notifications")]


async def test_a_mute_subscription_is_made_anew(server: Plant) -> None:
    service = server.server.iserver.subscription_service
    config = device(server.url, {"p0": {}}, timeout="200ms")
    async with running(config) as one:
        await until(lambda: one.sink.of("p0"))
        (number,) = one.driver.subscription_ids()
        task = service.subscriptions[number]._task
        assert task is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: one.driver.subscription_ids() not in ([], [number]))
        await until(lambda: len(one.sink.of("p0")) >= 2)
        assert one.sink.losses == [(1, "subscription-lost")]
