"""The python-can bus on slcan, over a real pty. The oracle is the protocol's text: see lawicel.py."""

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator

import pytest
from can_listener import Kept, content
from lawicel import Lawicel
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import Bus, make_bus
from protocols.can.config import Connection
from protocols.can.frame import BRS, EXTENDED, FDF, OWN, REMOTE, Frame


@pytest.fixture
async def adapter() -> AsyncIterator[Lawicel]:
    made = Lawicel()
    yield made
    made.unplug()


@pytest.fixture
async def kept() -> Kept:
    return Kept()


def slcan(adapter: Lawicel, **more: object) -> Bus:
    fields = {"interface": "slcan", "channel": adapter.path, "options": {"sleep_after_open": 0.0}, **more}
    return make_bus(Connection.model_validate(fields))


KINDS = [
    Frame(0, 0x123, b"\1\2\xab"),
    Frame(0, 0, b""),
    Frame(0, EXTENDED | 0x1ABCDEF0, b"12345678"),
    Frame(0, EXTENDED | 0x12, b"\xff"),
    Frame(0, REMOTE | 0x7FF, bytes(8)),
    Frame(0, REMOTE | EXTENDED | 0x7FF, b""),
]
FD_KINDS = [
    Frame(0, 0x1, b"x" * 12, FDF),
    Frame(0, EXTENDED | 0x1, b"y" * 64, FDF),
    Frame(0, 0x2, b"z" * 20, FDF | BRS),
    Frame(0, EXTENDED | 0x2, b"12345678", FDF | BRS),
]


@pytest.mark.parametrize(("fd", "frames"), [(False, KINDS), (True, KINDS + FD_KINDS)])
async def test_frames_of_every_kind_in_both_directions(
    adapter: Lawicel, kept: Kept, fd: bool, frames: list[Frame]
) -> None:
    rates = {"fd": True, "data_bitrate": 2_000_000} if fd else {}
    bus = slcan(adapter, bitrate=500_000, **rates)
    await bus.open(kept, None)
    await until(lambda: adapter.is_open)
    assert "S6" in adapter.commands
    assert ("Y2" in adapter.commands) is fd
    before = time.time_ns()
    adapter.bus(*frames)
    await until(lambda: len(kept.all) == len(frames))
    assert content(kept.all) == content(frames)
    assert all(before - 1000 <= frame.time_ns <= time.time_ns() + 1000 for frame in kept.all)
    for frame in frames:
        sent = await bus.send(frame, 1.0)
        assert content([sent]) == [(frame.can_id, frame.data, frame.flags | OWN)]
    await until(lambda: len(adapter.sent) == len(frames))
    assert adapter.sent == frames
    assert not adapter.wrong
    await until(lambda: len(kept.own) == len(frames))
    bus.close()
    await until(lambda: not adapter.is_open)


async def test_a_classical_slcan_bus_does_not_hear_fd(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter, bitrate=125_000)
    await bus.open(kept, None)
    adapter.bus(*FD_KINDS, Frame(0, 5, b""))
    await until(lambda: kept.all)
    assert content(kept.all) == [(5, b"", 0)]
    bus.close()


async def test_listening_only_opens_so_and_sends_nothing(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter, bitrate=250_000, listen_only=True)
    await bus.open(kept, None)
    await until(lambda: adapter.is_open)
    assert "L" in adapter.commands
    assert "O" not in adapter.commands
    with pytest.raises(DriverError, match="is listen-only"):
        await bus.send(Frame(0, 1, b""), 1.0)
    bus.close()
    assert not adapter.sent


async def test_unplugging_is_the_end_and_plugging_in_a_beginning(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter)
    await bus.open(kept, None)
    bus.periodic([Frame(0, 1, b"")], 0.01)
    await until(lambda: kept.own)
    adapter.unplug()
    async with asyncio.timeout(20):
        reason = await bus.lost()
    assert reason
    with pytest.raises(DriverError) as caught:
        await bus.send(Frame(0, 1, b""), 1.0)
    assert caught.value.code == "disconnected"
    with pytest.raises(DriverError, match="is the adapter plugged in") as caught:
        await bus.open(kept, None)
    assert caught.value.code == "disconnected"
    again = Lawicel()
    other = slcan(again)
    await other.open(kept, None)
    await other.send(Frame(0, 3, b""), 1.0)
    await until(lambda: again.sent)
    other.close()
    again.unplug()
    bus.close()


async def test_what_is_no_line_is_counted_and_the_next_frame_comes(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter)
    await bus.open(kept, None)
    for noise in (b"t12Z1AA\r", b"t\r", b"t12321\r", b"T1234\r", b"t1239" + b"11" * 9 + b"\r", b"\xff\xfe\r"):
        count = kept.lost
        adapter.write(noise)
        await until(functools.partial(_is_lost, kept, count + 1))
    adapter.write(b"\r\az\rZ\rV1013\r")
    adapter.bus(Frame(0, 0x55, b"good"))
    await until(lambda: kept.all)
    assert content(kept.all) == [(0x55, b"good", 0)]
    adapter.write(b"t12Z1AA\r" + b"t\r" * 50)
    adapter.bus(Frame(0, 0x56, b"behind"))
    await until(lambda: len(kept.all) == 2)
    assert bus.status().dropped == kept.lost == 57
    bus.close()


