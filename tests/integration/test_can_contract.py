"""What every CAN bus promises (protocols/can/bus.py), held against each kind alike: two of it on one bus."""

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest
from can_listener import Kept, content
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import Bus, BusState, BusStatus, Filter, make_bus
from protocols.can.buses import netlink
from protocols.can.config import Connection
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, LOCAL, OWN, REMOTE, Frame

_numbers = itertools.count()


@contextlib.contextmanager
def virtual() -> Iterator[Connection]:
    yield Connection(interface="virtual", channel=f"contract {next(_numbers)}", fd=True)


@contextlib.contextmanager
def multicast() -> Iterator[Connection]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    options = {"port": port, "hop_limit": 0}
    yield Connection(interface="udp_multicast", channel="239.74.163.79", fd=True, options=options)


@contextlib.contextmanager
def vcan() -> Iterator[Connection]:
    name = f"v{os.getpid()}n{next(_numbers)}"
    netlink.make_vcan(name)
    try:
        yield Connection(channel=name, fd=True)
    finally:
        netlink.remove(name)


KINDS = [virtual, multicast, pytest.param(vcan, marks=pytest.mark.socketcan)]


@pytest.fixture(params=KINDS)
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    with request.param() as made:
        yield made


Opened = tuple[Bus, Kept]


@pytest.fixture
async def opened(connection: Connection) -> AsyncIterator[Callable[..., object]]:
    buses: list[Bus] = []

    async def make(filters: Sequence[Filter] | None = None, **changed: object) -> Opened:
        bus, kept = make_bus(connection.model_copy(update=changed)), Kept()
        buses.append(bus)
        await bus.open(kept, filters)
        return bus, kept

    yield make
    for bus in buses:
        bus.close()


EVERY_KIND = [
    Frame(0, 0x123, b"\1\2"),
    Frame(0, 0, b""),
    Frame(0, EXTENDED | 0x123, b"12345678"),
    Frame(0, EXTENDED | 0x1FFFFFFF, b"z"),
    Frame(0, REMOTE | 0x7FF, bytes(8)),
    Frame(0, EXTENDED | REMOTE | 1, b""),
    Frame(0, 0x55, b"x" * 64, FDF),
    Frame(0, EXTENDED | 0x55, b"y" * 12, FDF | BRS),
    Frame(0, 0x55, b"", FDF | BRS | ESI),
]


def by_others(kept: Kept) -> list[tuple[int, bytes, int]]:
    """What others sent; that they are on this machine only the kernel knows."""
    return [(can_id, data, flags & ~LOCAL) for can_id, data, flags in content(kept.others)]


async def test_every_kind_of_frame_is_own_here_and_another_s_there(opened: Callable[..., object]) -> None:
    (bus, ours), (_, theirs) = await opened(), await opened()  # type: ignore[misc]
    before = time.time_ns()
    sent = [await bus.send(frame, 5.0) for frame in EVERY_KIND]
    await until(lambda: len(theirs.all) == len(EVERY_KIND))
    after = time.time_ns()
    assert content(sent) == [(frame.can_id, frame.data, frame.flags | OWN) for frame in EVERY_KIND]
    assert ours.all == sent
    assert by_others(theirs) == content(EVERY_KIND)
    for frame in (*sent, *theirs.all):
        assert before - 1000 <= frame.time_ns <= after + 10_000_000
    assert not ours.lost
    assert bus.status().dropped == 0


async def test_frames_go_out_in_the_order_of_the_calls_in_both_directions(
    opened: Callable[..., object],
) -> None:
    (one, ones), (other, others) = await opened(), await opened()  # type: ignore[misc]
    numbers = [bytes([number]) for number in range(100)]
    await asyncio.gather(
        *(one.send(Frame(0, 1, number), 10.0) for number in numbers),
        *(other.send(Frame(0, 2, number), 10.0) for number in numbers),
    )
    await until(lambda: len(ones.all) == len(others.all) == 200)
    for kept in (ones, others):
        assert [frame.data for frame in kept.own] == numbers
        assert [frame.data for frame in kept.others] == numbers


