"""Requests, responses and confirmations: who is answered what, and what is dropped."""

import asyncio
from typing import Any

import pytest
from dnp3_wire import BINARY_1_ON, CLASS_1, NOW_NS, UNKNOWN, Wire, asking, confirmation
from hypothesis import given, settings
from hypothesis import strategies as st
from py1815.transport import segment

from protocols.base import DriverError
from protocols.dnp3 import station as station_module
from protocols.dnp3.fragment import NotSent
from protocols.dnp3.objects import Iin

READ, WRITE, SELECT, OPERATE, DIRECT, DIRECT_NO_ACK, DISABLE = 1, 2, 3, 4, 5, 6, 21
SOON = {"timeout": "20ms"}


async def test_requests_are_numbered_and_answered() -> None:
    wire = Wire()
    for number in range(18):
        task = await asking(wire)
        assert wire.sent[-1] == bytes((0xC0 | number % 16, READ)) + CLASS_1
        wire.say(number % 16, BINARY_1_ON, iin=Iin.NEED_TIME)
        reply = await task
        assert (reply.time_ns, reply.iin, reply.problem) == (NOW_NS, Iin.NEED_TIME, "")
        assert [(block.group, *block.indices, *block.values) for block in reply.blocks] == [(1, 1, True)]
        assert reply.sent_ns > 0
    assert wire.station.last_iin == Iin.NEED_TIME
    assert wire.station.heard_ns == NOW_NS
    assert wire.station.answers
    assert len(wire.sent) == 18, "what does not ask for it is not confirmed"
    assert [fragment.unsolicited for fragment in wire.delivered] == [False] * 18


async def test_fragments_are_handed_on_one_by_one_and_then_confirmed() -> None:
    wire = Wire()
    task = asyncio.create_task(wire.station.ask(READ, CLASS_1, report=True))
    await wire.asked(1)
    wire.say(0, BINARY_1_ON, fin=False, con=True)
    assert wire.log == ["read", "delivered", "confirm"]
    wire.say(1, BINARY_1_ON, fir=False, fin=False, con=True)
    wire.say(2, BINARY_1_ON, fir=False)
    reply = await task
    assert len(reply.blocks) == 3
    assert wire.sent[1:] == [confirmation(0), confirmation(1)]
    assert [fragment.report for fragment in wire.delivered] == [True] * 3
    await asking(wire)
    assert wire.sent[-1][0] == 0xC3, "no fragment had this number"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence": 0, "fir": True},
        {"sequence": 0, "fir": False},
        {"sequence": 1, "fir": True},
        {"sequence": 2, "fir": False},
    ],
)
async def test_a_fragment_out_of_order_is_not_taken_and_not_confirmed(wrong: dict[str, Any]) -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say(0, BINARY_1_ON, fin=False)
    wire.say(**wrong, body=BINARY_1_ON, con=True)
    assert wire.station.dropped == {"response out of sequence": 1}
    assert len(wire.sent) == len(wire.delivered) == 1
    wire.say(1, fir=False)
    assert len((await task).blocks) == 1


async def test_a_response_that_does_not_begin_at_its_beginning_is_dropped() -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say(0, BINARY_1_ON, fir=False, con=True)
    wire.say(5, BINARY_1_ON, con=True)
    assert wire.station.dropped == {"response out of sequence": 2}
    wire.say(0)
    await task


async def test_what_follows_the_last_fragment_is_dropped() -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say(0, BINARY_1_ON)
    wire.say(1, BINARY_1_ON, fir=False, con=True)
    assert wire.station.dropped == {"late response": 1}
    assert len((await task).blocks) == 1


async def test_each_part_of_a_response_may_take_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, skipped = asyncio.get_running_loop(), 0.0
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + skipped)
    wire = Wire(timeout="60s")
    task = await asking(wire)
    segments = segment(b"\xc0\x81\0\0" + BINARY_1_ON * 100)
    assert len(segments) == 3
    for one in segments:
        skipped += 40
        for _ in range(3):
            await asyncio.sleep(0)
        wire.say_segment(one)
    assert len((await task).blocks) == 100


