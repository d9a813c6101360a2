"""Polling: what is wrong with single points, and a server that answers none of the reads."""

import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from opcua_meddler import Meddler, aborted
from opcua_server import Plant, device, plant, running
from waiting import until

from protocols.base import DeviceState, Quality

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEVEL = 7.125


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[Plant]:
    async with plant() as one:
        await one.variable("speed", 1.0)
        await one.variable("level", LEVEL)
        yield one


async def test_a_node_that_the_server_does_not_know_degrades_the_device(server: Plant) -> None:
    points = {"speed": {"poll": "20ms"}, "late": {"poll": "20ms"}}
    async with running(device(server.url, points, acquisition="poll")) as one:
        await until(lambda: one.sink.states[-1][0] is DeviceState.DEGRADED)
        assert one.sink.states[-1][1].startswith("late: BadNodeIdUnknown")
        assert one.sink.bad("late")[0] is Quality.BAD_CONFIG
        said = len(one.sink.states)
        seen = len(one.sink.of("speed"))
        await until(lambda: len(one.sink.of("speed")) > seen + 3)
        assert len(one.sink.states) == said  # once is enough
        await server.variable("late", 2.0)
        await until(lambda: one.sink.of("late"))
        await until(lambda: one.sink.states[-1] == (DeviceState.ONLINE, ""))


async def test_a_server_that_answers_no_read_is_lost(server: Plant) -> None:
    points = {"speed": {"poll": "20ms"}, "level": {"poll": "30ms"}}
    async with Meddler(server.port) as meddler:
        config = device(meddler.url, points, acquisition="poll", timeout="300ms")
        async with running(config) as one:
            await until(lambda: one.sink.of("speed") and one.sink.of("level"))
            values = [struct.pack("<d", value) for value in (1.0, LEVEL)]

            def meddle(name: str, chunk: bytes) -> bytes:
                """What the driver reads to see whether the server is there is answered as ever."""
                return aborted(chunk) if any(value in chunk for value in values) else chunk

            meddler.meddle = meddle
            error = await one.ended()
            assert error.code == "disconnected"
            assert "did not answer within 0.3 s: read 1 attributes" in str(error)
            assert Quality.TIMEOUT in one.sink.bad("speed")


async def test_a_poll_that_is_answered_keeps_the_link(server: Plant) -> None:
    points = {"speed": {"poll": "20ms"}, "level": {"poll": "30ms"}}
    async with Meddler(server.port) as meddler:
        config = device(meddler.url, points, acquisition="poll", timeout="300ms")
        async with running(config) as one:
            await until(lambda: one.sink.of("speed") and one.sink.of("level"))
            level = struct.pack("<d", LEVEL)
            meddler.meddle = lambda _, chunk: aborted(chunk) if level in chunk else chunk
            await until(lambda: len(one.sink.bad("level")) >= 2)
            assert set(one.sink.bad("level")) == {Quality.TIMEOUT}
            meddler.meddle = lambda _, chunk: chunk
            seen = len(one.sink.of("level"))
            await until(lambda: len(one.sink.of("level")) > seen)
