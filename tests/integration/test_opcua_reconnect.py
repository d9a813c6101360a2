"""What a link that was lost leaves: what the server holds arrives later, in order and once."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from opcua_server import Plant, Proxy, Running, device, plant, running
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIME_NS = 1767323045 * 10**9
SECOND_NS = 10**9
POINTS: dict[str, Any] = {"speed": {"queue": 20}, "level": {"deadband": 5}}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[Plant]:
    async with plant() as one:
        await one.variable("speed", 0.0)
        await one.variable("level", 0.0)
        yield one


@pytest_asyncio.fixture(loop_scope="module", name="proxy")
async def _proxy(server: Plant) -> AsyncIterator[Proxy]:
    await server.put("speed", 0.0)
    await server.put("level", 0.0)
    async with Proxy(server.port) as one:
        yield one


async def _cut_and_change(
    one: Running, server: Plant, proxy: Proxy, meanwhile: Callable[[], object], changes: int = 5
) -> None:
    """Cuts the link, changes the speed from 10 upwards meanwhile, and connects again."""
    await until(lambda: one.sink.of("speed"))
    await proxy.cut(refuse=True)
    await one.ended()
    one.sink.samples.clear()
    for change in range(changes):
        await server.put("speed", 10.0 + change, SourceTimestamp=TIME + timedelta(seconds=change))
    meanwhile()
    proxy.refuses = False
    await one.start()
    await until(lambda: one.sink.of("speed")[-1:] == [9.0 + changes])


async def _deadband_holds(one: Running, server: Plant) -> None:
    await server.put("level", 100.0)
    await until(lambda: one.sink.of("level")[-1:] == [100.0])
    one.sink.samples.clear()
    await server.put("level", 101.0)
    await server.put("level", 50.0)
    await until(lambda: 50.0 in one.sink.of("level"))
    assert 101.0 not in one.sink.of("level")


def _nothing() -> None:
    pass


async def test_the_session_is_taken_up_again_and_nothing_is_lost(server: Plant, proxy: Proxy) -> None:
    async with running(device(proxy.url, POINTS)) as one:
        before = one.driver.subscription_ids()
        await _cut_and_change(one, server, proxy, _nothing)
        assert one.sink.of("speed") == [10.0, 11.0, 12.0, 13.0, 14.0]
        times = [sample.time_ns for sample in one.sink.samples if "speed" in sample.values]
        assert times == [TIME_NS + second * SECOND_NS for second in range(5)]
        assert one.sink.losses == []
        assert one.driver.subscription_ids() == before
        await _deadband_holds(one, server)


async def test_it_is_so_after_every_cut(server: Plant, proxy: Proxy) -> None:
    async with running(device(proxy.url, POINTS)) as one:
        for _ in range(3):
            await server.put("speed", 0.0)
            await until(lambda: one.sink.of("speed")[-1:] == [0.0])
            await _cut_and_change(one, server, proxy, _nothing)
            assert one.sink.of("speed") == [10.0, 11.0, 12.0, 13.0, 14.0]
        assert one.sink.losses == []


async def test_a_messages_answer_that_was_lost_is_sent_again(server: Plant, proxy: Proxy) -> None:
    async with running(device(proxy.url, POINTS)) as one:
        await until(lambda: one.sink.of("speed") and one.sink.of("level"))
        one.sink.samples.clear()
        proxy.hold()  # the server sends, and nothing arrives
        for change in range(5):
            await server.put("speed", 20.0 + change)
        held = server.server.iserver.subscription_service.subscriptions
        (subscription,) = held.values()
        await until(lambda: not subscription._triggered_datachanges)
        await proxy.cut()
        await one.ended()
        proxy.flow()
        await one.start()
        await until(lambda: one.sink.of("speed")[-1:] == [24.0])
        assert one.sink.of("speed") == [20.0, 21.0, 22.0, 23.0, 24.0]
        assert one.sink.losses == []


async def test_what_the_queue_had_no_room_for_is_a_loss(server: Plant, proxy: Proxy) -> None:
    """This server drops the oldest without the overflow bit; the test sets it as others do."""
    async with running(device(proxy.url, {"speed": {"queue": 3}, "level": {}})) as one:
        await until(lambda: one.sink.of("speed"))
        overflow = ua.StatusCode(ua.UInt32(0x0480))
        await server.put("speed", 5.0, StatusCode=overflow)
        await until(lambda: one.sink.losses)
        assert one.sink.losses == [(1, "queue-overflow")]
        assert one.sink.of("speed")[-1] == 5.0


async def test_another_session_is_given_the_subscriptions(
    server: Plant, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.server.iserver.subscription_service
    transfer = service.transfer_subscriptions

    async def whole(params: Any, session_id: Any, callback: Any) -> Any:
        """asyncua leaves a transferred subscription with the publish requests of the link that is gone."""
        for number in params.SubscriptionIds:
            if number in service.subscriptions:
                service.subscriptions[number].pub_request_callback = callback.__self__.get_publish_request
        return await transfer(params, session_id, callback)

    monkeypatch.setattr(service, "transfer_subscriptions", whole)
    async with running(device(proxy.url, POINTS)) as one:
        before = one.driver.subscription_ids()
        await _cut_and_change(one, server, proxy, server.server.iserver._external_sessions.clear)
        assert one.sink.of("speed") == [10.0, 11.0, 12.0, 13.0, 14.0]
        assert one.sink.losses == []
        assert one.driver.subscription_ids() == before
        await _deadband_holds(one, server)


async def test_subscriptions_that_are_gone_are_made_anew_with_their_deadband(
    server: Plant, proxy: Proxy
) -> None:
    service = server.server.iserver.subscription_service

    def forget() -> None:
        service.subscriptions.clear()

    async with running(device(proxy.url, POINTS)) as one:
        before = one.driver.subscription_ids()
        await _cut_and_change(one, server, proxy, forget)
        assert one.sink.of("speed") == [14.0]  # what it is now
        assert one.sink.losses == [(1, "subscription-lost")]
        assert one.driver.subscription_ids() != before
        await _deadband_holds(one, server)
