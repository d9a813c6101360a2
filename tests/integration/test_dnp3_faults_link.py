"""What can become of the link to an outstation: its own frames, silence, and its end."""

import pytest
from dnp3_rig import (
    DISABLE,
    MASTER,
    NOON,
    OUTSTATION,
    PRESENT,
    READ,
    RIGHT,
    SILENCE,
    Asked,
    FarEnd,
    analog_event,
    connected,
    outstations,
    started,
    told,
)
from py1815 import link
from scripted import running
from waiting import until

from protocols.base import DeviceState, DriverError, Quality

# The link.


async def test_the_outstations_own_link_requests_are_answered() -> None:
    far = FarEnd()
    answered: list[tuple[int, int, int]] = []
    hear = far.hear

    def listen(frame: link.LinkFrame) -> None:
        if not frame.is_primary:
            answered.append((frame.function, frame.source, frame.destination))
        hear(frame)

    far.hear = listen  # type: ignore[method-assign]
    async with outstations(far) as place, connected(place.connection) as driver, running(driver):
        await started(far)
        far.write(link.build(0x49, MASTER, OUTSTATION))  # request link status
        await until(lambda: answered == [(link.SecondaryFunction.LINK_STATUS, MASTER, OUTSTATION)])
        far.write(link.build(0x40, MASTER, OUTSTATION))  # reset link states
        await until(lambda: len(answered) == 2)
        assert answered[1] == (link.SecondaryFunction.ACK, MASTER, OUTSTATION)


async def test_confirmed_user_data_is_acknowledged_each_time_and_taken_once() -> None:
    far = FarEnd()
    acknowledged: list[int] = []
    hear = far.hear

    def listen(frame: link.LinkFrame) -> None:
        if not frame.is_primary:
            acknowledged.append(frame.function)
        hear(frame)

    far.hear = listen  # type: ignore[method-assign]
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        far.write(link.build(0x40, MASTER, OUTSTATION))
        fragment = b"\xf0\x82\x00\x00" + analog_event(0, 7, NOON)
        frame = far.frames(fragment, control=0x73)[0]  # confirmed user data, frame count bit set
        far.write(frame + frame)
        await until(lambda: len(acknowledged) == 3)
        await far.until_confirmed(0, unsolicited=True)
        await driver.read(["breaker"])
    assert len(far.confirmed) == 1
    assert [value for ms, value in told(heard.samples, "current") if ms == NOON] == [7]


# Silence and the end of the connection.


async def test_a_silent_outstation_is_bad_then_degraded_then_lost() -> None:
    far = FarEnd()

    async def nothing(asked: Asked) -> bool:
        return True

    async with outstations(far) as place:
        async with (
            connected(place.connection, timeout=SILENCE, poll="50ms") as driver,
            running(driver) as heard,
        ):
            await started(far)
            far.twist = nothing
            with pytest.raises(DriverError) as lost:
                await heard.run
        assert lost.value.code == "disconnected"
        assert heard.samples[-1].bad == dict.fromkeys(RIGHT, Quality.TIMEOUT)
        degraded = [reason for state, reason in heard.states if state is DeviceState.DEGRADED]
        assert degraded
        assert "10" in degraded[0]


async def test_an_outstation_that_is_silent_for_a_while_is_read_whole_again() -> None:
    far = FarEnd()

    async def deaf(asked: Asked) -> bool:
        if far.link_asked or len(far.asked) - count >= 2:
            far.twist = None
            return False
        return True

    async with outstations(far) as place:
        async with (
            connected(place.connection, timeout=SILENCE, poll="50ms") as driver,
            running(driver) as heard,
        ):
            await started(far)
            await heard.until(lambda: heard.samples)
            count = len(far.asked)
            far.twist = deaf
            await heard.until(lambda: heard.samples[-1].values == RIGHT and len(heard.samples) > 1)
            await heard.until(lambda: heard.states[-1][0] is DeviceState.ONLINE)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
async def test_a_connection_that_ends_in_mid_answer_fails_what_is_under_way(part: float) -> None:
    far = FarEnd()

    async def cut(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        far.twist = None
        octets = b"".join(far.frames(far.fragment(asked.sequence, PRESENT)))
        far.write(octets[: int(len(octets) * part)])
        assert far.line is not None
        far.line.hang_up()
        return True

    async with outstations(far) as place, connected(place.connection) as driver:
        async with running(driver) as heard:
            await started(far)
            far.twist = cut
            with pytest.raises(DriverError) as failed:
                await driver.read(["breaker"])
            assert failed.value.code == "disconnected"
            with pytest.raises(DriverError) as lost:
                await heard.run
            assert lost.value.code == "disconnected"
        await driver.connect()
        assert (await driver.read(list(RIGHT))).values == RIGHT


async def test_half_a_frame_before_the_connection_ended_does_not_spoil_the_next_one() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        async with running(driver) as heard:
            await started(far)
            far.write(far.frames(far.fragment(0, PRESENT))[0][:20])
            assert far.line is not None
            far.line.hang_up()
            with pytest.raises(DriverError):
                await heard.run
        await driver.connect()
        assert (await driver.read(list(RIGHT))).values == RIGHT


async def test_half_a_fragment_before_the_connection_ended_is_not_finished_on_the_next_one() -> None:
    far = FarEnd()
    events = b"".join(analog_event(0, n, NOON + n) for n in range(30))
    first, last = far.frames(b"\xf0\x82\x00\x00" + events)

    async def the_rest(asked: Asked) -> bool:
        if asked.function == DISABLE:
            far.write(last)
        return False

    async with outstations(far) as place, connected(place.connection) as driver:
        async with running(driver) as heard:
            await started(far)
            far.write(first)
            assert far.line is not None
            far.line.hang_up()
            with pytest.raises(DriverError):
                await heard.run
        far.twist = the_rest
        await driver.connect()
        async with running(driver) as heard:
            await driver.read(list(RIGHT))
            assert not [value for ms, value in told(heard.samples, "current") if ms < NOON + 30]
    assert not far.confirmed
