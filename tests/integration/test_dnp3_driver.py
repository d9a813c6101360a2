"""The DNP3 driver and an outstation that does as it should: startup, polls, reads, channels."""

import asyncio
import socket
from typing import Any

import pytest
from dnp3_rig import (
    DISABLE,
    ENABLE,
    EVENTS_ONLY,
    INTEGRITY,
    OUTSTATION,
    POINTS,
    PRESENT,
    READ,
    RIGHT,
    SILENCE,
    Asked,
    FarEnd,
    alive,
    analogs,
    asked_again,
    binaries,
    calling,
    connected,
    device,
    outstations,
    started,
)
from scripted import running, said
from waiting import until

from protocols.base import DeviceState, DriverError, Quality
from protocols.dnp3.driver import Dnp3Driver

STARTUP = [(DISABLE, EVENTS_ONLY), (READ, INTEGRITY), (ENABLE, EVENTS_ONLY)]


def asked_of(far: FarEnd) -> list[tuple[int, bytes]]:
    return [(one.function, one.body) for one in far.asked]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_the_startup_reads_everything_before_anything_is_reported_unasked() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        await heard.until(lambda: heard.samples)
    assert asked_of(far) == STARTUP
    assert [one.sequence for one in far.asked] == [(far.asked[0].sequence + n) % 16 for n in range(3)]
    assert said(heard.samples) == (RIGHT, {})
    assert heard.states == [(DeviceState.ONLINE, "")]
    assert not far.confirmed


async def test_only_the_classes_that_may_be_reported_are_enabled() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, unsolicited=[1, 3]) as driver, running(driver):
            await started(far)
    assert far.bodies(ENABLE) == [b"\x3c\x02\x06\x3c\x04\x06"]


async def test_an_outstation_that_knows_no_unsolicited_responses_is_polled_all_the_same() -> None:
    far = FarEnd()

    async def refuse(asked: Asked) -> bool:
        if asked.function in (ENABLE, DISABLE):
            far.send(far.fragment(asked.sequence, b"")[:2] + b"\x00\x01")  # function code not supported
            return True
        return False

    far.twist = refuse
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await until(lambda: far.functions().count(READ) > 4)
    assert said(heard.samples) == (RIGHT, {})
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_unsolicited_switched_off_is_never_enabled() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, unsolicited=[], poll="50ms") as driver, running(driver):
            await until(lambda: far.functions().count(READ) > 3)
    assert ENABLE not in far.functions()


async def test_classes_and_points_are_polled_at_their_own_rates() -> None:
    far = FarEnd()
    points = POINTS | {"voltage": POINTS["voltage"] | {"poll": "70ms"}}
    polls = {"class_1": "40ms", "class_2": "400ms", "class_3": "never", "integrity": "never"}
    class_1, class_2, voltage = b"\x3c\x02\x06", b"\x3c\x03\x06", b"\x1e\x00\x00\x01\x01"
    far.present = analogs(1, 2300)
    async with outstations(far) as place:
        async with connected(place.connection, points=points, polls=polls) as driver, running(driver):
            await until(lambda: far.bodies(READ).count(class_1) >= 10 and class_2 in far.bodies(READ))
            await until(lambda: far.bodies(READ).count(voltage) >= 6)
    began = next(one.time for one in far.asked if one.function == ENABLE)
    for body, period, at_once in ((class_1, 0.04, 0), (class_2, 0.4, 0), (voltage, 0.07, 1)):
        times = [one.time - began for one in far.asked if one.body == body]
        early = [time for n, time in enumerate(times, 1 - at_once) if time < n * period - 0.001]
        assert not early, (body, times)
    assert far.bodies(READ).count(INTEGRITY) == 1


async def test_the_integrity_poll_comes_again() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with (
            connected(place.connection, polls={"integrity": "60ms"}) as driver,
            running(driver) as heard,
        ):
            await until(lambda: far.bodies(READ).count(INTEGRITY) >= 3)
            far.present = binaries(0, False, False) + analogs(0, 100, 2300)
            await heard.until(lambda: heard.samples[-1].values.get("breaker") is False)


async def test_a_read_asks_for_present_values_of_its_points() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        sample = await driver.read(["voltage", "breaker"])
        assert (sample.values, sample.bad) == ({"voltage": 230.0, "breaker": True}, {})
        assert far.bodies(READ) == [b"\x01\x00\x00\x00\x00" + b"\x1e\x00\x00\x01\x01"]


