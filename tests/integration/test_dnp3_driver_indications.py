"""What a master does about the internal indications of an outstation."""

import time

import pytest
from dnp3_rig import (
    DELAY,
    ENABLE,
    EVENTS_ONLY,
    INTEGRITY,
    NOON,
    READ,
    RECORD,
    RESTART_CLEARED,
    RIGHT,
    WRITE,
    Asked,
    FarEnd,
    analog_event,
    asked_again,
    connected,
    outstations,
    started,
)
from scripted import running, said
from waiting import until

from protocols.base import DeviceState
from protocols.dnp3.objects import Iin


def polls(far: FarEnd) -> int:
    return far.bodies(READ).count(INTEGRITY)


async def polled(far: FarEnd, times: int) -> None:
    await until(lambda: polls(far) == times)


async def test_a_restart_found_at_the_start_is_cleared_once() -> None:
    far = FarEnd()
    far.iin = Iin.DEVICE_RESTART
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await until(lambda: far.functions().count(READ) > 4)
    assert far.bodies(WRITE) == [RESTART_CLEARED]
    assert polls(far) == 1
    assert far.functions().count(ENABLE) == 1
    assert said(heard.samples) == (RIGHT, {})
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_a_restart_in_mid_run_is_cleared_and_everything_read_again() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        count = len(far.asked)
        far.iin = Iin.DEVICE_RESTART
        await far.until_confirmed(far.report(b""), unsolicited=True)
        await until(lambda: len(far.asked) >= count + 3)
        await heard.until(lambda: len(heard.samples) >= 2)
    again = [(one.function, one.body) for one in far.asked[count:]]
    assert again[:2] == [(WRITE, RESTART_CLEARED), (READ, INTEGRITY)]
    assert again[2][0] == ENABLE
    assert len(again) == 3


async def test_a_restart_in_the_middle_of_a_poll_reads_everything_again() -> None:
    """The answer under way never ends: the outstation has forgotten the request."""
    far = FarEnd()

    async def restart(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        far.twist = None
        far.respond(asked, analog_event(0, 7, NOON), con=True, fin=False)
        await far.until_confirmed(asked.sequence)
        far.iin = Iin.DEVICE_RESTART
        far.report(b"")
        return True

    far.twist = restart
    async with outstations(far) as place:
        async with connected(place.connection, timeout="500ms") as driver, running(driver) as heard:
            await until(lambda: far.functions().count(ENABLE) >= 1)
            await heard.until(lambda: heard.samples[-1].values == RIGHT)
    assert far.bodies(WRITE) == [RESTART_CLEARED]
    assert far.functions().index(WRITE) < far.functions().index(ENABLE)
    assert polls(far) == 2


async def test_a_restart_that_cannot_be_cleared_is_said_and_not_tried_for_ever() -> None:
    far = FarEnd()
    far.iin = Iin.DEVICE_RESTART

    async def stubborn(asked: Asked) -> bool:
        if asked.function == WRITE:
            far.respond(asked)
            return True
        return False

    far.twist = stubborn
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await until(lambda: far.functions().count(READ) > 6)
            assert heard.states[-1][0] is DeviceState.DEGRADED
            assert "restart" in heard.states[-1][1]
    assert far.functions().count(WRITE) <= 2
    assert polls(far) <= 2


async def test_a_restart_that_is_said_again_and_again_does_not_keep_the_polls_from_their_turn() -> None:
    far = FarEnd()

    async def forgetful(asked: Asked) -> bool:
        far.iin = Iin(0) if asked.function == WRITE else Iin.DEVICE_RESTART
        return False

    far.twist = forgetful
    async with outstations(far) as place:
        async with connected(place.connection, poll="20ms") as driver, running(driver) as heard:
            await until(lambda: far.bodies(READ).count(EVENTS_ONLY) > 10)
            assert heard.states[-1][0] is DeviceState.DEGRADED
            assert "restart" in heard.states[-1][1]
            assert far.functions().count(WRITE) < 8
            far.twist, far.iin = None, Iin(0)
            await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))
            count = far.functions().count(WRITE)
            far.iin = Iin.DEVICE_RESTART  # a restart as it should be
            await until(lambda: far.functions().count(WRITE) == count + 1 and not far.iin)
            await asked_again(far, 4)
            assert heard.states[-1] == (DeviceState.ONLINE, "")


@pytest.mark.parametrize(("procedure", "asks"), [("lan", RECORD), ("non-lan", DELAY)])
async def test_an_outstation_that_needs_the_time_gets_it(procedure: str, asks: int) -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, time_sync=procedure) as driver, running(driver) as heard:
            await started(far)
            before = time.time() * 1000
            far.iin = Iin.NEED_TIME
            far.report(b"")
            await until(lambda: far.bodies(WRITE))
            after = time.time() * 1000
    assert far.functions()[-2:] == [asks, WRITE]
    (written,) = far.bodies(WRITE)
    assert written[:4] == (b"\x32\x03\x07\x01" if procedure == "lan" else b"\x32\x01\x07\x01")
    assert before - 1 <= int.from_bytes(written[4:], "little") <= after + 1
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_an_outstation_whose_clock_is_not_ours_to_set_is_left_alone() -> None:
    far = FarEnd()
    far.iin = Iin.NEED_TIME
    async with outstations(far) as place:
        async with connected(place.connection, time_sync="never", poll="50ms") as driver, running(driver):
            await until(lambda: far.functions().count(READ) > 3)
    assert not {RECORD, DELAY, WRITE} & set(far.functions())


async def test_a_time_that_is_refused_is_said_and_not_tried_for_ever() -> None:
    far = FarEnd()
    far.iin = Iin.NEED_TIME

    async def refuse(asked: Asked) -> bool:
        if asked.function in (RECORD, DELAY, WRITE):
            far.send(far.fragment(asked.sequence, b"")[:2] + b"\x10\x01")  # function code not supported
            return True
        return False

    far.twist = refuse
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await until(lambda: far.functions().count(READ) > 6)
            assert heard.states[-1][0] is DeviceState.DEGRADED
            assert "clock" in heard.states[-1][1]
    assert far.functions().count(RECORD) == 1


async def test_an_event_buffer_that_overflowed_is_a_loss_and_everything_is_read() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await started(far)
            for round_ in (1, 2):
                far.iin = Iin.EVENT_BUFFER_OVERFLOW
                await polled(far, 1 + round_)
                await asked_again(far, 4)  # it stays set for some time
                assert polls(far) == 1 + round_
                assert heard.losses == [(1, "event-buffer-overflow")] * round_
                far.iin = Iin(0)
                await asked_again(far, 4)


@pytest.mark.parametrize(
    ("bit", "words"), [(Iin.DEVICE_TROUBLE, "trouble"), (Iin.CONFIGURATION_CORRUPT, "configuration")]
)
async def test_trouble_of_the_device_is_said_while_it_lasts(bit: Iin, words: str) -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await started(far)
            far.iin = bit
            await heard.until(lambda: heard.states[-1][0] is DeviceState.DEGRADED)
            assert words in heard.states[-1][1]
            assert "DEVICE" not in heard.states[-1][1]
            far.iin = Iin(0)
            await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))
    assert len(heard.states) == 3


async def test_local_control_is_seen_in_the_status() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver):
        await started(far)
        far.iin = Iin.LOCAL_CONTROL
        await driver.read(["breaker"])
        status = await driver.call("status", {})
    assert "local" in repr(status).lower()
