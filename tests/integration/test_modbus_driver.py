"""The driver on a line: polls, splits, shared lines, writes, calls, TLS."""

import asyncio
import itertools
from typing import Any

import pytest
from scripted import (
    UNIT,
    Heard,
    Peer,
    always_right,
    connected,
    device,
    running,
    said,
    serial_device,
    tcp_device,
)

from protocols.base import DeviceState, DriverError, Quality
from protocols.modbus import pdu
from protocols.modbus.driver import ModbusDriver


def refusing(*refused: int, most: int = 125) -> Any:
    """A device that has no such registers, and answers for at most so many at once."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            read = pdu.parse(request.pdu)
            assert isinstance(read, pdu.Read)
            if read.count > most or any(read.start <= one < read.start + read.count for one in refused):
                peer.send(peer.frame(request, pdu.exception_answer(read.function, 2)))
            else:
                peer.answer(request)

    return script


async def test_polls_keep_time_and_reuse_what_did_not_change() -> None:
    points = {
        "fast": {"table": "input", "address": 3},
        "slow": {"table": "input", "address": 4, "poll": "1h"},
    }
    async with tcp_device(always_right) as connection:
        async with connected(connection, points=points, poll="20ms") as driver, running(driver) as heard:
            await heard.until(lambda: len(heard.samples) > 12)
    fast = [sample for sample in heard.samples if "fast" in sample.values]
    assert len(heard.samples) - len(fast) == 1
    assert all(sample.values is fast[0].values for sample in fast)
    took = (fast[10].time_ns - fast[0].time_ns) / 1e9
    assert took >= 0.19


async def test_cycles_that_found_no_time_are_counted() -> None:
    async def slow(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await asyncio.sleep(0.05)
            peer.answer(request)

    points = {"a": {"table": "input", "address": 3}}
    async with tcp_device(slow) as connection:
        async with connected(connection, points=points, poll="20ms") as driver, running(driver) as heard:
            await heard.until(lambda: heard.missed_cycles >= 4)
    assert len(heard.samples) <= heard.missed_cycles


async def test_a_refused_block_is_split_once_and_goes_on() -> None:
    points = {f"p{n}": {"table": "input", "address": n} for n in range(6)}
    async with tcp_device(refusing(2, 4)) as connection:
        async with (
            connected(connection, points=points, gap=4, poll="10ms") as driver,
            running(driver) as heard,
        ):
            await heard.until(lambda: len(heard.samples) >= 3)
    bad = {"p2": Quality.BAD_CONFIG, "p4": Quality.BAD_CONFIG}
    assert said(heard.samples) == ({"p0": 0, "p1": 1, "p3": 3, "p5": 5}, bad)


async def test_a_hole_that_the_device_refuses_is_not_read_over_again() -> None:
    points = {"a": {"table": "input", "address": 0}, "b": {"table": "input", "address": 3}}
    async with tcp_device(refusing(1, 2)) as connection:
        async with (
            connected(connection, points=points, gap=4, poll="10ms") as driver,
            running(driver) as heard,
        ):
            await heard.until(lambda: len(heard.samples) >= 3)
    assert said(heard.samples) == ({"a": 0, "b": 3}, {})


async def test_a_device_that_answers_one_register_at_a_time_gets_it() -> None:
    points = {f"p{n}": {"table": "input", "address": n} for n in range(3)}
    async with tcp_device(refusing(most=1)) as connection:
        async with connected(connection, points=points, poll="10ms") as driver, running(driver) as heard:
            await heard.until(lambda: len(heard.samples) >= 4)
    assert said(heard.samples) == ({"p0": 0, "p1": 1, "p2": 2}, {})


async def test_a_device_that_refuses_every_point_is_said_so() -> None:
    async with tcp_device(refusing(0, 100)) as connection:
        async with connected(connection, poll="10ms") as driver:
            with pytest.raises(DriverError, match="no such address") as failed:
                await driver.read(["a", "b"])
            assert failed.value.code == "device-error"
            async with running(driver) as heard:
                await heard.until(lambda: len(heard.samples) >= 3)
    bad = {"a": Quality.BAD_CONFIG, "b": Quality.BAD_CONFIG}
    assert all((sample.values, sample.bad) == ({}, bad) for sample in heard.samples)


async def test_a_read_of_nothing_is_empty() -> None:
    async with tcp_device(always_right) as connection, connected(connection) as driver:
        assert (await driver.read([])).values == {}


@pytest.mark.parametrize("serial", [True, False])
async def test_a_dead_unit_does_not_slow_the_living(serial: bool) -> None:
    dead_asked: list[float] = []
    loop = asyncio.get_running_loop()
    dying = False

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.unit == UNIT and dying:
                dead_asked.append(loop.time())
            else:
                peer.answer(request)

    shared: dict[object, object] = {}
    fields: dict[str, Any] = {"timeout": "250ms", "poll": "20ms"}
    place = serial_device(script) if serial else tcp_device(script)
    async with (
        place as connection,
        connected(connection, shared, **fields) as dead,
        connected(connection | {"unit": UNIT + 1}, shared, **fields) as living,
        running(dead) as dead_heard,
        running(living) as living_heard,
    ):
        await dead_heard.until(lambda: len(dead_heard.samples) > 2)
        dying = True
        await dead_heard.until(lambda: dead_heard.states)
        assert dead_heard.states[0][0] is DeviceState.DEGRADED
        begun, before = loop.time(), len(living_heard.samples)
        await living_heard.until(lambda: len(living_heard.samples) >= before + 50)
        took = loop.time() - begun
        # 50 cycles of 20 ms and a timeout of 250 ms now and then, where one in each cycle would take 13 s
        assert took < 6.0
        assert len([when for when in dead_asked if when > begun]) <= 1 + took / 0.5
        assert all(not sample.bad for sample in living_heard.samples)
        assert dead_heard.samples[-1].bad == {"a": Quality.TIMEOUT, "b": Quality.TIMEOUT}
        dying = False
        await dead_heard.until(lambda: (DeviceState.ONLINE, "") in dead_heard.states)
        count = len(dead_heard.samples)
        await dead_heard.until(lambda: said(dead_heard.samples[count:]) == ({"a": 0, "b": 100}, {}))


async def test_a_dead_unit_does_not_cost_one_that_is_asked_seldom_its_line() -> None:
    connections = 0

    async def script(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        while True:
            request = await peer.request()
            if request.unit != UNIT:
                peer.answer(request)

    shared: dict[object, object] = {}
    async with (
        tcp_device(script) as connection,
        connected(connection | {"unit": UNIT + 1}, shared, poll="1h") as living,
        running(living) as heard,
    ):
        dead = ModbusDriver(device(connection, timeout="20ms"), shared)
        for _ in range(8):
            with pytest.raises(DriverError, match="did not answer"):
                await dead.connect()
        assert not heard.run.done()
        assert (await living.read(["a"])).values == {"a": 0}
        await dead.close()
    assert connections == 1


async def test_a_line_is_given_up_when_who_answered_before_is_silent_too() -> None:
    silent = False

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if not silent:
                peer.answer(request)

    shared: dict[object, object] = {}
    async with (
        tcp_device(script) as connection,
        connected(connection, shared, poll="1h", timeout="150ms") as one,
        connected(connection | {"unit": UNIT + 1}, shared, poll="20ms", timeout="150ms") as other,
        running(one) as one_heard,
        running(other) as other_heard,
    ):
        await other_heard.until(lambda: other_heard.samples)
        silent = True
        with pytest.raises(DriverError, match="did not answer"):
            await one.read(["a"])
        for heard in (one_heard, other_heard):  # within the patience of `connected`
            with pytest.raises(DriverError, match="given up"):
                await heard.run


async def test_a_unit_that_its_gateway_does_not_reach_is_left_alone_for_a_while() -> None:
    unreached = 0

    async def script(peer: Peer) -> None:
        nonlocal unreached
        while True:
            request = await peer.request()
            if request.unit == UNIT and living_heard.samples:
                unreached += 1
                peer.send(peer.frame(request, pdu.exception_answer(request.pdu[0], 11)))
            else:
                peer.answer(request)

    living_heard = Heard()
    shared: dict[object, object] = {}
    async with (
        tcp_device(script) as connection,
        connected(connection, shared, poll="10ms") as dead,
        connected(connection | {"unit": UNIT + 1}, shared, poll="10ms") as living,
        running(dead) as dead_heard,
        running(living, living_heard),
    ):
        await dead_heard.until(lambda: dead_heard.states)
        assert dead_heard.states[0][0] is DeviceState.DEGRADED
        begun, asked = len(living_heard.samples), unreached
        await living_heard.until(lambda: len(living_heard.samples) >= begun + 50)
        assert unreached - asked < 10
        assert said(dead_heard.samples[-1:]) == ({}, {"a": Quality.TIMEOUT, "b": Quality.TIMEOUT})


async def test_units_share_a_line_fairly() -> None:
    order: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            order.append(request.unit)
            peer.answer(request)

    points = {f"p{n}": {"table": "input", "address": 10 * n} for n in range(20)}
    shared: dict[object, object] = {}
    async with (
        tcp_device(script, rtu_frames=True) as connection,
        connected(connection, shared, points=points) as one,
        connected(connection | {"unit": UNIT + 1}, shared, points=points) as two,
    ):
        assert len(shared) == 1
        del order[:]
        await asyncio.gather(one.read(list(points)), two.read(list(points)))
        assert len(order) == 40
        assert all(abs(order[:n].count(UNIT) * 2 - n) <= 2 for n in range(40))
    assert not shared


async def test_a_line_with_other_settings_is_refused() -> None:
    shared: dict[object, object] = {}
    async with serial_device(always_right) as connection, connected(connection, shared):
        other = ModbusDriver(device(connection | {"unit": 9, "parity": "none"}), shared)
        with pytest.raises(DriverError, match="other settings"):
            await other.connect()
        await other.close()


async def test_commands_overtake_polls() -> None:
    order: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            order.append(int.from_bytes(request.pdu[1:3]))
            peer.answer(request)

    points = {f"p{n}": {"table": "input", "address": 10 * n} for n in range(50)}
    async with tcp_device(script) as connection, connected(connection, points=points, poll="1h") as driver:
        async with running(driver) as heard:
            while len(order) < 5:
                await asyncio.sleep(0)
            await driver.read(["p49"])
            assert order.index(490) < 20
            await heard.until(lambda: sum(len(sample.values) for sample in heard.samples) == 50)


async def test_pauses_are_kept() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def script(peer: Peer) -> None:
        times.append(loop.time())
        while True:
            request = await peer.request()
            times.append(loop.time())
            peer.answer(request)

    pauses: dict[str, Any] = {"pause_after_connect": "60ms", "pause_between_requests": "30ms"}
    async with tcp_device(script) as connection, connected(connection, **pauses) as driver:
        await driver.read(["a", "b"])
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] >= 0.055
    assert min(gaps[1:]) >= 0.028


async def test_closing_twice_and_before_connecting() -> None:
    async with tcp_device(always_right) as connection:
        driver = ModbusDriver(device(connection), {})
        await driver.close()
        await driver.connect()
        await driver.close()
        await driver.close()
        with pytest.raises(DriverError, match="not connected"):
            await driver.read(["a"])


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"\x83\x0a", "disconnected"), (b"\x83\x0b", "timeout"), (b"\x03\x01\x00", "device-error")],
)
async def test_a_device_that_is_not_there_behind_its_line_is_not_connected(answer: bytes, code: str) -> None:
    async def script(peer: Peer) -> None:
        while True:
            peer.send(peer.frame(await peer.request(), answer))

    async with tcp_device(script) as connection:
        driver = ModbusDriver(device(connection), {})
        with pytest.raises(DriverError) as failed:
            await driver.connect()
        assert failed.value.code == code
        await driver.close()


async def test_a_device_that_refuses_the_first_read_is_there() -> None:
    async with tcp_device(refusing(0)) as connection, connected(connection) as driver:
        assert (await driver.read(["a", "b"])).values == {"b": 100}