async def test_a_read_says_what_did_not_come() -> None:
    far = FarEnd()
    far.present = analogs(0, 100)
    async with outstations(far) as place, connected(place.connection) as driver:
        sample = await driver.read(["current", "voltage"])
        assert sample.values == {"current": 100}
        assert sample.bad.keys() == {"voltage"}
        far.present = b""
        with pytest.raises(DriverError, match="current") as failed:
            await driver.read(["current"])
    assert failed.value.code == "device-error"


async def test_a_response_of_several_fragments_is_put_together() -> None:
    far = FarEnd()

    async def divided(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        far.respond(asked, binaries(0, True, False), con=True, fin=False)
        await far.until_confirmed(asked.sequence)
        far.respond(asked, analogs(0, 100), con=True, fir=False, fin=False, later=1)
        await far.until_confirmed((asked.sequence + 1) % 16)
        far.respond(asked, analogs(1, 2300), fir=False, later=2)
        return True

    far.twist = divided
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        await heard.until(lambda: len(heard.samples) >= 3)
    assert said(heard.samples) == (RIGHT, {})
    assert len(far.confirmed) == 2
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_quality_flags_say_why_a_point_has_no_value() -> None:
    far = FarEnd()
    far.present = (
        binaries(0, True, flags=0x05)  # online, communication lost
        + bytes((1, 2, 0, 1, 1, 0x03))  # online, restart
        + analogs(0, 100, flags=0x21)  # online, over-range
        + bytes((30, 1, 0, 1, 1, 0x00, 0xFC, 0x08, 0, 0))  # not online
    )
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await heard.until(lambda: heard.samples)
    assert said(heard.samples) == (
        {},
        {
            "breaker": Quality.DISCONNECTED,
            "fault": Quality.STALE,
            "current": Quality.OUT_OF_RANGE,
            "voltage": Quality.DEVICE_ERROR,
        },
    )


async def test_points_that_class_0_leaves_out_are_said() -> None:
    far = FarEnd()
    far.present = binaries(0, True, False) + analogs(0, 100)
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await heard.until(lambda: heard.states and heard.states[-1][0] is DeviceState.DEGRADED)
        assert "voltage" in heard.states[-1][1]
        far.present = PRESENT
        await driver.call("integrity", {})
    values, bad = said([one for one in heard.samples if "voltage" not in one.values])
    assert bad == {"voltage": Quality.BAD_CONFIG}
    assert values.keys() == {"breaker", "fault", "current"}


async def test_the_other_outstation_of_a_channel_goes_on_when_one_is_dead() -> None:
    dead, living = FarEnd(OUTSTATION), FarEnd(OUTSTATION + 1)

    async def nothing(asked: Asked) -> bool:
        return True

    shared: dict[Any, Any] = {}
    fields: dict[str, Any] = {"timeout": "300ms", "poll": "50ms"}
    async with (
        outstations(dead, living) as place,
        connected(place.connection, shared, **fields) as first,
        connected(place.connection, shared, outstation=OUTSTATION + 1, **fields) as second,
        running(first) as first_heard,
        running(second) as second_heard,
    ):
        await started(living)
        await started(dead)
        dead.twist = nothing
        await first_heard.until(lambda: first_heard.states[-1][0] is DeviceState.DEGRADED)
        count = len(living.asked)
        await until(lambda: len(living.asked) > count + 20)
        assert len(dead.asked) < len(living.asked)
        living.present = binaries(0, False, True)
        sample = await second.read(["breaker"])
        assert sample.values == {"breaker": False}
        assert {quality for one in first_heard.samples for quality in one.bad.values()} == {Quality.TIMEOUT}
        dead.twist = None
        await first_heard.until(lambda: first_heard.states[-1][0] is DeviceState.ONLINE)
        assert len(place.lines) == 1
    assert all(state is DeviceState.ONLINE for state, _ in second_heard.states)


async def test_a_master_that_listens_is_called() -> None:
    far, port = FarEnd(), free_port()
    listening = {"transport": "tcp", "host": "127.0.0.1", "port": port, "role": "listen"}
    driver = Dnp3Driver(device(listening, connect_timeout="20s"), {})
    connecting = asyncio.create_task(driver.connect())
    async with alive([far]):
        async with calling(far, port):
            await connecting
            async with running(driver) as heard:
                await started(far)
                await heard.until(lambda: heard.samples)
                assert asked_of(far) == STARTUP
        connecting = asyncio.create_task(driver.connect())  # it hung up, and calls again
        async with calling(far, port):
            await connecting
            assert (await driver.read(["breaker"])).values == {"breaker": True}
        await driver.close()


async def test_a_master_that_nobody_calls_says_so() -> None:
    listening = {"transport": "tcp", "host": "127.0.0.1", "port": free_port(), "role": "listen"}
    driver = Dnp3Driver(device(listening, connect_timeout="50ms"), {})
    with pytest.raises(DriverError, match="called") as failed:
        await driver.connect()
    await driver.close()
    assert failed.value.code == "timeout"


async def test_a_master_that_nobody_called_goes_on_listening() -> None:
    far, port = FarEnd(), free_port()
    listening = {"transport": "tcp", "host": "127.0.0.1", "port": port, "role": "listen"}
    driver = Dnp3Driver(device(listening, connect_timeout="50ms"), {})
    with pytest.raises(DriverError, match="called"):
        await driver.connect()
    await driver.close()
    connecting = asyncio.create_task(driver.connect())
    done, _ = await asyncio.wait([connecting], timeout=0.5)
    assert not done
    async with alive([far]), calling(far, port):
        await connecting
        await driver.close()


async def test_callers_from_elsewhere_are_turned_away() -> None:
    far, port = FarEnd(), free_port()
    listening = {"transport": "tcp", "host": "127.0.0.1", "port": port, "role": "listen"}
    whole = listening | {"accept_from": ["192.0.2.7"]}
    driver = Dnp3Driver(device(whole, connect_timeout="400ms"), {})
    connecting = asyncio.create_task(driver.connect())
    async with calling(far, port), calling(far, port):
        with pytest.raises(DriverError, match="called") as failed:
            await connecting
    await driver.close()
    assert failed.value.code == "timeout"
    assert not far.asked


async def test_a_new_call_takes_the_place_of_a_dead_connection() -> None:
    far, port = FarEnd(), free_port()
    listening = {"transport": "tcp", "host": "127.0.0.1", "port": port, "role": "listen"}
    driver = Dnp3Driver(device(listening, connect_timeout="20s"), {})
    connecting = asyncio.create_task(driver.connect())
    async with alive([far]), calling(far, port):
        await connecting
        async with running(driver) as heard:
            await started(far)
            async with calling(far, port):  # it lost power, and never said that it went
                with pytest.raises(DriverError) as lost:
                    await heard.run
                assert lost.value.code == "disconnected"
                await driver.connect()
                assert (await driver.read(["breaker"])).values == {"breaker": True}
                await driver.close()


async def test_the_link_is_asked_for_after_a_silence() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with (
            connected(place.connection, keep_alive="100ms", timeout=SILENCE) as driver,
            running(driver) as heard,
        ):
            await started(far)
            await until(lambda: far.link_asked >= 3)
            far.answers_link = False
            with pytest.raises(DriverError) as lost:
                await heard.run
    assert lost.value.code == "disconnected"


async def test_no_keep_alive_is_sent_while_there_is_traffic() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, keep_alive="20s", poll="50ms") as driver, running(driver):
            await until(lambda: far.functions().count(READ) > 6)
    assert far.link_asked == 0


