"""An outstation is told that its events arrived once they are stored, and not before."""

import asyncio

import pytest
from dnp3_rig import (
    NOON,
    SILENCE,
    FarEnd,
    analog_event,
    connected,
    outstations,
    started,
    told,
)
from scripted import Heard, running
from waiting import until

from protocols.base import DeviceState, DriverError
from protocols.dnp3 import driver as driver_module


class Slow(Heard):
    """A sink whose store takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = asyncio.Event()
        self.asked = 0

    async def kept(self) -> None:
        self.asked += 1
        await self.stored.wait()


def values(heard: Heard) -> list[object]:
    return [value for ms, value in told(heard.samples, "current") if ms < NOON + 3_600_000]


async def test_a_report_is_confirmed_when_it_is_stored_and_reads_go_on_until_then() -> None:
    far, heard = FarEnd(), Slow()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver, heard):
        await started(far)
        sequence = far.report(analog_event(0, 7, NOON))
        await until(lambda: heard.asked)
        await driver.read(["breaker"])
        far.report(analog_event(0, 7, NOON), repeat=True)
        await driver.read(["breaker"])
        assert values(heard) == [7]
        assert not far.confirmed
        heard.stored.set()
        await far.until_confirmed(sequence, unsolicited=True)
    assert values(heard) == [7]


async def test_polled_events_are_confirmed_when_they_are_stored_however_long_that_takes() -> None:
    far, heard = FarEnd(), Slow()
    async with outstations(far) as place:
        async with connected(place.connection, timeout=SILENCE) as driver, running(driver, heard):
            await started(far)
            far.events = [analog_event(0, 7, NOON)]
            polled = asyncio.create_task(driver.call("class-poll", {}))
            await until(lambda: heard.asked)
            _, late = await asyncio.wait([polled], timeout=1.0)  # two time-outs
            assert late
            assert not far.confirmed
            heard.stored.set()
            await polled
            await until(lambda: not far.events)
    assert values(heard) == [7]
    assert all(state is DeviceState.ONLINE for state, _ in heard.states)


async def test_what_was_not_stored_when_the_connection_ended_is_confirmed_when_it_comes_again() -> None:
    far, heard = FarEnd(), Slow()
    async with outstations(far) as place, connected(place.connection) as driver:
        async with running(driver, heard):
            await started(far)
            far.report(analog_event(0, 7, NOON))
            far.events = [analog_event(0, 7, NOON)]
            await until(lambda: heard.asked)
            assert far.line is not None
            far.line.hang_up()
            with pytest.raises(DriverError):
                await heard.run
        assert not far.confirmed
        await driver.connect()
        async with running(driver, heard):
            await until(lambda: heard.asked == 2)
            heard.stored.set()
            await until(lambda: not far.events)
    assert values(heard) == [7]
    assert not [
        of_a_report for _, of_a_report in far.confirmed if of_a_report
    ]  # the outstation may use its number again


async def test_reports_that_do_not_wait_for_their_confirmation_are_not_all_remembered() -> None:
    far, heard = FarEnd(), Slow()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver, heard):
        await started(far)
        before = len(asyncio.all_tasks())
        for number in range(1000):
            far.report(analog_event(0, number, NOON + number))
        await driver.read(["breaker"])
        more = len(asyncio.all_tasks()) - before
        assert more < 300
        heard.stored.set()
        await driver.read(["breaker"])
        far.report(analog_event(0, 1000, NOON + 1000))
        await until(lambda: 1000 in values(heard))
    assert values(heard) == list(range(1001))


async def test_events_without_time_that_come_again_after_a_late_confirmation_are_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver_module, "_LATE_S", 0.0)
    far, heard = FarEnd(), Slow()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver, heard):
        await started(far)
        await driver.read(["breaker"])  # then the last answer of the startup is there too
        first = far.report(analog_event(0, 7) + analog_event(0, 8))
        await until(lambda: heard.asked)
        heard.stored.set()
        await far.until_confirmed(first, unsolicited=True)
        again = far.report(analog_event(0, 7) + analog_event(0, 8) + analog_event(0, 9))
        await far.until_confirmed(again, unsolicited=True)
    assert [sample.values["current"] for sample in heard.samples if len(sample.values) == 1] == [7, 8, 9]