async def test_filters_hold_for_others_and_may_change(opened: Callable[..., object]) -> None:
    wanted = Filter(0x100, EXTENDED | REMOTE | 0x7F0)
    (bus, ours), (other, _) = await opened([wanted]), await opened()  # type: ignore[misc]
    # The last one passes: when it is there, all before it were judged.
    asked = [0x0FF, 0x100, 0x110, EXTENDED | 0x100, REMOTE | 0x100, 0x10F]
    await bus.send(Frame(0, 0x0FF, b"own"), 5.0)
    for can_id in asked:
        await other.send(Frame(0, can_id, b""), 5.0)
    await until(lambda: len(ours.all) >= 3)
    assert by_others(ours) == [(0x100, b"", 0), (0x10F, b"", 0)]
    assert content(ours.own) == [(0x0FF, b"own", OWN)]
    for filters, passing in (([Filter(0x200, 0x7FF)], [0x200]), (None, [*asked, 0x200])):
        bus.listen(filters)
        for can_id in (*asked, 0x200):
            await other.send(Frame(0, can_id, b""), 5.0)
        await until(lambda: ours.all[-1].can_id == 0x200)
        assert [frame.can_id for frame in ours.others[2:]] == passing
        del ours.all[3:]
    bus.listen([])
    await other.send(Frame(0, 0x200, b""), 5.0)
    await bus.send(Frame(0, 0x200, b"own"), 5.0)
    assert [frame.flags & OWN for frame in ours.all[3:]] == [OWN]


async def test_a_classical_bus_has_no_fd_frames(opened: Callable[..., object]) -> None:
    (bus, ours), (other, _) = await opened(fd=False), await opened()  # type: ignore[misc]
    await other.send(Frame(0, 1, b"fd", FDF), 5.0)
    await other.send(Frame(0, 2, b"no"), 5.0)
    await until(lambda: ours.all)
    assert by_others(ours) == [(2, b"no", 0)]
    with pytest.raises(DriverError, match="fd: true") as caught:
        await bus.send(Frame(0, 1, b"fd", FDF), 1.0)
    assert caught.value.code == "device-error"


@pytest.mark.parametrize(
    "wrong",
    [
        Frame(0, 1, b"123456789"),
        Frame(0, 1, b"123456789", FDF),
        Frame(0, 1, b"1", BRS),
        Frame(0, REMOTE | 1, b"", FDF),
        Frame(0, ERROR | 1, bytes(8)),
        Frame(0, 0x800, b""),
    ],
)
async def test_what_is_no_frame_is_refused(opened: Callable[..., object], wrong: Frame) -> None:
    (bus, ours) = await opened()  # type: ignore[misc]
    for send in (lambda: bus.send(wrong, 1.0), lambda: asyncio.to_thread(bus.periodic, [wrong], 1.0)):
        with pytest.raises(DriverError) as caught:
            await send()
        assert caught.value.code == "device-error"
    await bus.send(Frame(0, 1, b""), 5.0)
    await until(lambda: ours.all)
    assert content(ours.all) == [(1, b"", OWN)]


async def test_listening_only_sends_nothing(opened: Callable[..., object], connection: Connection) -> None:
    (bus, ours) = await opened(listen_only=True)  # type: ignore[misc]
    (other, _) = await opened()  # type: ignore[misc]
    await other.send(Frame(0, 1, b""), 5.0)
    await until(lambda: ours.all)
    some = [Frame(0, 1, b"")]
    for send in (lambda: bus.send(some[0], 1.0), lambda: asyncio.to_thread(bus.periodic, some, 1.0)):
        with pytest.raises(DriverError) as caught:
            await send()
        assert caught.value.code == "device-error"