async def test_a_connection_is_made_again_after_it_was_lost() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        for _ in range(3):
            async with running(driver) as heard:
                await asked_again(far, 2)
                assert far.line is not None
                far.line.hang_up()
                with pytest.raises(DriverError) as lost:
                    await heard.run
            assert lost.value.code == "disconnected"
            with pytest.raises(DriverError) as unsent:
                await driver.read(["breaker"])
            assert unsent.value.code == "disconnected"
            await driver.connect()
    assert len(place.lines) == 4


async def test_what_is_asked_of_a_closed_driver_fails_and_sends_nothing() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection) as driver:
            pass
        await driver.close()
        for asking in (driver.read(["breaker"]), driver.write({"fan": True}), driver.call("integrity", {})):
            with pytest.raises(DriverError, match="not connected"):
                await asking
    assert far.functions() == [DISABLE]


async def test_an_outstation_that_is_not_there_is_a_failed_connection() -> None:
    driver = Dnp3Driver(device({"transport": "tcp", "host": "127.0.0.1", "port": free_port()}), {})
    with pytest.raises(DriverError) as failed:
        await driver.connect()
    await driver.close()
    assert failed.value.code == "disconnected"


async def test_an_outstation_of_another_address_does_not_answer_and_the_message_asks_for_the_addresses() -> (
    None
):
    async with outstations(FarEnd(77)) as place:
        driver = Dnp3Driver(device(place.connection, timeout=SILENCE), {})
        with pytest.raises(DriverError, match="are 10 and 1 the link addresses") as failed:
            await driver.connect()
        await driver.close()
    assert failed.value.code == "timeout"
