"""Receiving from a SocketCAN bus: frames, filters, losses, states; on a kernel with CAN."""

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest
from socketcan_node import ALL_KINDS, another_node, error, numbered, opened, told_of, without_administration
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import BusState, BusStatus, Filter
from protocols.can.buses.acceptance import MAX_FILTERS
from protocols.can.buses.layout import pack
from protocols.can.filters import exactly
from protocols.can.frame import ERROR, EXTENDED, FDF, LOCAL, OWN, Frame

pytestmark = pytest.mark.socketcan


@pytest.fixture
def node(vcan: str) -> Iterator[socket.socket]:
    """Another node on the bus."""
    with another_node(vcan) as sock:
        yield sock


async def test_every_kind_of_frame_of_another_is_heard_as_it_was_sent(vcan: str, node: socket.socket) -> None:
    async with opened(vcan, fd=True) as (_, ear):
        before = time.time_ns()
        for frame in ALL_KINDS:
            node.send(pack(frame))
        await until(lambda: len(ear.told) == len(ALL_KINDS))
        after = time.time_ns()
        assert ear.contents == [(frame.can_id, frame.data, frame.flags | LOCAL) for frame in ALL_KINDS]
        times = [frame.time_ns for frame in ear.heard]
        assert before <= times[0]
        assert times == sorted(times)
        assert times[-1] <= after


@pytest.mark.parametrize("timestamps", ["kernel", "hardware"])
async def test_stamps_are_those_of_arrival_not_of_reading(
    vcan: str, node: socket.socket, timestamps: str
) -> None:
    async with opened(vcan, timestamps=timestamps) as (_, ear):
        before = time.time_ns()
        node.send(pack(ALL_KINDS[0]))
        after = time.time_ns()
        time.sleep(0.05)  # noqa: ASYNC251 - the loop stands still: the stamp must not
        await until(lambda: ear.told)
        assert before <= ear.heard[0].time_ns <= after


async def test_a_bus_without_fd_does_not_hear_fd_frames(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, ear):
        node.send(pack(Frame(0, 0x111, bytes(64), FDF)))
        node.send(pack(Frame(0, 0x112, b"x")))
        await until(lambda: ear.told)
        assert [frame.can_id for frame in ear.heard] == [0x112]
        with pytest.raises(DriverError, match="does not say fd: true") as caught:
            await bus.send(Frame(0, 0x111, bytes(64), FDF), 1)
        assert caught.value.code == "device-error"


async def test_only_what_is_wanted_is_heard_and_what_we_send(vcan: str, node: socket.socket) -> None:
    async with opened(vcan, [exactly(0x100), Filter(0x200, 0x700 | EXTENDED)]) as (bus, ear):
        for can_id in (0x100, 0x101, 0x100 | EXTENDED, 0x200, 0x2FF, 0x300):
            node.send(pack(Frame(0, can_id, b"")))
        await until(lambda: len(ear.told) == 3)
        assert [frame.can_id for frame in ear.heard] == [0x100, 0x200, 0x2FF]
        ear.told.clear()

        await bus.send(Frame(0, 0x555, b"ours"), 5)
        # Now the kernel lets 555 pass, and still nobody wants that of others.
        node.send(pack(Frame(0, 0x555, b"theirs")))
        node.send(pack(Frame(0, 0x100, b"last")))
        await until(lambda: len(ear.told) == 2)
        assert [frame.data for frame in ear.heard] == [b"ours", b"last"]


async def test_filters_may_change_while_it_is_open(vcan: str, node: socket.socket) -> None:
    async with opened(vcan, [exactly(0x100)]) as (bus, ear):
        await bus.send(Frame(0, 0x555, b""), 5)
        ear.told.clear()
        for filters, heard in (
            ([exactly(0x200)], [0x200]),
            (None, [0x100, 0x200, 0x555]),
            ([], []),
            ([exactly(0x555)], [0x555]),
        ):
            bus.listen(filters)
            for can_id in (0x100, 0x200, 0x555):
                node.send(pack(Frame(0, can_id, b"")))
            await bus.send(Frame(0, 0x555, b"end"), 5)
            assert [frame.can_id for frame in ear.heard if frame.flags & LOCAL] == heard
            ear.told.clear()


