"""Events reach the sink once each, in order, with their time, whatever becomes of confirmations."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import pytest
from dnp3_rig import (
    EVENTS_ONLY,
    NOON,
    READ,
    RIGHT,
    Asked,
    FarEnd,
    analog_event,
    analogs,
    binary_event,
    connected,
    outstations,
    started,
    told,
)
from scripted import Heard, running
from waiting import until

from protocols.base import DeviceState, DriverError, Sample
from protocols.dnp3.driver import Dnp3Driver


def events_of(samples: Sequence[Sample], point: str) -> list[tuple[int, Any]]:
    """What was said of a point by the outstation's clock."""
    return [(ms, value) for ms, value in told(samples, point) if ms < NOON + 3_600_000]


async def confirmed(far: FarEnd, times: int) -> None:
    await until(lambda: len(far.confirmed) == times)


async def poll(driver: Dnp3Driver) -> None:
    await driver.call("class-poll", {})


async def test_what_is_reported_unasked_has_its_time_and_order() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        sequence = far.report(
            binary_event(0, False, NOON)
            + binary_event(0, True, NOON + 5)
            + analog_event(0, 7, NOON + 5)
            + analog_event(0, 8, NOON + 9)
        )
        await far.until_confirmed(sequence, unsolicited=True)
    assert events_of(heard.samples, "breaker") == [(NOON, False), (NOON + 5, True)]
    assert events_of(heard.samples, "current") == [(NOON + 5, 7), (NOON + 9, 8)]
    times = [one.time_ns for one in heard.samples if one.time_ns < (NOON + 3_600_000) * 1_000_000]
    assert times == sorted(times)


async def test_events_are_handed_on_before_they_are_confirmed() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        at_confirmation: list[list[tuple[int, Any]]] = []
        far.when_confirmed = lambda: at_confirmation.append(events_of(heard.samples, "current"))
        far.report(analog_event(0, 7, NOON))
        await until(lambda: at_confirmation)
        far.events = [analog_event(0, 8, NOON + 1)]
        await poll(driver)
        await until(lambda: not far.events)
    assert at_confirmation == [[(NOON, 7)], [(NOON, 7), (NOON + 1, 8)]]


async def test_an_event_without_time_gets_the_time_it_came() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        before = time.time_ns() // 1_000_000
        await far.until_confirmed(far.report(analog_event(0, 7)), unsolicited=True)
        after = time.time_ns() // 1_000_000 + 1
    (event,) = [(ms, value) for ms, value in told(heard.samples, "current") if value == 7]
    assert before <= event[0] <= after


async def test_the_gateways_clock_stamps_events_where_the_profile_says_so() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, event_time="gateway") as driver, running(driver) as heard:
            await started(far)
            await far.until_confirmed(far.report(analog_event(0, 7, NOON)), unsolicited=True)
    assert [value for _, value in told(heard.samples, "current")] == [100, 7]
    assert not events_of(heard.samples, "current")


async def test_a_report_that_is_repeated_is_confirmed_again_and_told_once() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        far.report(analog_event(0, 7, NOON))
        await until(lambda: len(far.confirmed) == 1)
        for count in (2, 3):
            far.report(analog_event(0, 7, NOON), repeat=True)
            await confirmed(far, count)
        far.report(
            analog_event(0, 7, NOON + 1) + analog_event(0, 7, NOON + 1)
        )  # an equal one, and two of its kind
        await until(lambda: len(far.confirmed) == 4)
        far.report(analog_event(0, 9))
        far.report(analog_event(0, 9), repeat=True)
        await confirmed(far, 6)
        far.report(analog_event(0, 9))  # without times a new number alone makes it new
        await confirmed(far, 7)
    assert len(set(far.confirmed[:3])) == 1
    assert [value for _, value in told(heard.samples, "current")].count(9) == 2
    assert events_of(heard.samples, "current") == [(NOON, 7), (NOON + 1, 7), (NOON + 1, 7)]


async def test_polled_events_whose_confirmation_was_lost_are_told_once() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        far.events = [analog_event(0, 7, NOON), binary_event(0, False, NOON + 1)]
        far.loses_confirmations = 2
        await poll(driver)
        await until(lambda: len(far.confirmed) == 1)
        await poll(driver)
        await until(lambda: len(far.confirmed) == 2)
        far.events.append(analog_event(0, 8, NOON + 2))
        await poll(driver)
        await until(lambda: not far.events)
    assert events_of(heard.samples, "current") == [(NOON, 7), (NOON + 2, 8)]
    assert events_of(heard.samples, "breaker") == [(NOON + 1, False)]


async def test_equal_events_are_told_as_often_as_they_happened() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        for count in range(1, 4):
            far.events = [analog_event(0, count, NOON + count)]
            await poll(driver)
            await until(lambda: not far.events)
        far.events = [analog_event(0, 9, NOON + 9), analog_event(0, 9, NOON + 9)]
        await poll(driver)
        await until(lambda: not far.events)
    assert [value for _, value in events_of(heard.samples, "current")] == [1, 2, 3, 9, 9]


