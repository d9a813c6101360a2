"""What an outstation, or something on the way, can do to a poll: each has one outcome."""

import asyncio
from typing import Any

import pytest
from dnp3_rig import (
    EVENTS_ONLY,
    INTEGRITY,
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
    analogs,
    binaries,
    connected,
    outstations,
    started,
    told,
)
from scripted import running, said
from waiting import until

from protocols.base import DeviceState, DriverError


def once(far: FarEnd, answer: object) -> None:
    """Answers the next read by `answer(asked)`, which gives the octets to send."""

    async def twist(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        far.twist = None
        far.write(answer(asked))  # type: ignore[operator]
        return True

    far.twist = twist


def whole(far: FarEnd, asked: Asked, **fields: int) -> bytes:
    """The right answer to a read of anything, in one go."""
    return b"".join(far.frames(far.fragment(asked.sequence, PRESENT), **fields))


def spoilt(octets: bytes, at: int) -> bytes:
    return octets[:at] + bytes((octets[at] ^ 0x10,)) + octets[at + 1 :]


# The way the octets come.


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_an_answer_may_come_in_pieces(size: int) -> None:
    far = FarEnd()

    async def pieces(asked: Asked) -> bool:
        octets = whole(far, asked)
        for start in range(0, len(octets), size):
            far.write(octets[start : start + size])
            await asyncio.sleep(0)
        return True

    async with outstations(far) as place, connected(place.connection) as driver:
        far.twist = pieces
        for _ in range(3):
            assert (await driver.read(list(RIGHT))).values == RIGHT


@pytest.mark.parametrize(
    "noise",
    [b"\x00", b"\x05", b"\x05\x64", b"\x05\x64\xff\x44\x01\x00\x0a\x00\x00\x00", bytes(range(256)) * 20],
    ids=["zero", "half a start", "a start", "a header with a wrong CRC", "5 kB of anything"],
)
async def test_noise_before_an_answer_does_not_hide_it(noise: bytes) -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        once(far, lambda asked: noise + whole(far, asked))
        assert (await driver.read(list(RIGHT))).values == RIGHT


@pytest.mark.parametrize("at", [3, 8, 14, -1], ids=["control", "header CRC", "data", "data CRC"])
async def test_a_frame_with_a_wrong_crc_is_no_answer(at: int) -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection, timeout=SILENCE) as driver:
        once(far, lambda asked: spoilt(whole(far, asked), at % len(whole(far, asked))))
        with pytest.raises(DriverError) as failed:
            await driver.read(list(RIGHT))
        assert failed.value.code == "timeout"
        assert (await driver.read(list(RIGHT))).values == RIGHT


async def test_a_read_is_asked_again_as_often_as_the_profile_says() -> None:
    far = FarEnd()

    async def deaf(asked: Asked) -> bool:
        return asked.function == READ and far.functions().count(READ) < 3

    far.twist = deaf
    async with outstations(far) as place, connected(place.connection, timeout=SILENCE, retries=2) as driver:
        assert (await driver.read(list(RIGHT))).values == RIGHT
    reads = [one for one in far.asked if one.function == READ]
    assert len(reads) == 3
    assert len({(one.body, one.sequence) for one in reads}) == 1


# Who says it to whom.


