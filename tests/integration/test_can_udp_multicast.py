"""The python-can bus on UDP multicast, with another process that is plain python-can, on this host only."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest
from can_listener import Kept, content
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import Bus, make_bus
from protocols.can.config import Connection
from protocols.can.frame import BRS, EXTENDED, FDF, OWN, REMOTE, Frame

PEER = Path(__file__).with_name("multicast_peer.py")
GROUP = "239.74.163.77"


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture(params=[GROUP, "ff01::163:77"])
def group(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def peer(group: str, port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PEER), group, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    yield
    assert process.returncode is None, "the other node ended by itself"
    process.kill()
    await process.communicate()


@pytest.fixture
async def kept() -> Kept:
    return Kept()


def multicast(group: str, port: int, **more: object) -> Bus:
    fields = {
        "interface": "udp_multicast",
        "channel": group,
        "options": {"port": port, "hop_limit": 0},
        "fd": True,
        **more,
    }
    return make_bus(Connection.model_validate(fields))


@pytest.fixture
async def bus(group: str, port: int, kept: Kept) -> AsyncIterator[Bus]:
    made = multicast(group, port)
    await made.open(kept, None)
    yield made
    made.close()


KINDS = [
    Frame(0, 0x10, b"abc"),
    Frame(0, 0x20, b""),
    Frame(0, EXTENDED | 0x1ABCDE0, b"12345678"),
    Frame(0, 0x30, b"x" * 11 + b"!", FDF),
    Frame(0, EXTENDED | 0x40, b"y" * 63 + b"?", FDF | BRS),
]


@pytest.mark.usefixtures("peer")
async def test_another_process_answers_frames_of_every_kind(bus: Bus, kept: Kept) -> None:
    before = time.time_ns()
    for frame in KINDS:
        sent = await bus.send(frame, 2.0)
        assert content([sent]) == [(frame.can_id, frame.data, frame.flags | OWN)]
    await bus.send(Frame(0, REMOTE | 0x50, bytes(3)), 2.0)
    await until(lambda: len(kept.others) == len(KINDS))
    assert content(kept.others) == [(one.can_id + 1, one.data[::-1], one.flags) for one in KINDS]
    assert len(kept.own) == len(KINDS) + 1
    assert all(before - 1000 <= frame.time_ns <= time.time_ns() + 1000 for frame in kept.all)


@pytest.mark.usefixtures("peer")
async def test_a_burst_comes_in_order_while_we_send(bus: Bus, kept: Kept) -> None:
    count, ours = 80, 40  # as many as the kernel holds for a node that is not let run meanwhile
    burst: list[bytes] = []
    for _ in range(10):  # UDP: on a busy machine a node may miss a frame all the same, and nobody is told
        kept.all.clear()
        await bus.send(Frame(0, 0x7FE, count.to_bytes(2, "big")), 30.0)
        for number in range(ours):
            await bus.send(Frame(0, REMOTE | 0x60, bytes(number % 9)), 30.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await until(lambda: any(frame.can_id == 0x7FD for frame in kept.all))
        assert [len(frame.data) for frame in kept.own[1:]] == [number % 9 for number in range(ours)]
        burst = [frame.data for frame in kept.others if frame.can_id == 0x7FC]
        assert burst == sorted(set(burst))
        if len(burst) == count:
            break
    assert burst == [number.to_bytes(4, "big") for number in range(count)]


async def test_two_buses_of_ours_tell_own_frames_apart(bus: Bus, group: str, port: int, kept: Kept) -> None:
    other_kept = Kept()
    other = multicast(group, port)
    await other.open(other_kept, None)
    await asyncio.gather(
        *(bus.send(Frame(0, 1, bytes([number])), 5.0) for number in range(50)),
        *(other.send(Frame(0, 2, bytes([number])), 5.0) for number in range(50)),
    )
    await until(lambda: len(kept.all) == len(other_kept.all) == 100)
    expected = [bytes([number]) for number in range(50)]
    for ours, their_id in ((kept, 2), (other_kept, 1)):
        assert [frame.data for frame in ours.own] == expected
        assert [frame.data for frame in ours.others] == expected
        assert {frame.can_id for frame in ours.others} == {their_id}
    other.close()


@pytest.mark.usefixtures("peer")
async def test_what_the_kernel_drops_is_counted(group: str, port: int, kept: Kept) -> None:
    bus = multicast(group, port, receive_buffer=4096)
    await bus.open(kept, None)
    for burst in range(1, 31):  # a machine that is quick enough loses nothing of one
        before = len(kept.others)
        await bus.send(Frame(0, 0x7FE, (200).to_bytes(2, "big")), 2.0)
        await until(lambda: len(kept.others) + kept.lost == 201 * burst)  # noqa: B023  # of this burst
        numbers = [
            int.from_bytes(frame.data, "big") for frame in kept.others[before:] if frame.can_id == 0x7FC
        ]
        assert numbers == sorted(set(numbers))
        if kept.lost:
            break
    assert kept.lost == bus.status().dropped > 0
    bus.close()


async def test_datagrams_that_are_no_frames_are_counted(bus: Bus, group: str, port: int, kept: Kept) -> None:
    good = {
        "timestamp": 0.0,
        "arbitration_id": 5,
        "is_extended_id": False,
        "is_remote_frame": False,
        "is_error_frame": False,
        "channel": None,
        "dlc": 1,
        "data": b"1",
        "is_fd": False,
        "bitrate_switch": False,
        "error_state_indicator": False,
    }
    hostile = [
        b"",
        b"\xc1",
        b"hello",
        msgpack.packb([1, 2]),
        msgpack.packb({**good, "arbitration_id": "7"}),
        msgpack.packb({**good, "arbitration_id": 1.5}),
        msgpack.packb({**good, "arbitration_id": -1}),
        msgpack.packb({**good, "arbitration_id": 1 << 40}),
        msgpack.packb({**good, "dlc": 9}),
        msgpack.packb({**good, "data": 5}),
        msgpack.packb({**good, "extra": 1}),
        msgpack.packb({**good, "is_fd": True, "dlc": 9, "data": b"123456789"}),
    ]
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as stranger:
        if family == socket.AF_INET:
            stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        else:
            stranger.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
        for datagram in hostile:
            stranger.sendto(datagram, (group, port))
        stranger.sendto(msgpack.packb(good), (group, port))
    await until(lambda: kept.all)
    assert content(kept.all) == [(5, b"1", 0)]
    assert kept.lost == len(hostile)


async def test_a_group_that_is_none_is_said(port: int, kept: Kept) -> None:
    with pytest.raises(DriverError, match="Invalid argument") as caught:
        await multicast("127.0.0.1", port).open(kept, None)
    assert caught.value.code == "disconnected"