@pytest.mark.parametrize("stamped", [True, False], ids=["with times", "without"])
@pytest.mark.parametrize("reported", [True, False], ids=["unsolicited", "polled"])
async def test_events_whose_confirmation_died_with_the_connection_are_told_once(
    reported: bool, stamped: bool
) -> None:
    far, heard = FarEnd(), Heard()

    def cut() -> None:
        if len(far.confirmed) == 1:
            assert far.line is not None
            far.line.hang_up()

    far.when_confirmed = cut
    far.loses_confirmations = 1
    events = [analog_event(0, 7, NOON), binary_event(1, True, NOON + 1)]
    if not stamped:
        events = [analog_event(0, 7), analog_event(0, 6)]
    async with outstations(far) as place, connected(place.connection) as driver:
        async with running(driver, heard):
            await started(far)
            if reported:
                far.report(b"".join(events))
                await until(lambda: far.confirmed)
            far.events = list(events)
            if not reported:
                await poll(driver)
            with pytest.raises(DriverError):
                await heard.run
        far.events.append(analog_event(0, 8, NOON + 2) if stamped else analog_event(0, 8))
        await driver.connect()
        async with running(driver, heard):
            await until(lambda: not far.events)
    told_of = [value for _, value in told(heard.samples, "current") if value != 100]
    assert told_of == ([7, 8] if stamped else [7, 6, 8])
    assert events_of(heard.samples, "fault") == ([(NOON + 1, True)] if stamped else [])


async def test_an_answer_cut_off_before_it_was_whole_is_told_once() -> None:
    """The first fragment came and was confirmed; the connection ended in the middle of the second."""
    far, heard = FarEnd(), Heard()
    first, second = analog_event(0, 7, NOON), analog_event(0, 8, NOON + 1)

    async def cut(asked: Asked) -> bool:
        if asked.body != EVENTS_ONLY or asked.function != READ:
            return False
        far.twist = None
        far.respond(asked, first, con=True, fin=False)
        await far.until_confirmed(asked.sequence)
        far.events = [second]
        octets = far.frames(far.fragment(asked.sequence + 1, second, con=True, fir=False))[0]
        far.write(octets[: len(octets) // 2])
        assert far.line is not None
        far.line.hang_up()
        return True

    async with outstations(far) as place, connected(place.connection) as driver:
        async with running(driver, heard):
            await started(far)
            far.twist = cut
            with pytest.raises(DriverError) as failed:
                await poll(driver)
            assert failed.value.code == "disconnected"
            with pytest.raises(DriverError):
                await heard.run
        await driver.connect()
        async with running(driver, heard):
            await until(lambda: not far.events)
    assert events_of(heard.samples, "current") == [(NOON, 7), (NOON + 1, 8)]


async def test_reports_in_the_middle_of_a_polls_answer_are_taken() -> None:
    far = FarEnd()

    async def mixed(asked: Asked) -> bool:
        if asked.body != EVENTS_ONLY or asked.function != READ:
            return False
        far.respond(asked, analog_event(0, 1, NOON), con=True, fin=False)
        far.report(analog_event(0, 2, NOON + 1))
        await far.until_confirmed(asked.sequence)
        far.respond(asked, analog_event(0, 3, NOON + 2), con=True, fir=False, later=1)
        return True

    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        far.twist = mixed
        await poll(driver)
        await until(lambda: len(far.confirmed) == 3)
    assert [value for _, value in events_of(heard.samples, "current")] == [1, 2, 3]


async def test_events_that_a_command_reads_are_told_and_present_values_are_not() -> None:
    """Once it has confirmed them, nobody can ask for them again."""
    far = FarEnd()

    async def read_both(asked: Asked) -> bool:
        if asked.function != READ or asked.body[:1] != b"\x20":
            return False
        far.respond(asked, analog_event(0, 7, NOON) + analogs(0, 55), con=True)
        return True

    far.twist = read_both
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        answer = await driver.call("read", {"group": 32, "variation": 0})
        await confirmed(far, 1)
    assert [one["value"] for one in answer["objects"]] == [7, 55]
    assert [value for _, value in told(heard.samples, "current")] == [100, 7]


async def test_a_flood_of_reports_is_taken_whole_and_polls_go_on() -> None:
    far = FarEnd()
    async with outstations(far) as place:
        async with connected(place.connection, poll="50ms") as driver, running(driver) as heard:
            await started(far)
            polled = len(far.asked)
            for one in range(200):
                far.report(analog_event(0, one, NOON + one))
            await until(lambda: len(far.confirmed) == 200 and len(far.asked) > polled)
    assert events_of(heard.samples, "current") == [(NOON + one, one) for one in range(200)]
    assert [one for one, _ in itertools.groupby(far.confirmed)] == [(n % 16, True) for n in range(200)]
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_events_that_come_before_the_driver_runs_are_kept_for_it() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        sequence = far.report(analog_event(0, 7, NOON))
        await driver.read(["breaker"])
        assert not far.confirmed
        async with running(driver) as heard:
            await far.until_confirmed(sequence, unsolicited=True)
            await heard.until(lambda: len(heard.samples) >= 2)
    assert events_of(heard.samples, "current") == [(NOON, 7)]
    assert heard.samples[-1].values == RIGHT


async def test_events_of_points_that_the_profile_does_not_name_are_none_of_ours() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        body = analog_event(99, 1, NOON) + analog_event(0, 7, NOON)
        await far.until_confirmed(far.report(body), unsolicited=True)
    assert events_of(heard.samples, "current") == [(NOON, 7)]
    assert {name for one in heard.samples for name in one.values} == RIGHT.keys()
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_a_time_that_no_calendar_holds_harms_nothing() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        body = analog_event(0, 7, 2**48 - 1) + analog_event(0, 8, NOON)
        await far.until_confirmed(far.report(body), unsolicited=True)
    assert [value for _, value in told(heard.samples, "current")][:3] == [100, 7, 8]
    assert heard.losses == [(1, "unreadable-response")]
    assert all(one.time_ns < 253_402_300_800 * 10**9 for one in heard.samples)  # the year 10000