@pytest.mark.parametrize(
    "fields",
    [
        {"source": OUTSTATION + 1},
        {"destination": MASTER + 1},
        {"destination": 0xFFFF},
        {"control": 0xC4},
        {"source": MASTER, "destination": OUTSTATION},
    ],
    ids=["another outstation", "another master", "all stations", "from a master", "our own echo"],
)
async def test_frames_that_are_not_from_it_to_us_are_dropped_and_counted(fields: dict[str, int]) -> None:
    far = FarEnd()

    async def wrong_and_right(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        far.write(b"".join(far.frames(far.fragment(asked.sequence, analogs(0, 666, 666)), **fields)))
        far.write(whole(far, asked))
        return True

    far.twist = wrong_and_right
    async with outstations(far) as place, connected(place.connection) as driver:
        assert (await driver.read(list(RIGHT))).values == RIGHT


async def test_an_outstation_at_another_address_is_a_silent_one() -> None:
    far = FarEnd(OUTSTATION + 1)
    async with outstations(far) as place:
        with pytest.raises(DriverError) as failed:
            async with connected(place.connection, timeout=SILENCE):
                pass
    assert failed.value.code == "timeout"
    assert not far.asked


async def test_what_dropped_frames_were_stands_in_the_status() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        for frame in far.frames(far.fragment(0, PRESENT), source=77):
            far.write(frame * 3)
        await driver.read(["breaker"])
        status = await driver.call("status", {})
    assert 3 in status["dropped"].values()


# Fragments.


async def test_an_answer_under_another_sequence_number_is_none() -> None:
    far = FarEnd()

    async def earlier_later_right(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        for later in (-1, 1, 7):
            far.respond(asked, analogs(0, 666, 666), con=True, later=later)
        far.respond(asked, PRESENT)
        return True

    far.twist = earlier_later_right
    async with outstations(far) as place, connected(place.connection) as driver:
        assert (await driver.read(list(RIGHT))).values == RIGHT
    assert not far.confirmed


async def test_a_late_answer_is_not_taken_for_that_to_the_next_request() -> None:
    far = FarEnd()
    late: list[Asked] = []

    async def keep(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        if late:
            far.respond(late.pop(), analogs(0, 666, 666))
            far.twist = None
            return False
        late.append(asked)
        return True

    async with outstations(far) as place, connected(place.connection, timeout=SILENCE) as driver:
        far.twist = keep
        with pytest.raises(DriverError):
            await driver.read(["current"])
        assert (await driver.read(["current"])).values == {"current": 100}


async def test_fragments_out_of_order_are_neither_taken_nor_confirmed() -> None:
    far = FarEnd()

    async def shuffled(asked: Asked) -> bool:
        if asked.body != EVENTS_ONLY or asked.function != READ:
            return False
        far.respond(asked, analog_event(0, 2, NOON), con=True, fir=False, later=1)  # no first one
        far.respond(asked, analog_event(0, 1, NOON), con=True, fin=False)
        await far.until_confirmed(asked.sequence)
        far.respond(asked, analog_event(0, 3, NOON), con=True, fir=False, later=2)  # the second is missing
        return True

    async with outstations(far) as place:
        async with connected(place.connection, timeout=SILENCE) as driver, running(driver) as heard:
            await started(far)
            far.twist = shuffled
            with pytest.raises(DriverError) as failed:
                await driver.call("class-poll", {})
            assert failed.value.code == "timeout"
            assert (await driver.read(list(RIGHT))).values == RIGHT
    assert len(far.confirmed) == 1
    assert [value for ms, value in told(heard.samples, "current") if ms == NOON] == [1]


async def test_a_segment_that_is_missing_ends_its_fragment() -> None:
    far = FarEnd()
    far.present = analogs(0, *range(200))  # five segments
    async with outstations(far) as place, connected(place.connection, timeout=SILENCE) as driver:
        frames: list[bytes] = []

        def without_the_second(asked: Asked) -> bytes:
            frames[:] = far.frames(far.fragment(asked.sequence, far.present))
            return b"".join(frames[:1] + frames[2:])

        once(far, without_the_second)
        with pytest.raises(DriverError) as failed:
            await driver.read(["current"])
        assert failed.value.code == "timeout"
        assert (await driver.read(["current"])).values == {"current": 0}
    assert len(frames) > 3


async def confirmed_or(stopped: asyncio.Future[Any], far: FarEnd, times: int) -> None:
    await until(lambda: len(far.confirmed) >= times or stopped.done())


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.dnp3.station._LARGEST_RESPONSE", 100_000)
    far = FarEnd()
    body = analogs(0, *range(100)) * 3

    async def endless(asked: Asked) -> bool:
        if asked.function != READ:
            return False
        far.twist = None
        for sent in range(100):
            far.respond(asked, body, con=True, fir=not sent, fin=False, later=sent)
            await confirmed_or(stopped, far, sent + 1)
            if stopped.done():
                return True
        raise AssertionError("it would go on for ever")

    async with outstations(far) as place, connected(place.connection) as driver:
        far.twist = endless
        stopped = asyncio.ensure_future(driver.read(["current"]))
        with pytest.raises(DriverError, match="without end"):
            await stopped
        assert (await driver.read(["current"])).values == {"current": 100}


# What stands in them.


MALFORMED = {
    "unknown group": b"\x63\x01\x00\x00\x00\x01",
    "unknown variation": b"\x1e\x63\x00\x00\x00\x01",
    "unknown qualifier": b"\x1e\x01\x5b\x01\x00\x00",
    "more promised than there is": b"\x1e\x01\x28\xff\xff\x00\x00\x01\x00",
    "a range that ends before it begins": b"\x1e\x01\x00\x05\x02\x01\x00\x00\x00\x00",
    "a header cut short": b"\x1e\x01",
    "no length": b"\x6e\x00\x00\x00\x00",
}


@pytest.mark.parametrize("rubbish", MALFORMED.values(), ids=MALFORMED.keys())
async def test_objects_that_cannot_be_read_are_said_and_the_others_go_on(rubbish: bytes) -> None:
    far = FarEnd()
    far.present = binaries(0, True, False) + analogs(0, 100) + rubbish
    async with outstations(far) as place:
        async with (
            connected(place.connection, polls={"integrity": "80ms"}) as driver,
            running(driver) as heard,
        ):
            await heard.until(lambda: heard.states and heard.states[-1][0] is DeviceState.DEGRADED)
            assert heard.states[-1][1]
            await heard.until(lambda: any("voltage" in one.bad for one in heard.samples))
            good = [one for one in heard.samples if one.values]
            assert good[-1].values == {"breaker": True, "fault": False, "current": 100}
            far.present = PRESENT
            await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))
            assert heard.samples[-1].values == RIGHT


@pytest.mark.parametrize("rubbish", MALFORMED.values(), ids=MALFORMED.keys())
async def test_reports_that_cannot_be_read_are_a_loss_and_everything_is_read_again(rubbish: bytes) -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        far.report(analog_event(0, 7, NOON) + rubbish)
        await until(lambda: far.bodies(READ).count(INTEGRITY) == 2)
        far.report(analog_event(0, 8, NOON + 1))
        await until(lambda: len(far.confirmed) == 2)
        await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))
        assert (await driver.read(list(RIGHT))).values == RIGHT
    assert [value for ms, value in told(heard.samples, "current") if ms <= NOON + 1] == [7, 8]
    assert heard.losses == [(1, "unreadable-response")]
    assert [state for state, _ in heard.states] == [
        DeviceState.ONLINE,
        DeviceState.DEGRADED,
        DeviceState.ONLINE,
    ]
    assert heard.states[1][1]


async def test_fragments_that_are_no_responses_are_dropped() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver, running(driver) as heard:
        await started(far)
        count = len(far.asked)
        for fragment in (
            b"\xc0",
            b"\xc0\x81\x00",
            b"\xc0\x01",
            b"\xd0\x81\x00\x00",
            b"\xc0\x82\x00\x00",
            b"\xc0\xff\x00\x00",
        ):
            far.send(fragment)
        assert (await driver.read(list(RIGHT))).values == RIGHT
    assert len(far.asked) == count + 1
    assert not far.confirmed
    assert said(heard.samples) == (RIGHT, {})
