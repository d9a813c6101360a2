"""What real lines do to a client: late, torn, mixed up and false answers. Never a wrong value."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from scripted import (
    TIMEOUT_S,
    UNIT,
    Peer,
    always_right,
    connected,
    device,
    right_answer,
    running,
    serial_device,
    tcp_device,
)

from protocols.base import DriverError, Quality
from protocols.modbus import pdu
from protocols.modbus.driver import ModbusDriver
from protocols.modbus.framing import Frame, mbap, rtu


@pytest.mark.parametrize("serial", [True, False])
async def test_a_late_answer_on_rtu_is_not_the_next_ones(serial: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        late = await peer.request()
        await asyncio.sleep(TIMEOUT_S * 1.3)  # the fault itself: later than allowed, before the next request
        peer.answer(late)
        await peer.answer_next()

    place = serial_device(script) if serial else tcp_device(script, rtu_frames=True)
    async with place as connection, connected(connection) as driver:
        with pytest.raises(DriverError) as failed:
            await driver.read(["a"])
        assert failed.value.code == "timeout"
        assert (await driver.read(["b"])).values == {"b": 100}


async def test_a_late_answer_on_rtu_is_not_another_units() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next(2)
        late = await peer.request()
        other = await peer.request()
        assert (late.unit, other.unit) == (UNIT, UNIT + 1)
        peer.answer(late)
        peer.answer(other)

    shared: dict[object, object] = {}
    async with (
        tcp_device(script, rtu_frames=True) as connection,
        connected(connection, shared) as dead,
        connected(connection | {"unit": UNIT + 1}, shared, timeout="5s") as living,
    ):
        with pytest.raises(DriverError):
            await dead.read(["a"])
        assert (await living.read(["b"])).values == {"b": 100}


async def test_a_late_answer_over_tcp_is_not_the_next_ones() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        late = await peer.request()
        following = await peer.request()
        peer.answer(late)
        peer.answer(following)

    async with tcp_device(script) as connection, connected(connection) as driver:
        with pytest.raises(DriverError):
            await driver.read(["a"])
        assert (await driver.read(["b"])).values == {"b": 100}


async def test_a_close_in_mid_request_is_known_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        request = await peer.request()
        peer.send(peer.frame(request, right_answer(request.pdu))[:5])

    async with tcp_device(script) as connection, connected(connection, timeout="60s") as driver:
        with pytest.raises(DriverError, match="closed the connection") as failed:
            await driver.read(["a"])
        assert failed.value.code == "disconnected"
        with pytest.raises(DriverError, match="closed the connection"):
            await driver.read(["a"])


async def test_a_close_ends_run_while_nothing_is_asked() -> None:
    closing = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer_next(3)
        await closing.wait()

    async with tcp_device(script) as connection, connected(connection, poll="1h") as driver:
        async with running(driver) as heard:
            await heard.until(lambda: heard.samples)
            closing.set()
            with pytest.raises(DriverError, match="closed the connection") as failed:
                await heard.run
        assert failed.value.code == "disconnected"


@pytest.mark.parametrize("rtu_frames", [True, False])
async def test_answers_in_pieces(rtu_frames: bool) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            for byte in peer.frame(request, right_answer(request.pdu)):
                peer.send(bytes((byte,)))
                await asyncio.sleep(0.001)  # so that each byte is a packet of its own

    async with tcp_device(script, rtu_frames=rtu_frames) as connection:
        async with connected(connection, timeout="5s") as driver:
            assert (await driver.read(["a", "b"])).values == {"a": 0, "b": 100}


async def test_answers_in_one_piece_and_out_of_order() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        requests = [await peer.request() for _ in range(2)]
        peer.send(b"".join(peer.frame(request, right_answer(request.pdu)) for request in reversed(requests)))

    async with tcp_device(script) as connection, connected(connection, depth=2, timeout="5s") as driver:
        assert (await driver.read(["a", "b"])).values == {"a": 0, "b": 100}


def other_transaction(request: Frame) -> bytes:
    return mbap(request.transaction ^ 0x0F00, request.unit, right_answer(request.pdu))


def other_unit(request: Frame) -> bytes:
    return mbap(request.transaction, request.unit + 1, right_answer(request.pdu))


def other_function(request: Frame) -> bytes:
    return mbap(request.transaction, request.unit, b"\x04" + right_answer(request.pdu)[1:])


def other_exception(request: Frame) -> bytes:
    return mbap(request.transaction, request.unit, b"\x84\x02")


def more_than_asked(request: Frame) -> bytes:
    return mbap(request.transaction, request.unit, pdu.read_answer(3, b"\0\1\0\2"))


def less_than_said(request: Frame) -> bytes:
    return mbap(request.transaction, request.unit, b"\x03\x02\0")


def no_protocol(request: Frame) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


def oversize(request: Frame) -> bytes:
    return request.transaction.to_bytes(2) + b"\0\0\xff\xff" + bytes((request.unit,)) + b"\x03" * 300


def no_body(request: Frame) -> bytes:
    return request.transaction.to_bytes(2) + b"\0\0\0\1" + bytes((request.unit,))


@pytest.mark.parametrize(
    ("false", "code"),
    [
        (other_transaction, "timeout"),
        (other_unit, "device-error"),
        (other_function, "device-error"),
        (other_exception, "device-error"),
        (more_than_asked, "device-error"),
        (less_than_said, "device-error"),
        (no_protocol, "disconnected"),
        (oversize, "disconnected"),
        (no_body, "disconnected"),
    ],
)
async def test_a_false_answer_over_tcp_is_a_failure(false: Callable[[Frame], bytes], code: str) -> None:
    told = False

    async def script(peer: Peer) -> None:
        nonlocal told
        await peer.answer_next()
        if not told:
            told = True
            peer.send(false(await peer.request()))
        await always_right(peer)

    async with tcp_device(script) as connection, connected(connection) as driver:
        with pytest.raises(DriverError) as failed:
            await driver.read(["a"])
        assert failed.value.code == code
        if code == "disconnected":
            await driver.connect()
        assert (await driver.read(["b"])).values == {"b": 100}


@pytest.mark.parametrize(
    "false",
    [
        lambda request: rtu(request.unit + 1, right_answer(request.pdu)),
        lambda request: rtu(request.unit, b"\x04" + right_answer(request.pdu)[1:]),
        lambda request: rtu(request.unit, pdu.read_answer(3, b"\0\1\0\2")),
        lambda request: rtu(request.unit, right_answer(request.pdu))[:-1] + b"\x55",
        lambda request: random.Random(1).randbytes(300),
    ],
    ids=["unit", "function", "length", "crc", "garbage"],
)
async def test_a_false_answer_over_rtu_is_a_timeout(false: Callable[[Frame], bytes]) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        peer.send(false(await peer.request()))
        await always_right(peer)

    async with serial_device(script) as connection, connected(connection) as driver:
        with pytest.raises(DriverError) as failed:
            await driver.read(["a"])
        assert failed.value.code == "timeout"
        assert (await driver.read(["b"])).values == {"b": 100}


async def test_noise_before_an_answer_does_no_harm() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            peer.send(b"\x00\xff\x00" + peer.frame(request, right_answer(request.pdu)))

    async with serial_device(script) as connection, connected(connection) as driver:
        assert (await driver.read(["a", "b"])).values == {"a": 0, "b": 100}


async def test_a_babbling_line_has_an_outcome() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        while True:
            peer.send(b"\x55" * 16)
            await asyncio.sleep(0.001)

    async with serial_device(script) as connection, connected(connection) as driver:
        for _ in range(2):
            with pytest.raises(DriverError) as failed:
                await driver.read(["a"])
            assert failed.value.code == "timeout"


async def test_random_answers_are_never_values() -> None:
    drawn = random.Random(7)

    async def script(peer: Peer) -> None:
        await peer.answer_next()
        request = await peer.request()
        frame = bytearray(peer.frame(request, right_answer(request.pdu)))
        for _ in range(drawn.randrange(1, 4)):
            frame[drawn.randrange(9)] = drawn.randrange(256)  # anything but the value itself
        peer.send(bytes(frame))

    async with tcp_device(script) as connection:
        for _ in range(60):
            try:
                async with connected(connection, timeout="50ms") as driver:
                    assert (await driver.read(["b"])).values == {"b": 100}
            except DriverError as error:
                assert error.code in ("timeout", "device-error", "disconnected")


async def test_a_peer_that_says_nothing_is_given_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        while True:
            await peer.request()

    async with (
        tcp_device(script) as connection,
        connected(connection, poll="20ms", timeout="200ms") as driver,
    ):
        async with running(driver) as heard:
            await heard.until(lambda: heard.states)
            assert "did not answer" in heard.states[0][1]
            assert heard.samples[0].bad == {"a": Quality.TIMEOUT, "b": Quality.TIMEOUT}
            with pytest.raises(DriverError, match="given up"):
                await heard.run


async def test_a_unit_that_does_not_answer_is_not_connected() -> None:
    async def mute(peer: Peer) -> None:
        while True:
            await peer.request()

    async with tcp_device(mute) as connection:
        driver = ModbusDriver(device(connection, timeout="50ms"), {})
        with pytest.raises(DriverError, match="did not answer") as failed:
            await driver.connect()
        assert failed.value.code == "timeout"
        await driver.close()


async def test_nobody_listens(unused_port: int) -> None:
    connection = {"transport": "tcp", "host": "127.0.0.1", "port": unused_port, "unit": 1}
    driver = ModbusDriver(device(connection), {})
    with pytest.raises(DriverError, match="refused the connection") as failed:
        await driver.connect()
    assert failed.value.code == "disconnected"
    await driver.close()


async def test_a_cancelled_read_leaves_the_line_usable() -> None:
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer_next()
        request = await peer.request()
        asked.set()
        await go_on.wait()
        peer.answer(request)
        await always_right(peer)

    async with serial_device(script) as connection, connected(connection, timeout="5s") as driver:
        reading = asyncio.create_task(driver.read(["a"]))
        await asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        following = asyncio.create_task(driver.read(["b"]))
        go_on.set()
        assert (await following).values == {"b": 100}


async def test_a_write_whose_answer_is_lost_is_not_repeated() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.answer_next()
        while True:
            seen.append((await peer.request()).pdu)

    points = {"a": {"table": "holding", "address": 0, "access": "rw"}}
    async with (
        tcp_device(script) as connection,
        connected(connection, points=points, retries=3) as driver,
    ):
        with pytest.raises(DriverError, match="not known") as failed:
            await driver.write({"a": 1})
        assert failed.value.code == "timeout"
        with pytest.raises(DriverError):
            await driver.read(["a"])
    assert [request[0] for request in seen].count(6) == 1
    assert [request[0] for request in seen].count(3) >= 2


async def test_the_wall_clock_of_a_sample_is_that_of_its_answer() -> None:
    answered: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.answer_next()
        await peer.answer_next()
        second = await peer.request()
        await asyncio.sleep(0.05)
        answered.append(time.time_ns())
        peer.answer(second)

    async with tcp_device(script) as connection, connected(connection, poll="1h") as driver:
        async with running(driver) as heard:
            await heard.until(lambda: len(heard.samples) == 2)
            now = time.time_ns()
    first, second = heard.samples
    assert (first.values, second.values) == ({"a": 0}, {"b": 100})
    assert first.time_ns < answered[0] - 45_000_000
    assert answered[0] - 1_000_000 <= second.time_ns <= now + 1_000_000
