"""Sending to a SocketCAN bus, once and periodically; on a kernel with CAN."""

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator

import pytest
from socketcan_node import ALL_KINDS, another_node, hear, numbered, opened, run
from waiting import until

from protocols.base import DriverError
from protocols.can.buses.layout import pack
from protocols.can.buses.receive import Receiver
from protocols.can.filters import exactly
from protocols.can.frame import BRS, EXTENDED, FDF, LOCAL, OWN, Frame

pytestmark = pytest.mark.socketcan


@pytest.fixture
def node(vcan: str) -> Iterator[socket.socket]:
    """Another node on the bus."""
    with another_node(vcan) as sock:
        yield sock


async def test_every_kind_of_frame_that_is_sent_is_on_the_bus_and_comes_back_as_our_own(
    vcan: str, node: socket.socket
) -> None:
    async with opened(vcan, fd=True) as (bus, ear):
        for frame in ALL_KINDS:
            before = time.time_ns()
            done = await bus.send(frame, 5)
            assert before <= done.time_ns <= time.time_ns()
            assert done[1:] == (frame.can_id, frame.data, frame.flags | OWN)
            assert hear(node) == frame[1:]
            assert ear.heard[-1] == done
        assert len(ear.told) == len(ALL_KINDS)


async def test_sends_at_once_go_out_in_the_order_of_the_calls(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, _):
        frames = [Frame(0, 0x100 + n % 3, bytes([n // 2])) for n in range(200)]
        done = await asyncio.gather(*(bus.send(frame, 5) for frame in frames))
        assert [frame[1:3] for frame in done] == [frame[1:3] for frame in frames]
        assert [hear(node)[:2] for _ in frames] == [frame[1:3] for frame in frames]
        times = [frame.time_ns for frame in done]
        assert times == sorted(set(times))


async def test_two_on_one_bus_hear_each_other_as_local_and_themselves_as_own(vcan: str) -> None:
    async with opened(vcan) as (one, ear_of_one), opened(vcan) as (other, ear_of_other):
        await one.send(Frame(0, 0x1, b"same"), 5)
        await other.send(Frame(0, 0x1, b"same"), 5)
        await until(lambda: len(ear_of_one.told) == len(ear_of_other.told) == 2)
        assert [flags for _, _, flags in ear_of_one.contents] == [OWN, LOCAL]
        assert [flags for _, _, flags in ear_of_other.contents] == [LOCAL, OWN]


async def test_a_frame_of_another_is_not_taken_for_the_echo(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, ear):
        node.send(pack(Frame(0, 0x1, b"same")))
        done = await bus.send(Frame(0, 0x1, b"same"), 5)
        assert done == ear.heard[1]
        assert [frame.flags for frame in ear.heard] == [LOCAL, OWN]


async def test_an_echo_that_was_lost_is_no_acknowledgement_and_spoils_no_later_one(
    vcan: str, node: socket.socket
) -> None:
    async with opened(vcan, receive_buffer=4096) as (bus, ear):
        same = Frame(0, 0x1, b"same")
        for data in numbered(100):
            node.send(data)
        with pytest.raises(DriverError, match="it is not known whether 001 was on") as caught:
            await bus.send(same, 0.2)
        assert caught.value.code == "timeout"
        assert len(ear.heard) + ear.lost == 101
        for _ in range(3):
            assert (await bus.send(same, 5)).flags == OWN


async def test_an_echo_that_turns_out_to_be_lost_after_its_time_spoils_no_later_one(
    vcan: str, node: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(vcan, receive_buffer=4096) as (bus, ear):
        same = Frame(0, 0x1, b"same")
        for data in numbered(100):
            node.send(data)
        with monkeypatch.context() as later:
            later.setattr(Receiver, "read", lambda _: [])
            with pytest.raises(DriverError, match="nobody acknowledged 001"):
                await bus.send(same, 0.1)
            assert ear.lost == 0
        await until(lambda: ear.lost)
        assert (await bus.send(same, 5)).flags == OWN


async def test_a_full_transmit_queue_is_waited_for_and_who_waits_too_long_is_told(vcan: str) -> None:
    # A queue of 4 that lets nothing out for two seconds.
    run("tc", "qdisc", "add", "dev", vcan, "root", "netem", "delay", "2s", "limit", "4")
    async with opened(vcan) as (bus, ear):
        sending = [asyncio.ensure_future(bus.send(Frame(0, 0x1, bytes([n])), 30)) for n in range(6)]
        await asyncio.sleep(0)  # they are in the queue, and before its door
        with pytest.raises(DriverError, match=r"was not sent: the transmit queue of .* was full") as caught:
            await bus.send(Frame(0, 0x2, b""), 0.1)
        assert caught.value.code == "timeout"
        done = await asyncio.gather(*sending)
        assert [frame.data for frame in done] == [bytes([n]) for n in range(6)]
        assert [frame.data for frame in ear.heard] == [bytes([n]) for n in range(6)]


async def test_who_waits_for_the_transmit_queue_goes_before_who_comes_later(
    vcan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocols.can.buses.socketcan._RETRY_S", 0.1)
    run("tc", "qdisc", "add", "dev", vcan, "root", "netem", "delay", "60s", "limit", "1")
    async with opened(vcan) as (bus, ear):
        await bus.send(Frame(0, 0x1, b"first"), 5)
        waiting = asyncio.ensure_future(bus.send(Frame(0, 0x1, b"second"), 5))
        await asyncio.sleep(0)  # it has found the queue full
        run("tc", "qdisc", "del", "dev", vcan, "root")
        await bus.send(Frame(0, 0x1, b"third"), 5)
        await waiting
        assert [frame.data for frame in ear.heard] == [b"first", b"second", b"third"]


async def test_a_frame_that_is_late_is_told_so_and_its_echo_is_nobody_elses(
    vcan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(vcan) as (bus, ear):
        same = Frame(0, 0x1, b"same")
        # On a vcan the echo is there at once: not to read it is what makes it late.
        with monkeypatch.context() as later:
            later.setattr(Receiver, "read", lambda _: [])
            with pytest.raises(DriverError) as caught:
                await bus.send(same, 0.1)
        assert caught.value.code == "timeout"
        assert str(caught.value) == (
            f"nobody acknowledged 001 on {vcan} within 0.1 s (state unknown); it is still in the transmit "
            "queue and may go out later"
        )
        done = await bus.send(same, 5)
        assert len(ear.heard) == 2
        assert done == ear.heard[1]


async def test_periodic_frames_go_out_in_turn_the_first_at_once(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, ear):
        frames = [Frame(0, 0x7, bytes([n])) for n in range(3)]
        bus.periodic([Frame(0, 0x6, b"")], 3600).stop()
        assert hear(node) == (0x6, b"", 0)
        await until(lambda: ear.told)
        ear.told.clear()
        task = bus.periodic(frames, 0.05)
        await until(lambda: len(ear.told) >= 7)
        task.stop()
        task.stop()
        assert [frame.data[0] for frame in ear.heard[:7]] == [0, 1, 2, 0, 1, 2, 0]
        # They are our own, though the kernel sends them.
        assert {frame.flags for frame in ear.heard} == {OWN}
        gaps = [b.time_ns - a.time_ns for a, b in itertools.pairwise(ear.heard[:7])]
        assert sum(gaps) / len(gaps) > 0.03e9

        node.send(pack(Frame(0, 0x2, b"")))
        await until(lambda: ear.heard[-1].can_id == 0x2)
        node.send(pack(Frame(0, 0x7, b"")))
        await until(lambda: ear.heard[-1].can_id == 0x7)
        assert ear.heard[-1].flags == LOCAL


async def test_periodic_frames_are_heard_whatever_the_filters(vcan: str) -> None:
    async with opened(vcan, []) as (bus, ear):
        bus.periodic([Frame(0, 0x7, b"")], 0.01)
        await until(lambda: ear.told)
        bus.listen([exactly(0x100)])
        ear.told.clear()
        await until(lambda: ear.told)
        assert {(frame.can_id, frame.flags) for frame in ear.heard} == {(0x7, OWN)}


async def test_an_update_keeps_the_turn_and_nothing_old_comes_after_it(vcan: str) -> None:
    async with opened(vcan, fd=True) as (bus, ear):
        tasks = [
            (can_id, kind, bus.periodic([Frame(0, can_id, bytes([n]), kind) for n in range(4)], 0.01))
            for can_id, kind in itertools.product(range(0x100, 0x100 + 150), (0, FDF | BRS))
        ]
        await until(lambda: len(ear.told) > 1000)
        for can_id, kind, task in tasks:
            task.update([Frame(0, can_id, bytes([n + 100]), kind) for n in range(4)])
        # What was sent before the update is in the receive queue: this frame comes after it.
        mark = await bus.send(Frame(0, 0x7, b"mark"), 5)
        after = ear.heard.index(mark)
        await until(lambda: len(ear.told) > after + 2000)
        for _, _, task in tasks:
            task.stop()
        mark = await bus.send(Frame(0, 0x7, b"end"), 5)
        end = ear.heard.index(mark)
        assert {frame.data[0] for frame in ear.heard[after + 1 : end]} == {100, 101, 102, 103}
        assert len(ear.told) == end + 1
        assert ear.lost == 0
        turns: dict[tuple[int, int], list[int]] = {}
        for frame in ear.heard:
            if frame.can_id != 0x7:
                assert frame.flags & OWN
                turns.setdefault((frame.can_id, frame.flags & FDF), []).append(frame.data[0] % 100)
        assert len(turns) == 300
        for turn in turns.values():
            assert turn == [n % 4 for n in range(len(turn))]


async def test_256_frames_are_sent_in_turn_and_not_one_more(vcan: str) -> None:
    async with opened(vcan) as (bus, ear):
        frames = [Frame(0, 0x7 | EXTENDED, bytes([n])) for n in range(256)]
        task = bus.periodic(frames, 0.001)
        await until(lambda: len(ear.told) >= 257)
        task.stop()
        assert [frame.data[0] for frame in ear.heard[:257]] == [*range(256), 0]
        with pytest.raises(DriverError, match="1 to 256 frames are sent in turn, not 257"):
            bus.periodic([*frames, frames[0]], 0.001)


@pytest.mark.parametrize(
    ("frames", "period", "text"),
    [
        ([], 1, "1 to 256 frames"),
        ([Frame(0, 0x1, bytes(9))], 1, "a classical frame holds at most 8 bytes"),
        ([Frame(0, 0x1, b""), Frame(0, 0x2, b"")], 1, "one identifier and one kind"),
        ([Frame(0, 0x1, b"")], 0, "a period is from 1 us to 400 days; got 0 s"),
        ([Frame(0, 0x1, b"")], float("nan"), "a period is"),
        ([Frame(0, 0x1, b"")], 1e9, "a period is"),
    ],
)
async def test_what_cannot_be_sent_periodically_is_refused(
    vcan: str, frames: list[Frame], period: float, text: str
) -> None:
    async with opened(vcan) as (bus, ear):
        with pytest.raises(DriverError, match=text) as caught:
            bus.periodic(frames, period)
        assert caught.value.code == "device-error"
        await bus.send(Frame(0, 0x7, b"end"), 5)
        assert [frame.can_id for frame in ear.heard] == [0x7]


async def test_one_identifier_is_sent_once_and_keeps_its_form(vcan: str) -> None:
    async with opened(vcan) as (bus, _):
        task = bus.periodic([Frame(0, 0x1, b"")], 1)
        with pytest.raises(DriverError, match="001 is sent periodically already"):
            bus.periodic([Frame(0, 0x1, b"")], 1)
        for frames in ([Frame(0, 0x2, b"")], [Frame(0, 0x1, b"")] * 2, []):
            with pytest.raises(DriverError, match="keep their number and identifier: 1 of 001"):
                task.update(frames)
        with pytest.raises(DriverError, match="at most 8 bytes"):
            task.update([Frame(0, 0x1, bytes(9))])
        task.stop()
        bus.periodic([Frame(0, 0x1, b"")], 1).stop()
