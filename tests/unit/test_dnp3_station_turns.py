"""Requests take turns: who goes first, who waits, and what becomes of both when the line is lost."""

import asyncio
from collections.abc import Callable

import pytest
from dnp3_wire import Wire, asking

from protocols.base import DriverError
from protocols.dnp3.fragment import NotSent

READ, SELECT, OPERATE, DIRECT, DISABLE = 1, 3, 4, 5, 21


async def test_one_exchange_at_a_time() -> None:
    wire = Wire()
    first, second = (asyncio.create_task(wire.station.ask(READ)) for _ in range(2))
    await wire.asked(1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(wire.sent) == 1
    wire.say(0)
    await first
    await wire.asked(2)
    wire.say(1)
    await second


async def test_operate_follows_its_select_whatever_waits() -> None:
    wire = Wire()

    async def control() -> None:
        await wire.station.ask(SELECT, b"\x0c")
        await wire.station.ask(OPERATE, b"\x0c")

    controlling = asyncio.create_task(control())
    await wire.asked(1)
    reading = asyncio.create_task(wire.station.ask(READ))
    await asyncio.sleep(0)
    for number in range(3):
        await wire.asked(number + 1)
        wire.say(number)
    await asyncio.gather(controlling, reading)
    assert [fragment[:2] for fragment in wire.sent] == [b"\xc0\x03", b"\xc1\x04", b"\xc2\x01"]
    assert not wire.turn.locked()


@pytest.mark.parametrize("after", [lambda wire: wire.say(0), lambda wire: wire.station.disconnected("gone")])
async def test_a_select_that_is_not_followed_gives_the_turn_back(after: Callable[[Wire], None]) -> None:
    wire = Wire()
    task = await asking(wire, SELECT, b"")
    after(wire)
    await asyncio.wait([task])
    task.exception()
    task = await asking(wire)
    wire.say(1)
    await task
    assert not wire.turn.locked()


async def test_a_lost_connection_fails_what_is_under_way_and_what_waits_is_not_sent() -> None:
    wire = Wire()
    first = await asking(wire, DIRECT)
    second = asyncio.create_task(wire.station.ask(DIRECT))
    await asyncio.sleep(0)
    wire.is_open = False
    wire.station.disconnected("the wire was cut")
    with pytest.raises(DriverError, match="the wire was cut") as under_way:
        await first
    assert under_way.value.code == "disconnected"
    assert not isinstance(under_way.value, NotSent)
    with pytest.raises(NotSent):
        await second
    assert len(wire.sent) == 1


async def test_while_it_rests_polls_wait_and_commands_do_not() -> None:
    wire = Wire()
    wire.station.rest(60)
    polls = [
        asyncio.create_task(wire.station.ask(READ, report=True)),
        asyncio.create_task(wire.station.ask(DISABLE)),
    ]
    command = asyncio.create_task(wire.station.ask(READ))
    await wire.asked(1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(wire.sent) == 1
    wire.say(0)  # it is back
    await command
    await wire.asked(2)
    wire.say(1)
    await wire.asked(3)
    wire.say(2)
    await asyncio.gather(*polls)


async def test_a_rest_ends_by_itself() -> None:
    wire = Wire()
    wire.station.rest(0.01)
    task = asyncio.create_task(wire.station.ask(READ, report=True))
    await wire.asked(1)
    wire.say(0)
    await task
