"""Servers that break off, fall silent or send what cannot be: said in words within the device's time-outs."""

import asyncio
import logging
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asyncua.common.connection import MessageChunk
from opcua_meddler import Meddler, aborted, cut_short, endless, sized
from opcua_server import Plant, Running, device, plant
from waiting import until

from protocols.base import DriverError
from protocols.opcua import link
from protocols.opcua.session import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONNECTING = ["ACK", "OPN", "GetEndpoints", "CreateSession", "ActivateSession", "Read"]
PHASES = [*CONNECTING, "CreateSubscription", "CreateMonitoredItems", "Publish"]
SHORT = {"timeout": "300ms", "connect_timeout": "1s"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="server")
async def _server() -> AsyncIterator[Plant]:
    async with plant() as one:
        await one.variable("speed", 0.0)
        yield one


@pytest_asyncio.fixture(loop_scope="module", name="meddler")
async def _meddler(server: Plant) -> AsyncIterator[Meddler]:
    async with Meddler(server.port) as one:
        yield one


async def _end(meddler: Meddler, caplog: pytest.LogCaptureFixture, **more: Any) -> DriverError:
    """Has a driver work until its link is lost; says why; no task is left, and the loop does not complain."""
    one = Running(device(meddler.url, **(SHORT | more)))
    before = asyncio.all_tasks()
    try:
        async with asyncio.timeout(60):
            await one.start()
        error = await one.ended()
    except DriverError as raised:
        error = raised
    await one.stop()
    ours = ("cell: ", "watch")
    await until(lambda: not [t for t in asyncio.all_tasks() - before if t.get_name().startswith(ours)])
    assert not [record for record in caplog.records if record.name == "asyncio"]
    return error


@pytest.mark.parametrize("phase", PHASES)
async def test_a_server_that_breaks_off(
    meddler: Meddler, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    meddler.meddle = lambda name, chunk: None if name == phase else chunk
    error = await _end(meddler, caplog)
    assert error.code == "disconnected"
    assert "closed the connection" in str(error)


@pytest.mark.parametrize("phase", PHASES[:-1])
async def test_a_server_that_falls_silent(
    meddler: Meddler, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    silent = False

    def meddle(name: str, chunk: bytes) -> bytes:
        nonlocal silent
        silent = silent or name == phase
        return b"" if silent else chunk

    meddler.meddle = meddle
    error = await _end(meddler, caplog)
    assert error.code == ("timeout" if phase in CONNECTING else "disconnected")
    assert "did not answer within" in str(error) or "gave no session within" in str(error)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("garbage", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "a chunk that says that it has"),
        (b"MSGF\xff\xff\xff\xff" + bytes(64), "a chunk that says that it has 4294967295 bytes"),
        (b"MSGF" + bytes(64), "a chunk that says that it has 0 bytes"),
        (sized(b"MSGF" + b"\xff" * 60), "sent what cannot be read"),
        (sized(b"OPNF" + bytes(60)), "sent what cannot be read"),
        (sized(b"XYZF" + bytes(60)), "sent what cannot be read"),
    ],
    ids=["http", "huge", "nothing", "message", "channel", "unknown"],
)
async def test_garbage(
    meddler: Meddler, caplog: pytest.LogCaptureFixture, phase: str, garbage: bytes, said: str
) -> None:
    meddler.meddle = lambda name, chunk: garbage if name == phase else chunk
    error = await _end(meddler, caplog)
    assert error.code == "disconnected"
    assert said in str(error)


@pytest.mark.parametrize("phase", ["GetEndpoints", "CreateSession", "Read", "CreateSubscription", "Publish"])
@pytest.mark.parametrize(("count", "size"), [(30, 0), (12, 1000)])
async def test_a_message_without_end(
    meddler: Meddler,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    count: int,
    size: int,
) -> None:
    monkeypatch.setattr(link, "MOST_CHUNKS", 20)
    monkeypatch.setattr(link, "MOST_BYTES", 10_000)
    meddler.meddle = lambda name, chunk: endless(chunk, count, size) if name == phase else chunk
    error = await _end(meddler, caplog)
    assert error.code == "disconnected"
    assert "sent a message of more than 10000 bytes or 20 chunks" in str(error)


