"""Events are confirmed once they are kept: the outstation forgets them then."""

import asyncio

from dnp3_wire import BINARY_1_ON, Wire, confirmation

READ = 1
DISABLE_UNSOLICITED = 0x15
CLASS_1 = b"\x3c\x02\x06"
EVENT = b"\x02\x01\x17\x01\x05\x81"
"""Group 2 variation 1, index 5: online and on."""
UNSOLICITED_CONFIRMATION = b"\xd3\x00"


class Store:
    """Keeps events when a test says so."""

    def __init__(self, wire: Wire) -> None:
        self.asked = 0
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wire.station.kept = self._kept

    async def _kept(self) -> None:
        self.asked += 1
        await asyncio.shield(self._answer)

    def keeps(self) -> None:
        self._answer.set_result(None)


async def settled() -> None:
    """Lets all that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_response_with_events_is_confirmed_when_they_are_kept_and_only_then_is_whole() -> None:
    wire = Wire()
    store = Store(wire)
    task = asyncio.create_task(wire.station.ask(READ, CLASS_1))
    await wire.asked(1)
    wire.say(0, EVENT, con=True)
    await settled()
    assert (store.asked, len(wire.delivered), len(wire.sent), task.done()) == (1, 1, 1, False)
    store.keeps()
    reply = await task
    assert wire.sent[1:] == [confirmation(0)]
    assert [block.group for block in reply.blocks] == [2]


async def test_what_holds_no_events_does_not_wait() -> None:
    wire = Wire()
    store = Store(wire)
    task = asyncio.create_task(wire.station.ask(READ, CLASS_1))
    await wire.asked(1)
    wire.say(0, BINARY_1_ON, con=True)
    await task
    assert (store.asked, wire.sent[1:]) == (0, [confirmation(0)])


async def test_an_unsolicited_response_is_confirmed_when_its_events_are_kept() -> None:
    wire = Wire()
    store = Store(wire)
    wire.say(3, EVENT, con=True, uns=True)
    await settled()
    assert wire.sent == []
    store.keeps()
    assert await wire.asked(1) == UNSOLICITED_CONFIRMATION


async def test_events_of_a_connection_that_is_gone_are_not_confirmed_on_the_next() -> None:
    wire = Wire()
    store = Store(wire)
    wire.say(3, EVENT, con=True, uns=True)
    await settled()
    wire.station.disconnected("the wire was cut")
    wire.station.connected()
    store.keeps()
    await settled()
    assert wire.sent == []


async def test_a_request_that_was_given_up_meanwhile_is_not_confirmed() -> None:
    wire = Wire()
    store = Store(wire)
    task = asyncio.create_task(wire.station.ask(READ, CLASS_1))
    await wire.asked(1)
    wire.say(0, EVENT, con=True)
    await settled()
    task.cancel()
    await settled()
    store.keeps()
    await settled()
    assert len(wire.sent) == 1


async def test_events_in_the_answer_to_what_is_no_read_do_not_hold_it_up() -> None:
    wire = Wire()
    store = Store(wire)
    task = asyncio.create_task(wire.station.ask(DISABLE_UNSOLICITED, CLASS_1))
    await wire.asked(1)
    wire.say(0, EVENT, con=True)
    await asyncio.wait_for(task, 10)
    assert len(wire.sent) == 1
    store.keeps()
    await settled()
    assert wire.sent[1:] == [confirmation(0)]
