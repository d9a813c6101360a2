"""Making a session, and noticing that it is gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError
from opcua_meddler import Meddler
from opcua_server import Plant, Proxy, device, plant, running
from waiting import until

from protocols.base import DriverError
from protocols.opcua.session import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[Plant]:
    async with plant() as one:
        await one.variable("speed", 0.0)
        yield one


async def _refusal(url: str) -> DriverError:
    session = Session(device(url, connect_timeout="1s"))
    with pytest.raises(DriverError) as caught:
        await session.open()
    with pytest.raises(DriverError, match="not connected"):
        _ = session.services
    await session.close()
    return caught.value


async def test_an_unknown_host_is_said() -> None:
    error = await _refusal("opc.tcp://nowhere.invalid:4840")
    assert "host not found" in str(error)
    assert error.code == "disconnected"


async def test_a_port_without_a_server_is_said() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    error = await _refusal(f"opc.tcp://127.0.0.1:{port}")
    assert "refused the connection" in str(error)


async def _other(answer: bytes) -> DriverError:
    """What is said of a server that answers so, and if with nothing, stays mute."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if answer:
            writer.write(answer)
        else:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        return await _refusal(f"opc.tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_server_of_another_protocol_is_said() -> None:
    error = await _other(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "is it an OPC UA server?" in str(error)


async def test_a_server_that_says_nothing_is_a_timeout() -> None:
    error = await _other(b"")
    assert error.code == "timeout"
    assert "1 s" in str(error)


async def test_too_many_sessions_are_said(server: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise ServiceError(StatusCodes.BadTooManySessions)

    monkeypatch.setattr(InternalSession, "create_session", full)
    error = await _refusal(server.url)
    assert "BadTooManySessions" in str(error)


async def test_a_server_that_hangs_ends_the_run(server: Plant) -> None:
    async with Proxy(server.port) as proxy:
        async with running(device(proxy.url, timeout="300ms")) as one:
            await until(lambda: one.sink.samples)
            proxy.hold()
            error = await one.ended()
        assert error.code == "disconnected"
        assert "did not answer within 0.3 s" in str(error)


async def test_a_session_that_the_server_ended_ends_the_run(server: Plant) -> None:
    async with running(device(server.url, timeout="300ms")) as one:
        await until(lambda: one.sink.samples)
        for there in list(server.server.iserver._external_sessions.values()):
            await there.close_session(True)
        await one.ended()
        await one.start()
        assert one.sink.losses == [(1, "subscription-lost")]


async def test_nodes_that_are_not_there_say_why(server: Plant) -> None:
    session = Session(device(server.url))
    await session.open()
    try:
        found = await session.resolve(
            ["i=2258", ["Objects", "2:speed"], ["Objects", "3:speed"], "nsu=urn:other.example;i=1"]
        )
        assert found[:2] == [ua.NodeId(ua.Int32(2258)), ua.NodeId(ua.String("speed"), ua.Int16(2))]
        assert [one.value for one in found[2:] if isinstance(one, ua.StatusCode)] == [
            StatusCodes.BadNoMatch,
            StatusCodes.BadNodeIdUnknown,
        ]
    finally:
        await session.close()


async def test_a_service_that_is_refused_says_its_code(server: Plant) -> None:
    session = Session(device(server.url))
    await session.open()
    try:
        with pytest.raises(DriverError, match="refused to try it: BadNothingToDo") as caught:
            with session.errors("try it"):
                raise UaStatusCodeError(StatusCodes.BadNothingToDo)
        assert caught.value.code == "device-error"
        with pytest.raises(DriverError, match="BadTimeout") as caught:
            with session.errors("try it"):
                raise UaStatusCodeError(StatusCodes.BadTimeout)
        assert caught.value.code == "timeout"
        with pytest.raises(DriverError, match="makes no sense") as caught:
            with session.errors("try it"):
                raise ValueError("17 is not a valid ApplicationType")
        assert caught.value.code == "device-error"
    finally:
        await session.close()


async def test_a_channel_is_renewed_before_its_token_ends(
    server: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocols.opcua.session._RENEWED", 0.5 / 3600)
    async with Meddler(server.port) as meddler:
        async with running(device(meddler.url, timeout="300ms")) as one:
            await until(lambda: meddler.passed.count("OPN") >= 4)  # two of them were for new channels
            await server.put("speed", 51.0)
            await until(lambda: 51.0 in one.sink.of("speed"))
            assert one.sink.losses == []