@pytest.mark.parametrize("phase", PHASES[:-1])
async def test_an_answer_that_cannot_be_decoded(
    meddler: Meddler, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    meddler.meddle = lambda name, chunk: cut_short(chunk) if name == phase else chunk
    error = await _end(meddler, caplog)
    assert error.code in ("disconnected", "device-error")
    assert meddler.url in str(error)


async def test_a_report_that_cannot_be_decoded_is_a_loss_and_what_it_said_is_asked_for_again(
    server: Plant, meddler: Meddler, caplog: pytest.LogCaptureFixture
) -> None:
    one = Running(device(meddler.url))
    await one.start()
    try:
        await until(lambda: one.sink.of("speed"))
        broken: list[str] = []

        def meddle(name: str, chunk: bytes) -> bytes:
            if name == "Publish" and not broken:
                broken.append(name)
                return cut_short(chunk)
            return chunk

        meddler.meddle = meddle
        await server.put("speed", 41.0)
        await until(lambda: broken)
        await server.put("speed", 42.0)
        await until(lambda: 42.0 in one.sink.of("speed"))
        assert one.sink.losses == [(1, "undecodable")]
        assert one.sink.of("speed")[-2:] == [41.0, 42.0]
    finally:
        await one.stop()
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_reports_that_the_server_gives_up_do_not_end_all_of_them(
    server: Plant, meddler: Meddler
) -> None:
    often = {"publishing_interval": "50ms", "keep_alive": "100ms"}
    one = Running(device(meddler.url, subscription=often, timeout="300ms"))
    given_up: list[str] = []

    def meddle(name: str, chunk: bytes) -> bytes:
        if name != "Publish" or len(given_up) == 2:
            return chunk
        given_up.append(name)  # these two are all that the driver has asked for
        return aborted(chunk)

    meddler.meddle = meddle
    await one.start()
    try:
        await until(lambda: len(given_up) == 2)
        await server.put("speed", 43.0)
        await until(lambda: 43.0 in one.sink.of("speed"))
    finally:
        await one.stop()


@pytest.mark.parametrize("interval", [math.nan, -1.0, 1e300, math.inf])
async def test_an_interval_that_is_none_is_lived_with(
    server: Plant, meddler: Meddler, interval: float
) -> None:
    def meddle(name: str, chunk: bytes) -> bytes:
        if name != "CreateSubscription":
            return chunk
        return chunk[:56] + struct.pack("<d", interval) + chunk[64:]

    meddler.meddle = meddle
    one = Running(device(meddler.url))
    await one.start()
    try:
        await until(lambda: one.sink.of("speed"))
        status = await one.driver.call("status", {})
        assert status["subscriptions"][0]["publishing_interval"] in (0.0, 86400.0)
    finally:
        await one.stop()


async def test_what_lives_for_no_time_is_not_kept_alive_without_a_pause(
    meddler: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: dict[str, list[float]] = {"cell: watch": [], "cell: renew channel": []}
    sleep = asyncio.sleep

    async def noted(delay: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        slept.get(task.get_name(), []).append(delay)
        await sleep(delay)

    def meddle(name: str, chunk: bytes) -> bytes:
        if name == "OPN":
            return chunk.replace(struct.pack("<I", 3_600_000), bytes(4))
        return chunk.replace(struct.pack("<d", 60_000), struct.pack("<d", -1))

    monkeypatch.setattr(asyncio, "sleep", noted)
    meddler.meddle = meddle
    session = Session(device(meddler.url, session_timeout="60s"))
    await session.open()
    try:
        assert session.timeout < 0
        await until(lambda: all(len(delays) >= 3 for delays in slept.values()))
    finally:
        await session.close()
    assert min(delay for delays in slept.values() for delay in delays) > 0


async def test_chunks_fit_what_the_server_takes(meddler: Meddler, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    pack = MessageChunk.to_binary

    def counted(chunk: MessageChunk) -> bytes:
        packed = pack(chunk)
        sent.append(len(packed))
        return packed

    monkeypatch.setattr(MessageChunk, "to_binary", counted)
    meddler.meddle = lambda name, chunk: (
        chunk[:12] + struct.pack("<I", 8192) + chunk[16:] if name == "ACK" else chunk
    )
    one = Running(device(meddler.url, {f"p{place}": {} for place in range(300)} | {"speed": {}}))
    await one.start()
    try:
        await until(lambda: one.sink.of("speed"))
    finally:
        await one.stop()
    assert 8000 < max(sent) <= 8192