async def test_periodic_frames(opened: Callable[..., object]) -> None:
    (bus, ours), (_, theirs) = await opened(), await opened()  # type: ignore[misc]
    sending = bus.periodic([Frame(0, 9, b"a"), Frame(0, 9, b"b")], 0.01)
    await until(lambda: len(theirs.all) >= 5 and len(ours.all) >= 5)
    assert [frame.data for frame in theirs.all[:4]] == [b"a", b"b", b"a", b"b"]
    assert all(frame.flags == OWN for frame in ours.all)
    with pytest.raises(DriverError, match="already") as caught:
        bus.periodic([Frame(0, 9, b"c")], 1.0)
    assert caught.value.code == "device-error"
    for wrong in ([Frame(0, 9, b"c")], [Frame(0, 8, b"c"), Frame(0, 8, b"d")], [Frame(0, 9, b"c", FDF)] * 2):
        with pytest.raises(DriverError, match="keep their number and identifier"):
            sending.update(wrong)
    sending.update([Frame(0, 9, b"A"), Frame(0, 9, b"B")])
    await until(lambda: theirs.all[-1].data in (b"A", b"B"))
    changed = next(index for index, frame in enumerate(theirs.all) if frame.data in (b"A", b"B"))
    await until(lambda: len(theirs.all) >= changed + 4)
    assert {frame.data for frame in theirs.all[changed:]} == {b"A", b"B"}
    sending.stop()
    sending.stop()
    with pytest.raises(DriverError, match="no longer"):
        sending.update([Frame(0, 9, b"A"), Frame(0, 9, b"B")])
    again = bus.periodic([Frame(0, 9, b"z")], 0.01)
    await until(lambda: theirs.all[-1].data == b"z")
    again.stop()
    for frames, period in (([], 1.0), ([Frame(0, 1, b"")] * 257, 1.0), ([Frame(0, 1, b"")], 0.0)):
        with pytest.raises(DriverError):
            bus.periodic(frames, period)
    with pytest.raises(DriverError):
        bus.periodic([Frame(0, 1, b""), Frame(0, 2, b"")], 1.0)


async def test_it_closes_and_opens_again(opened: Callable[..., object]) -> None:
    (bus, ours), (other, theirs) = await opened(), await opened()  # type: ignore[misc]
    lost = asyncio.create_task(bus.lost())
    bus.periodic([Frame(0, 9, b"")], 0.01)
    await until(lambda: ours.all)
    bus.close()
    bus.close()
    assert "closed" in await lost
    assert "not open" in await bus.lost()
    assert bus.status() == BusStatus(state=BusState.UNKNOWN)
    bus.listen(None)
    for send in (
        lambda: bus.send(Frame(0, 1, b""), 1.0),
        lambda: asyncio.to_thread(bus.periodic, [Frame(0, 1, b"")], 1.0),
    ):
        with pytest.raises(DriverError, match="not open") as caught:
            await send()
        assert caught.value.code == "disconnected"
    before = len(ours.all)
    await other.send(Frame(0, 1, b""), 5.0)
    assert len(ours.all) == before
    await bus.open(ours, None)
    await other.send(Frame(0, 3, b""), 5.0)
    await until(lambda: len(ours.all) > before)
    assert ours.all[before].can_id == 3
    seen = len(theirs.all)
    await bus.send(Frame(0, 4, b""), 5.0)
    await until(lambda: len(theirs.all) > seen)
    assert theirs.all[-1].can_id == 4


async def test_sending_that_is_cancelled_harms_no_other(opened: Callable[..., object]) -> None:
    (bus, ours) = await opened()  # type: ignore[misc]
    sending = [asyncio.create_task(bus.send(Frame(0, 1, bytes([number])), 5.0)) for number in range(20)]
    for task in sending[::2]:
        task.cancel()
    done = await asyncio.gather(*sending, return_exceptions=True)
    assert [frame.data for frame in done[1::2] if isinstance(frame, Frame)] == [
        bytes([number]) for number in range(1, 20, 2)
    ]
    await until(lambda: len(ours.own) >= 10)