async def test_more_filters_than_the_kernel_takes_do_what_they_say(vcan: str, node: socket.socket) -> None:
    wanted = [n * 7 | EXTENDED for n in range(MAX_FILTERS + 50)]
    async with opened(vcan, [exactly(can_id) for can_id in wanted]) as (_, ear):
        for can_id in itertools.chain(range(20), range(7 * MAX_FILTERS, 7 * MAX_FILTERS + 20)):
            node.send(pack(Frame(0, can_id | EXTENDED, b"")))
        await until(lambda: len(ear.told) == 6)
        assert [frame.identifier for frame in ear.heard] == [
            *(0, 7, 14),
            *(7 * MAX_FILTERS + n for n in (0, 7, 14)),
        ]


async def test_error_frames_pass_whatever_the_filters(vcan: str, node: socket.socket) -> None:
    async with opened(vcan, []) as (_, ear):
        node.send(error(0x008, 0, 0, 0x04))
        await until(lambda: ear.told)
        assert ear.heard[0].can_id == ERROR | 0x008
        assert ear.heard[0].data == b"\0\0\x04\0\0\0\0\0"
        assert ear.states == []


async def test_what_is_heard_and_what_is_lost_is_together_what_was_sent(
    vcan: str, node: socket.socket
) -> None:
    async with opened(vcan, receive_buffer=4096) as (bus, ear):
        for burst in range(5):
            for data in numbered(1000, 0x100 + burst):
                node.send(data)
            await until(partial(told_of, ear, 1000 * (burst + 1)))
        assert ear.lost > 4000
        assert bus.status().dropped == ear.lost
        # Where the frames are missing is where the losses are told.
        expected = 0
        for one in ear.told:
            if isinstance(one, Frame):
                assert (one.can_id - 0x100) * 1000 + int.from_bytes(one.data) == expected
                expected += 1
            else:
                expected += one
        assert expected == 5000
        # A loss does not stop sending.
        done = await bus.send(Frame(0, 0x1, b""), 5)
        assert done.flags == OWN


async def test_ten_thousand_frames_come_without_loss(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (_, ear):
        frames = numbered(10_000)
        for start in range(0, len(frames), 500):
            for data in frames[start : start + 500]:
                node.send(data)
            await asyncio.sleep(0)
        await until(lambda: len(ear.told) == len(frames))
        assert [int.from_bytes(frame.data) for frame in ear.heard] == list(range(len(frames)))


async def test_a_flood_leaves_the_loop_its_turns(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (_, ear):
        for data in numbered(4000):
            node.send(data)
        turns = 0
        while len(ear.told) < 4000:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 7


async def test_the_receive_buffer_is_as_large_as_asked_for(
    vcan: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "protocols.can.buses.socketcan")
    async with opened(vcan, receive_buffer=300_000):
        assert "receive buffer of 300000 bytes, asked for 300000" in caplog.text


def test_a_receive_buffer_that_the_kernel_does_not_give_is_warned_of(vcan: str) -> None:
    code = f"""
import asyncio, logging, unittest.mock
from protocols.can.config import Connection
from protocols.can.buses.socketcan import SocketCan
async def main():
    bus = SocketCan(Connection(channel={vcan!r}, receive_buffer=1 << 30))
    await bus.open(unittest.mock.Mock(), None)
    bus.close()
logging.basicConfig()
asyncio.run(main())
"""
    done = without_administration(code)
    assert done.returncode == 0, done.stderr
    assert "WARNING:protocols.can.buses.socketcan" in done.stderr
    assert "asked for 1073741824" in done.stderr


async def test_the_state_follows_the_error_frames(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, ear):
        assert bus.status() == BusStatus(state=BusState.UNKNOWN)
        for frame in (
            error(0x204, 0, 0x08, 0, 0, 0, 0, 100, 1),
            error(0x204, 0, 0x08, 0, 0, 0, 0, 101, 1),
            error(0x204, 0, 0x20, 0, 0, 0, 0, 130, 2),
            error(0x040),
            error(0x100),
        ):
            node.send(frame)
        await until(lambda: len(ear.heard) == 5)
        assert [status.state for status in ear.states] == [
            BusState.WARNING,
            BusState.PASSIVE,
            BusState.BUS_OFF,
            BusState.ACTIVE,
        ]
        assert [status.tx_errors for status in ear.states] == [100, 130, 130, 130]
        assert bus.status() == BusStatus(state=BusState.ACTIVE, tx_errors=130, rx_errors=2, restarts=1)
