"""The python-can bus on its `virtual` interface; the other end is plain python-can."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import can
import pytest
from can_listener import Kept, content
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import Bus, BusState, BusStatus, Filter, make_bus
from protocols.can.config import Connection
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, OWN, REMOTE, Frame

_numbers = itertools.count()


@pytest.fixture
def channel() -> str:
    return f"test {next(_numbers)}"


@pytest.fixture
def peer(channel: str) -> Iterator[can.BusABC]:
    with can.Bus(channel, "virtual", ignore_config=True, protocol=can.CanProtocol.CAN_FD) as bus:
        yield bus


@pytest.fixture
async def kept() -> Kept:
    return Kept()


@pytest.fixture
async def bus(channel: str, kept: Kept) -> AsyncIterator[Bus]:
    made = make_bus(Connection(interface="virtual", channel=channel, fd=True))
    await made.open(kept, None)
    yield made
    made.close()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("can ")]


ALL_KINDS: list[tuple[Frame, dict[str, Any]]] = [
    (Frame(0, 0x123, b"\1\2"), {"arbitration_id": 0x123, "is_extended_id": False, "data": b"\1\2"}),
    (Frame(0, 0x7FF, b""), {"arbitration_id": 0x7FF, "is_extended_id": False}),
    (Frame(0, EXTENDED | 0x12, b"12345678"), {"arbitration_id": 0x12, "data": b"12345678"}),
    (Frame(0, EXTENDED | 0x1FFFFFFF, b"z"), {"arbitration_id": 0x1FFFFFFF, "data": b"z"}),
    (
        Frame(0, REMOTE | 0x100, bytes(4)),
        {"arbitration_id": 0x100, "is_extended_id": False, "is_remote_frame": True, "dlc": 4},
    ),
    (Frame(0, EXTENDED | 5, b"x" * 64, FDF), {"arbitration_id": 5, "is_fd": True, "data": b"x" * 64}),
    (
        Frame(0, 5, b"y" * 12, FDF | BRS | ESI),
        {
            "arbitration_id": 5,
            "is_extended_id": False,
            "is_fd": True,
            "data": b"y" * 12,
            "bitrate_switch": True,
            "error_state_indicator": True,
        },
    ),
]


async def test_frames_of_every_kind_come_in_with_times(bus: Bus, peer: can.BusABC, kept: Kept) -> None:
    before = time.time_ns()
    for _, fields in ALL_KINDS:
        peer.send(can.Message(**fields))
    await until(lambda: len(kept.all) == len(ALL_KINDS))
    assert content(kept.all) == content([frame for frame, _ in ALL_KINDS])
    # Times of python-can are floats: at this size they are good to 0.24 us.
    assert all(before - 1000 <= frame.time_ns <= time.time_ns() + 1000 for frame in kept.all)
    assert [frame.time_ns for frame in kept.all] == sorted(frame.time_ns for frame in kept.all)


async def test_frames_of_every_kind_go_out_and_come_back_as_own(
    bus: Bus, peer: can.BusABC, kept: Kept
) -> None:
    for frame, fields in ALL_KINDS:
        before = time.time_ns()
        sent = await bus.send(frame, 1.0)
        assert before - 1000 <= sent.time_ns <= time.time_ns() + 1000
        assert content([sent]) == [(frame.can_id, frame.data, frame.flags | OWN)]
        got = peer.recv(1.0)
        assert got is not None
        assert got.equals(can.Message(**fields), timestamp_delta=None, check_channel=False)
    await until(lambda: len(kept.own) == len(ALL_KINDS))
    assert not kept.others


async def test_a_classical_bus_neither_hears_nor_sends_fd(channel: str, peer: can.BusABC, kept: Kept) -> None:
    bus = make_bus(Connection(interface="virtual", channel=channel))
    await bus.open(kept, None)
    peer.send(can.Message(arbitration_id=1, is_fd=True, data=b"123456789012"))
    peer.send(can.Message(arbitration_id=2))
    await until(lambda: kept.all)
    assert content(kept.all) == [(EXTENDED | 2, b"", 0)]
    with pytest.raises(DriverError, match="is a CAN FD frame, and the profile does not say fd") as caught:
        await bus.send(Frame(0, 1, b"1", FDF), 1.0)
    assert caught.value.code == "device-error"
    bus.close()


@pytest.mark.parametrize(
    "frame",
    [
        Frame(0, 1, b"123456789"),
        Frame(0, 1, b"123456789", FDF),
        Frame(0, REMOTE | 1, b"", FDF),
        Frame(0, ERROR | 4, bytes(8)),
    ],
)
async def test_what_is_no_frame_is_not_sent(bus: Bus, peer: can.BusABC, frame: Frame) -> None:
    with pytest.raises(DriverError) as caught:
        await bus.send(frame, 1.0)
    assert caught.value.code == "device-error"
    with pytest.raises(DriverError):
        bus.periodic([frame], 0.01)
    await bus.send(Frame(0, 7, b""), 1.0)
    first = peer.recv(1.0)
    assert first is not None
    assert first.arbitration_id == 7


async def test_error_frames_pass_every_filter_and_others_by_theirs(
    bus: Bus, peer: can.BusABC, kept: Kept
) -> None:
    bus.listen([Filter(0x100, EXTENDED | REMOTE | 0x7F0)])
    for identifier in (0x100, 0x10F, 0x110, 0x0FF):
        peer.send(can.Message(arbitration_id=identifier, is_extended_id=False))
    peer.send(can.Message(arbitration_id=0x100))
    peer.send(can.Message(arbitration_id=0x100, is_extended_id=False, is_remote_frame=True))
    peer.send(can.Message(arbitration_id=0x4, is_error_frame=True, data=b"\0\x08"))
    await until(lambda: len(kept.all) >= 3)
    assert content(kept.all) == [(0x100, b"", 0), (0x10F, b"", 0), (ERROR | 4, b"\0\x08" + bytes(6), 0)]
    await bus.send(Frame(0, 0x7F, b""), 1.0)
    assert content(kept.own) == [(0x7F, b"", OWN)]
    bus.listen(None)
    peer.send(can.Message(arbitration_id=0x110, is_extended_id=False))
    await until(lambda: len(kept.all) == 5)


async def test_the_state_follows_error_frames_in_the_layout_of_linux(
    bus: Bus, peer: can.BusABC, kept: Kept
) -> None:
    assert bus.status() == BusStatus()
    peer.send(can.Message(arbitration_id=0x204, is_error_frame=True, data=b"\0\x20\0\0\0\0\x88\x07"))
    peer.send(can.Message(arbitration_id=0x40, is_error_frame=True, data=bytes(8)))
    peer.send(can.Message(arbitration_id=0x08, is_error_frame=True, data=bytes(8)))
    peer.send(can.Message(arbitration_id=0x100, is_error_frame=True, data=bytes(8)))
    await until(lambda: len(kept.all) == 4)
    states = [status.state for status in kept.states]
    assert states == [BusState.PASSIVE, BusState.BUS_OFF, BusState.ACTIVE]
    assert bus.status() == BusStatus(state=BusState.ACTIVE, tx_errors=0x88, rx_errors=7, restarts=1)


async def test_order_is_kept_in_both_directions_at_once(bus: Bus, peer: can.BusABC, kept: Kept) -> None:
    count = 500
    answers: list[can.Message] = []

    def talk() -> None:
        for number in range(count):
            peer.send(can.Message(arbitration_id=0x200, data=number.to_bytes(2, "big")))
            if (message := peer.recv(0)) is not None:
                answers.append(message)
        while len(answers) < count and (message := peer.recv(2.0)) is not None:
            answers.append(message)

    talking = asyncio.create_task(asyncio.to_thread(talk))
    sent = await asyncio.gather(
        *(bus.send(Frame(0, 0x300, number.to_bytes(2, "big")), 10.0) for number in range(count))
    )
    await talking
    expected = [number.to_bytes(2, "big") for number in range(count)]
    assert [bytes(message.data) for message in answers] == expected
    await until(lambda: len(kept.all) == 2 * count)
    assert [frame.data for frame in kept.others] == expected
    assert kept.own == sent


async def test_a_slow_consumer_loses_frames_and_is_told_how_many_and_where(
    channel: str, peer: can.BusABC, kept: Kept
) -> None:
    bus = make_bus(Connection(interface="virtual", channel=channel, receive_buffer=4096))
    await bus.open(kept, None)
    for number in range(300):
        peer.send(can.Message(arbitration_id=1, data=number.to_bytes(2, "big")))
    # The loop does not run meanwhile: what the thread read waits, up to 16 frames.
    emptied = time.monotonic() + 10
    while bus._session._bus.queue.qsize() and time.monotonic() < emptied:  # type: ignore[attr-defined]
        time.sleep(0.01)  # noqa: ASYNC251  # the consumer is slow
    await until(lambda: kept.lost)
    peer.send(can.Message(arbitration_id=2))
    await until(lambda: kept.all[-1].identifier == 2)
    assert len(kept.all) - 1 + kept.lost == 300
    assert [frame.data for frame in kept.all[:16]] == [number.to_bytes(2, "big") for number in range(16)]
    assert kept.calls[0] == ("frames", 16)
    assert kept.calls[1][0] == "dropped"
    assert bus.status().dropped == kept.lost
    bus.close()


async def test_it_closes_at_any_time_and_opens_again(channel: str, peer: can.BusABC, kept: Kept) -> None:
    bus = make_bus(Connection(interface="virtual", channel=channel))
    assert "is not open" in await bus.lost()
    took = []
    for _ in range(3):
        await bus.open(kept, None)
        lost = asyncio.create_task(bus.lost())
        peer.send(can.Message(arbitration_id=3))
        await until(lambda: kept.all)
        kept.all.clear()
        started = time.monotonic()
        bus.close()
        bus.close()
        took.append(time.monotonic() - started)
        assert "was closed" in await lost
        assert not threads()
        with pytest.raises(DriverError, match="not open") as caught:
            await bus.send(Frame(0, 1, b""), 1.0)
        assert caught.value.code == "disconnected"
        with pytest.raises(DriverError, match="not open"):
            bus.periodic([Frame(0, 1, b"")], 1.0)
    assert min(took) < 0.5
    peer.send(can.Message(arbitration_id=3))
    await asyncio.sleep(0)
    assert not kept.all


async def test_opening_may_be_cancelled(channel: str, kept: Kept) -> None:
    bus = make_bus(Connection(interface="virtual", channel=channel))
    opening = asyncio.create_task(bus.open(kept, None))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not threads()


async def test_listening_only_sends_nothing(channel: str, peer: can.BusABC, kept: Kept) -> None:
    bus = make_bus(Connection(interface="virtual", channel=channel, listen_only=True))
    await bus.open(kept, None)
    with pytest.raises(DriverError, match="is listen-only") as caught:
        await bus.send(Frame(0, 1, b""), 1.0)
    assert caught.value.code == "device-error"
    with pytest.raises(DriverError, match="is listen-only"):
        bus.periodic([Frame(0, 1, b"")], 1.0)
    assert peer.recv(0) is None
    bus.close()


async def test_periodic_frames_go_in_turn_are_changed_and_stopped(
    bus: Bus, peer: can.BusABC, kept: Kept
) -> None:
    sending = bus.periodic([Frame(0, 9, b"a"), Frame(0, 9, b"b"), Frame(0, 9, b"c")], 0.02)
    await until(lambda: len(kept.own) >= 7)
    assert [frame.data for frame in kept.own[:7]] == [b"a", b"b", b"c", b"a", b"b", b"c", b"a"]
    sending.update([Frame(0, 9, b"A"), Frame(0, 9, b"B"), Frame(0, 9, b"C")])
    seen = len(kept.own)
    await until(lambda: len(kept.own) >= seen + 5)
    # One may be on its way while the others are changed.
    after = b"".join(frame.data for frame in kept.own[seen + 1 :])
    assert after[:4] in (b"ABCA", b"BCAB", b"CABC")
    steps = [b.time_ns - a.time_ns for a, b in itertools.pairwise(kept.own)]
    assert sorted(steps)[len(steps) // 2] == pytest.approx(20e6, rel=0.25)
    sending.stop()
    sending.stop()
    await bus.send(Frame(0, 1, b""), 1.0)
    count = len(kept.own)
    other = bus.periodic([Frame(0, 10, b"")], 0.01)
    await until(lambda: len(kept.own) >= count + 5)
    assert {frame.can_id for frame in kept.own[count:]} == {10}
    for wrong in ([Frame(0, 11, b"")], [Frame(0, 10, b""), Frame(0, 10, b"")], [Frame(0, 10, b"", FDF)]):
        with pytest.raises(DriverError, match="keep their number and identifier: 1 of 00A"):
            other.update(wrong)
    with pytest.raises(DriverError, match="no longer sent"):
        sending.update([Frame(0, 9, b"A"), Frame(0, 9, b"B"), Frame(0, 9, b"C")])
    with pytest.raises(DriverError, match="00A is sent periodically already"):
        bus.periodic([Frame(0, 10, b"x")], 1.0)
    while peer.recv(0) is not None:
        pass
    bus.close()
    while peer.recv(0) is not None:
        pass
    assert peer.recv(0.1) is None


async def test_a_turn_that_cannot_be_sent_does_not_end_the_others(
    bus: Bus, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bus._session._bus.send  # type: ignore[attr-defined]
    refused = []

    def send(message: can.Message, timeout: float | None = None) -> None:
        if message.data == b"b":
            refused.append(message)
            raise can.CanOperationError("send buffer is full")
        real(message, timeout)

    monkeypatch.setattr(bus._session._bus, "send", send)  # type: ignore[attr-defined]
    bus.periodic([Frame(0, 9, b"a"), Frame(0, 9, b"b")], 0.005)
    await until(lambda: len(kept.own) >= 3)
    assert refused
    with pytest.raises(DriverError, match="send buffer is full") as caught:
        await bus.send(Frame(0, 9, b"b"), 1.0)
    assert caught.value.code == "device-error"


async def test_a_frame_that_nobody_acknowledges_is_late_and_its_echo_still_own(
    bus: Bus, kept: Kept, peer: can.BusABC, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = bus._session._bus  # type: ignore[attr-defined]
    held = []
    monkeypatch.setattr(inner, "send", lambda message, timeout=None: held.append(message))
    with pytest.raises(
        DriverError, match=r"nobody acknowledged 009 within 0.05 s; it may still go"
    ) as caught:
        await bus.send(Frame(0, 9, b"late"), 0.05)
    assert caught.value.code == "timeout"
    inner.queue.put(held[0])
    await until(lambda: kept.all)
    assert content(kept.all) == [(9, b"late", OWN)]
    peer.send(can.Message(arbitration_id=9, is_extended_id=False, data=b"late"))
    await until(lambda: len(kept.all) == 2)
    assert not kept.all[1].flags & OWN


async def test_a_frame_whose_turn_does_not_come_is_never_sent(
    bus: Bus, peer: can.BusABC, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, go, begun = bus._session._bus, threading.Event(), threading.Event()  # type: ignore[attr-defined]
    real = inner.send

    def send(message: can.Message, timeout: float | None = None) -> None:
        begun.set()
        go.wait(30)
        real(message, timeout)

    monkeypatch.setattr(inner, "send", send)
    first = asyncio.create_task(bus.send(Frame(0, 1, b""), 30.0))
    await until(begun.is_set)
    with pytest.raises(DriverError, match="was not sent") as caught:
        await bus.send(Frame(0, 2, b""), 0.05)
    assert caught.value.code == "timeout"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bus.send(Frame(0, 2, b""), 5.0), 0.05)
    go.set()
    await first
    await bus.send(Frame(0, 3, b""), 1.0)
    assert [message.arbitration_id for message in (peer.recv(0), peer.recv(0)) if message] == [1, 3]


async def test_an_interface_that_fails_is_lost_with_its_reason(
    bus: Bus, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = bus._session._bus  # type: ignore[attr-defined]
    stuck = asyncio.create_task(bus.send(Frame(0, 1, b""), 5.0))
    monkeypatch.setattr(inner, "send", lambda message, timeout=None: None)

    def fail(timeout: float | None = None) -> can.Message:
        raise can.CanOperationError("the adapter reports an overrun", 0x40)

    monkeypatch.setattr(inner, "recv", fail)
    assert "the adapter reports an overrun" in await bus.lost()
    with pytest.raises(DriverError, match="overrun") as caught:
        await bus.send(Frame(0, 1, b""), 1.0)
    assert caught.value.code == "disconnected"
    with pytest.raises(DriverError):
        await stuck
    await until(lambda: not threads())
    assert bus.status().state is BusState.UNKNOWN
    bus.close()


async def test_what_cannot_be_read_is_counted_and_too_much_of_it_is_the_end(
    bus: Bus, peer: can.BusABC, kept: Kept
) -> None:
    peer.send(can.Message(arbitration_id=1, dlc=8, data=b"123"))
    peer.send(can.Message(arbitration_id=0x800, is_extended_id=False))
    peer.send(can.Message(arbitration_id=2))
    await until(lambda: kept.all)
    assert kept.lost == 2
    for _ in range(100):
        peer.send(can.Message(arbitration_id=1, dlc=9))
    assert "nothing that comes is a frame" in await bus.lost()