async def test_unsolicited_responses_have_numbers_of_their_own_and_come_at_any_time() -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say(0, BINARY_1_ON, fin=False, con=True)
    wire.say(0, BINARY_1_ON, con=True, uns=True)
    wire.say(1, BINARY_1_ON, fir=False, con=True)
    assert len((await task).blocks) == 2
    wire.say(7, BINARY_1_ON, con=True, uns=True)
    assert wire.sent[1:] == [
        confirmation(0),
        confirmation(0, uns=True),
        confirmation(1),
        confirmation(7, uns=True),
    ]
    assert [fragment.unsolicited for fragment in wire.delivered] == [False, True, False, True]
    assert not wire.station.dropped


async def test_an_unsolicited_response_that_comes_again_is_confirmed_again_and_marked() -> None:
    wire = Wire()
    for _ in range(2):
        wire.say(3, BINARY_1_ON, con=True, uns=True)
    wire.say(4, BINARY_1_ON, con=True, uns=True)
    wire.station.connected()
    wire.say(4, BINARY_1_ON, con=True, uns=True)
    assert wire.sent == [confirmation(number, uns=True) for number in (3, 3, 4, 4)]
    assert [fragment.repeated for fragment in wire.delivered] == [False, True, False, False]


async def test_a_response_that_crosses_a_confirmation_does_not_show_that_this_arrived() -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say(3, BINARY_1_ON, con=True, uns=True)
    wire.say(0)
    await task
    task = await asking(wire)
    wire.say(1)
    await task
    assert [fragment.crossed for fragment in wire.delivered] == [False, True, False]


@pytest.mark.parametrize("part", [{"fin": False}, {"fir": False}])
async def test_an_unsolicited_response_in_pieces_is_dropped(part: dict[str, bool]) -> None:
    wire = Wire()
    wire.say(0, BINARY_1_ON, con=True, uns=True, **part)
    assert wire.station.dropped == {"unsolicited response in pieces": 1}
    assert not wire.sent
    assert not wire.delivered


async def test_a_silent_outstation_is_a_timeout_and_its_late_answer_is_dropped() -> None:
    wire = Wire(**SOON)
    with pytest.raises(
        DriverError, match=r"outstation 10 at rtu\.bench\.example:20000 did not answer in 20ms"
    ) as no:
        await wire.station.ask(READ)
    assert no.value.code == "timeout"
    assert not isinstance(no.value, NotSent)
    wire.say(0, BINARY_1_ON, con=True)
    assert wire.station.dropped == {"late response": 1}
    assert len(wire.sent) == 1
    assert not wire.delivered
    assert (wire.station.answers, wire.station.failures, wire.silences) == (False, 1, [False])


async def test_a_late_fragment_is_not_taken_for_the_next_answer() -> None:
    wire = Wire(timeout="1s")
    task = await asking(wire)
    wire.say(0, BINARY_1_ON, fin=False)
    with pytest.raises(DriverError, match="stopped in the middle of its response") as no:
        await task
    assert no.value.code == "timeout"
    await asking(wire)
    assert wire.sent[-1][0] == 0xC2
    wire.say(1, BINARY_1_ON, fir=False, con=True)
    assert wire.station.dropped == {"response out of sequence": 1}


async def test_a_read_is_asked_again_with_the_same_octets() -> None:
    wire = Wire(timeout="30ms", retries=2)
    task = asyncio.create_task(wire.station.ask(READ, CLASS_1))
    again = await wire.asked(3)
    assert wire.sent == [again] * 3
    with pytest.raises(DriverError, match="did not answer"):
        await task
    assert len(wire.sent) == 3
    assert wire.station.failures == 1
    assert len(wire.silences) == 3


async def test_a_read_that_is_being_answered_is_not_asked_again() -> None:
    wire = Wire(timeout="1s", retries=3)
    task = await asking(wire)
    wire.say(0, fin=False)
    with pytest.raises(DriverError, match="stopped in the middle"):
        await task
    assert len(wire.sent) == 1


