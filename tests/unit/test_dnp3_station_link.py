"""The link layer of a station: addresses, acknowledgements, and whether the outstation lives."""

import asyncio
from collections.abc import Callable

import pytest
from dnp3_wire import BINARY_1_ON, NOW_NS, Wire
from py1815.link import Broadcast, PrimaryFunction, SecondaryFunction, control_byte

from protocols.base import DriverError

UNSOLICITED = b"\xc0\xd0\x82\x00\x00" + BINARY_1_ON


def primary(function: int, *, fcb: bool = False, fcv: bool = False) -> int:
    """The control octet of what an outstation sends of its own accord."""
    return control_byte(from_master=False, primary=True, function=function, fcb=fcb, fcv=fcv)


def confirmed(*, fcb: bool) -> int:
    """The control octet of user data that is to be acknowledged."""
    return primary(PrimaryFunction.CONFIRMED_USER_DATA, fcb=fcb, fcv=True)


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("other destination", {"control": 0x44, "destination": 2}),
        *(("broadcast", {"control": 0x44, "destination": one}) for one in Broadcast),
        ("sent by a master", {"control": 0xC4}),
    ],
)
async def test_frames_that_are_not_to_us_from_an_outstation_are_dropped(
    reason: str, frame: dict[str, int]
) -> None:
    wire = Wire()
    wire.say_frame(**frame, payload=UNSOLICITED)
    assert wire.station.dropped == {reason: 1}
    assert wire.station.heard_ns == 0
    assert not wire.delivered


async def test_the_outstations_requests_of_the_link_are_answered() -> None:
    wire = Wire()
    wire.say_frame(primary(PrimaryFunction.REQUEST_LINK_STATUS))
    wire.say_frame(primary(PrimaryFunction.RESET_LINK_STATES))
    wire.say_frame(primary(PrimaryFunction.TEST_LINK_STATES, fcb=True, fcv=True))
    wire.say_frame(primary(7))
    assert wire.answers() == [
        SecondaryFunction.LINK_STATUS,
        SecondaryFunction.ACK,
        SecondaryFunction.ACK,
        SecondaryFunction.NOT_SUPPORTED,
    ]
    assert wire.station.dropped == {"link function not known": 1}
    assert wire.station.heard_ns == NOW_NS


async def test_confirmed_user_data_is_taken_once() -> None:
    wire = Wire()
    wire.say_frame(primary(PrimaryFunction.RESET_LINK_STATES))
    for fcb, taken in ((True, 1), (True, 1), (False, 2), (False, 2)):
        wire.say_frame(confirmed(fcb=fcb), UNSOLICITED)
        assert len(wire.delivered) == taken
    assert wire.answers() == [SecondaryFunction.ACK] * 5
    assert wire.station.dropped == {"frame repeated": 2}
    wire.say_frame(primary(PrimaryFunction.RESET_LINK_STATES))
    wire.say_frame(confirmed(fcb=True), UNSOLICITED)
    assert len(wire.delivered) == 3


async def test_a_tested_link_counts_on() -> None:
    wire = Wire()
    wire.say_frame(primary(PrimaryFunction.RESET_LINK_STATES))
    wire.say_frame(primary(PrimaryFunction.TEST_LINK_STATES, fcb=True, fcv=True))
    wire.say_frame(confirmed(fcb=True), UNSOLICITED)
    assert not wire.delivered, "it is the number of the test that was just made"
    wire.say_frame(confirmed(fcb=False), UNSOLICITED)
    assert len(wire.delivered) == 1


@pytest.mark.parametrize("reconnected", [False, True])
async def test_confirmed_user_data_needs_a_link_that_was_reset(reconnected: bool) -> None:
    wire = Wire()
    if reconnected:
        wire.say_frame(primary(PrimaryFunction.RESET_LINK_STATES))
        wire.station.connected()
        wire.station.disconnected("the test is over")
    wire.answers()
    wire.say_frame(confirmed(fcb=True), UNSOLICITED)
    assert wire.answers() == [SecondaryFunction.NACK]
    assert wire.station.dropped == {"link not reset": 1}
    assert not wire.delivered


async def test_a_count_bit_that_is_not_valid_is_a_fault() -> None:
    wire = Wire()
    wire.say_frame(primary(PrimaryFunction.CONFIRMED_USER_DATA), UNSOLICITED)
    assert wire.station.dropped == {"frame count bit not valid": 1}
    assert not wire.link_sent


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition is true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def test_who_is_silent_for_long_is_asked_whether_it_lives() -> None:
    wire = Wire(keep_alive="10ms", timeout="2s")
    wire.station.connected()
    await until(lambda: wire.link_sent)
    wire.say_frame(control_byte(from_master=False, primary=False, function=SecondaryFunction.LINK_STATUS))
    assert wire.station.answers
    await until(lambda: len(wire.link_sent) == 2)
    assert set(wire.link_sent) == {PrimaryFunction.REQUEST_LINK_STATUS}
    assert wire.silences == []
    wire.station.disconnected("the test is over")


async def test_a_link_whose_status_is_not_told_is_lost() -> None:
    wire = Wire(keep_alive="10ms", timeout="10ms")
    wire.station.connected()
    await until(lambda: wire.silences)
    assert wire.silences == [True]
    assert wire.station.failures == 1
    await until(lambda: len(wire.link_sent) == 2)  # the channel was kept for others: it goes on
    wire.station.disconnected("the test is over")


async def test_nobody_is_asked_whether_it_lives_while_a_request_shows_it() -> None:
    wire = Wire(keep_alive="10ms", timeout="100ms")
    wire.station.connected()
    with pytest.raises(DriverError, match="did not answer"):
        await wire.station.ask(1)
    assert wire.link_sent == []
    wire.station.disconnected("the test is over")


async def test_without_keep_alive_nobody_is_asked() -> None:
    wire = Wire(keep_alive="never")
    wire.station.connected()
    await asyncio.sleep(0.05)
    assert wire.link_sent == []