def _is_lost(kept: Kept, count: int) -> bool:
    return kept.lost == count


async def test_noise_without_end_is_the_end(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter)
    await bus.open(kept, None)
    lost = asyncio.create_task(bus.lost())
    while not lost.done():
        adapter.write(b"\xff\r" * 10)
        await asyncio.sleep(0.005)
    assert "nothing that comes is a frame" in await lost
    bus.close()


async def test_two_directions_at_once_keep_their_order(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter)
    await bus.open(kept, None)
    await until(lambda: adapter.is_open)
    count = 300
    outward = [Frame(0, EXTENDED | 0x100, n.to_bytes(8, "big")) for n in range(count)]
    inward = [Frame(0, 0x200, n.to_bytes(8, "big")) for n in range(count)]
    adapter.bus(*inward)
    await asyncio.gather(*(bus.send(frame, 10.0) for frame in outward))
    await until(lambda: len(kept.others) == count and len(adapter.sent) == count)
    assert content(kept.others) == content(inward)
    assert adapter.sent == outward
    assert [frame.data for frame in kept.own] == [frame.data for frame in outward]
    bus.close()


async def test_a_flood_on_a_slow_consumer_is_counted(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter, receive_buffer=4096)
    await bus.open(kept, None)
    adapter.bus(*(Frame(0, 7, n.to_bytes(2, "big")) for n in range(100)))
    # Other work holds the loop until frames had no more room; what the pty still held is read then.
    inbox, patience = bus._session._inbox, time.monotonic() + 10  # type: ignore[attr-defined]
    while not inbox._newest().lost and time.monotonic() < patience:
        time.sleep(0.01)  # noqa: ASYNC251  # the consumer is slow
    await until(lambda: len(kept.all) + kept.lost == 100)
    assert kept.lost
    assert [frame.data for frame in kept.all[:16]] == [n.to_bytes(2, "big") for n in range(16)]
    bus.close()


async def test_an_adapter_that_takes_nothing_is_late_and_lost_and_closed_in_time(
    adapter: Lawicel, kept: Kept
) -> None:
    bus = slcan(adapter)
    await bus.open(kept, None)
    await until(lambda: adapter.is_open)
    adapter.hold()
    failures: list[DriverError] = []
    for _ in range(2000):
        try:
            await bus.send(Frame(0, EXTENDED | 1, bytes(8)), 0.2)
        except DriverError as error:
            failures.append(error)
            break
    assert failures[0].code in ("timeout", "disconnected")
    async with asyncio.timeout(20):
        assert await bus.lost()
    await bus_ends(bus)


async def test_closing_does_not_wait_for_a_write_that_blocks(adapter: Lawicel, kept: Kept) -> None:
    bus = slcan(adapter)
    await bus.open(kept, None)
    await until(lambda: adapter.is_open)
    adapter.hold()
    sending = [asyncio.create_task(bus.send(Frame(0, EXTENDED | 1, bytes(8)), 60.0)) for _ in range(2000)]
    await until(lambda: len(kept.own) > 10)
    seen = -1
    while len(kept.own) != seen:
        seen = len(kept.own)
        await asyncio.sleep(0.1)
    await bus_ends(bus)
    done = await asyncio.gather(*sending, return_exceptions=True)
    assert any(isinstance(one, DriverError) and one.code == "disconnected" for one in done)


async def bus_ends(bus: Bus) -> None:
    started = time.monotonic()
    bus.close()
    assert time.monotonic() - started < 20  # where it waited for the write, it would wait for ever
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("can ")]


async def test_a_bit_rate_that_slcan_does_not_have_is_said(adapter: Lawicel, kept: Kept) -> None:
    with pytest.raises(DriverError, match="Invalid bitrate, choose one of") as caught:
        await slcan(adapter, bitrate=123_456).open(kept, None)
    assert caught.value.code == "device-error"
    with pytest.raises(DriverError, match="Invalid data bitrate"):
        await slcan(adapter, bitrate=500_000, data_bitrate=4_000_000, fd=True).open(kept, None)
    with pytest.raises(DriverError, match="CAN FD needs bitrate and data_bitrate"):
        await slcan(adapter, fd=True).open(kept, None)


async def test_a_device_that_is_no_port_is_said(kept: Kept) -> None:
    bus = make_bus(Connection(interface="slcan", channel="/dev/null", options={"sleep_after_open": 0}))
    with pytest.raises(DriverError, match="cannot be opened") as caught:
        await bus.open(kept, None)
    assert caught.value.code == "disconnected"