@pytest.mark.parametrize("function", [WRITE, SELECT, OPERATE, DIRECT, DISABLE, 13])
async def test_nothing_else_is_asked_again(function: int) -> None:
    wire = Wire(**SOON, retries=3)
    with pytest.raises(DriverError, match="did not answer"):
        await wire.station.ask(function, b"")
    assert len(wire.sent) == 1


async def test_what_is_answered_by_silence_is_not_waited_for() -> None:
    wire = Wire()
    reply = await wire.station.ask(DIRECT_NO_ACK, b"\x0c", responds=False)
    assert (reply.iin, list(reply.blocks)) == (Iin(0), [])
    assert reply.sent_ns == reply.time_ns > 0
    await asking(wire)
    assert [fragment[0] for fragment in wire.sent] == [0xC0, 0xC1]


async def test_what_cannot_be_read_is_said() -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say(0, BINARY_1_ON + UNKNOWN, fin=False, iin=Iin.OBJECT_UNKNOWN | Iin.NEED_TIME)
    wire.say(1, BINARY_1_ON, fir=False)
    reply = await task
    assert len(reply.blocks) == 2
    assert "240" in reply.problem
    assert reply.iin == Iin.OBJECT_UNKNOWN, "a refusal of one fragment is one of the response"
    assert wire.delivered[0].decoded.unread


async def test_long_fragments_come_in_segments() -> None:
    wire = Wire()
    task = await asking(wire)
    body = b"".join(b"\x01\x02\x00" + bytes((index, index, 0x81)) for index in range(200))
    wire.say(0, body)
    assert len((await task).blocks) == 200
    assert wire.station.dropped == {}


async def test_segments_out_of_order_spoil_their_fragment_only() -> None:
    wire = Wire()
    task = await asking(wire)
    wire.say_segment(b"\x40" + b"\xc0\x81\x00\x00")
    wire.say_segment(b"\x82" + BINARY_1_ON)
    wire.say_segment(b"")
    assert wire.station.dropped == {"segments out of order": 2}
    wire.say(0, BINARY_1_ON)
    assert len((await task).blocks) == 1


async def test_a_fragment_longer_than_agreed_is_dropped() -> None:
    wire = Wire(max_fragment=249)
    wire.say(0, b"\0" * 300, uns=True)
    assert wire.station.dropped["segments out of order"] >= 1
    assert not wire.delivered


async def test_a_response_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station_module, "_LARGEST_RESPONSE", 10)
    wire = Wire()
    task = await asking(wire)
    wire.say(0, BINARY_1_ON, fin=False)
    wire.say(1, BINARY_1_ON, fir=False, fin=False)
    with pytest.raises(DriverError, match="without end") as no:
        await task
    assert no.value.code == "device-error"


@pytest.mark.parametrize(
    "fragment", [b"\xc0", b"\xc0\x81\x00", b"\xc0\x01\x00\x00", b"\xd0\x81\0\0", b"\xc0\x82\0\0"]
)
async def test_what_is_no_response_is_dropped(fragment: bytes) -> None:
    wire = Wire()
    wire.say_fragment(fragment)
    assert wire.station.dropped == {"not a response": 1}


async def test_an_ask_that_is_cancelled_leaves_the_turn_and_its_answer_is_not_confirmed() -> None:
    wire = Wire()
    task = await asking(wire)
    task.cancel()
    await asyncio.wait([task])
    wire.say(0, BINARY_1_ON, con=True)
    assert wire.station.dropped == {"late response": 1}
    task = await asking(wire)
    wire.say(1)
    await task
    assert len(wire.sent) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.binary(min_size=1, max_size=8).map(lambda rest: b"\xc0\x81\x00\x00" + rest),
            st.builds(
                lambda head, rest: bytes((0xC0, head | 0x30, 0x82, 0, 0)) + rest,
                st.integers(0, 255),
                st.binary(max_size=9),
            ),
        ),
        max_size=8,
    )
)
async def test_nothing_that_comes_raises_and_only_what_was_delivered_is_confirmed(
    segments: list[bytes],
) -> None:
    wire = Wire()
    task = await asking(wire)
    for one in segments:
        wire.say_segment(one)
    assert len(wire.sent) - 1 <= len(wire.delivered)
    task.cancel()
    await asyncio.wait([task])
