"""Interfaces that fail, are removed, set otherwise or made, and buses that are closed."""

import asyncio
import contextlib
import errno
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

import pytest
from socketcan_node import Ear, another_node, error, numbered, opened, run, without_administration
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import BusStatus
from protocols.can.buses import netlink
from protocols.can.buses.layout import pack
from protocols.can.buses.socketcan import SocketCan
from protocols.can.config import Connection
from protocols.can.frame import FDF, OWN, Frame

pytestmark = pytest.mark.socketcan


@pytest.fixture
def node(vcan: str) -> Iterator[socket.socket]:
    """Another node on the bus."""
    with another_node(vcan) as sock:
        yield sock


async def test_while_bus_off_sending_fails_at_once_and_the_bus_is_not_lost(
    vcan: str, node: socket.socket
) -> None:
    async with opened(vcan) as (bus, ear):
        lost = asyncio.ensure_future(bus.lost())
        node.send(error(0x040))
        await until(lambda: ear.states)
        with pytest.raises(DriverError, match="is bus-off and sends nothing until") as caught:
            await bus.send(Frame(0, 0x1, b""), 5)
        assert caught.value.code == "device-error"
        with pytest.raises(DriverError, match="is bus-off and sends nothing until"):
            bus.periodic([Frame(0, 0x1, b"")], 1)
        node.send(pack(Frame(0, 0x2, b"")))
        await until(lambda: len(ear.heard) == 2)
        assert not lost.done()
        node.send(error(0x100))
        await until(lambda: len(ear.states) == 2)
        assert (await bus.send(Frame(0, 0x1, b""), 5)).flags == OWN
        lost.cancel()


async def test_going_bus_off_fails_who_waits(vcan: str, node: socket.socket) -> None:
    async with opened(vcan, receive_buffer=4096) as (bus, ear):
        for data in numbered(100):
            node.send(data)
        sending = asyncio.ensure_future(bus.send(Frame(0, 0x1, b""), 60))  # its echo is lost
        await until(lambda: ear.lost)
        node.send(error(0x040))
        with pytest.raises(DriverError, match="is bus-off"):
            await sending


async def test_an_interface_that_is_removed_is_lost(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, ear):
        lost = asyncio.ensure_future(bus.lost())
        for data in numbered(300):
            node.send(data)
        netlink.remove(vcan)
        assert await asyncio.wait_for(lost, 5) == f"the interface {vcan} is no longer there"
        # What came before it is not lost with it.
        assert len(ear.heard) == 300
        with pytest.raises(DriverError, match="no longer there") as caught:
            await bus.send(Frame(0, 0x1, b""), 5)
        assert caught.value.code == "disconnected"
        with pytest.raises(DriverError, match="no longer there"):
            bus.periodic([Frame(0, 0x1, b"")], 1)
        bus.listen([])
        with pytest.raises(DriverError, match=f"there is no interface {vcan}"):
            await bus.open(ear, None)


async def test_an_interface_that_goes_down_is_lost_and_can_be_opened_once_it_is_up(
    vcan: str, node: socket.socket
) -> None:
    async with opened(vcan) as (bus, ear):
        task = bus.periodic([Frame(0, 0x7, b"")], 0.01)
        await until(lambda: ear.told)
        netlink.set_up(vcan, False)
        down = f"{vcan} went down: ip link set {vcan} up"
        assert await asyncio.wait_for(bus.lost(), 5) == down
        task.stop()
        with pytest.raises(DriverError, match="is down: ip link set") as caught:
            await bus.open(ear, None)
        assert caught.value.code == "disconnected"
        netlink.set_up(vcan, True)
        ear.told.clear()
        await bus.open(ear, None)
        with contextlib.suppress(OSError):
            node.recv(16)  # its own ENETDOWN
        node.send(pack(Frame(0, 0x2, b"")))
        # A periodic frame may still have been under way in the kernel.
        await until(lambda: ear.told and ear.heard[-1].can_id == 0x2)


async def test_sending_to_an_interface_just_gone_down_says_so(vcan: str) -> None:
    async with opened(vcan) as (bus, _):
        netlink.set_up(vcan, False)
        with pytest.raises(DriverError, match="went down") as caught:
            await bus.send(Frame(0, 0x1, b""), 5)
        assert caught.value.code == "disconnected"


async def test_closing_ends_everything_also_twice(vcan: str, node: socket.socket) -> None:
    async with opened(vcan) as (bus, ear):
        lost = asyncio.ensure_future(bus.lost())
        task = bus.periodic([Frame(0, 0x7, b"")], 0.001)
        await until(lambda: len(ear.told) > 3)
        bus.close()
        bus.close()
        assert await lost == f"{vcan} was closed"
        assert await bus.lost() == f"{vcan} is not open"
        task.stop()
        with pytest.raises(DriverError, match="no longer sent"):
            task.update([Frame(0, 0x7, b"x")])
        with pytest.raises(DriverError, match="is not open"):
            await bus.send(Frame(0, 0x1, b""), 1)
        bus.listen(None)
        assert bus.status() == BusStatus()
        # What the broadcast manager sent may still be under way in the kernel, but comes before ours.
        await bus.open(ear, None)
        first = last = await bus.send(Frame(0, 0x2, b""), 5)
        while time.time_ns() < first.time_ns + 20_000_000:
            last = await bus.send(Frame(0, 0x2, b""), 5)
        after = ear.heard[ear.heard.index(first) : ear.heard.index(last) + 1]
        assert {frame.can_id for frame in after} == {0x2}


async def test_it_may_be_closed_by_who_is_told(vcan: str, node: socket.socket) -> None:
    class Closing(Ear):
        def frames(self, batch: Sequence[Frame]) -> None:
            super().frames(batch)
            bus.close()

    bus, ear = SocketCan(Connection(channel=vcan)), Closing()
    await bus.open(ear, None)
    for data in numbered(1000):
        node.send(data)
    await until(lambda: ear.told)
    await asyncio.sleep(0)
    assert len(ear.told) <= 128


async def test_listen_only_sends_nothing(vcan: str) -> None:
    async with opened(vcan, listen_only=True) as (bus, _):
        with pytest.raises(DriverError, match="is listen-only by the profile"):
            await bus.send(Frame(0, 0x1, b""), 1)
        with pytest.raises(DriverError, match="is listen-only by the profile"):
            bus.periodic([Frame(0, 0x1, b"")], 1)


async def test_what_is_wrong_with_an_interface_is_said(vcan: str) -> None:
    netlink.set_up(vcan, False)
    run("ip", "link", "set", vcan, "mtu", "16")
    netlink.set_up(vcan, True)
    for connection, code, text in (
        (
            {"channel": "nosuch0"},
            "disconnected",
            f"there is no interface nosuch0; CAN interfaces here: .*{vcan}",
        ),
        ({"channel": "lo"}, "disconnected", "lo is no CAN interface"),
        ({"channel": vcan, "fd": True}, "device-error", "its MTU is 16, and CAN FD takes 72"),
    ):
        with pytest.raises(DriverError, match=text) as caught:
            async with opened(**connection):
                pass
        assert caught.value.code == code


async def test_a_pair_of_interfaces_is_a_bus_between_them() -> None:
    netlink.make_vxcan("vxa", "vxb")
    try:
        async with opened("vxa", fd=True) as (bus, ear), opened("vxb", fd=True) as (other, ear_of_other):
            frame = Frame(0, 0x1, bytes(64), FDF)
            assert (await bus.send(frame, 5)).flags == FDF | OWN
            await other.send(Frame(0, 0x2, b""), 5)
            await until(lambda: len(ear.told) >= 2 and len(ear_of_other.told) >= 2)
            # What comes over the wire is nobody's on this machine.
            assert ear_of_other.contents[0] == (0x1, bytes(64), FDF)
    finally:
        netlink.remove("vxb")
    with pytest.raises(OSError, match="there is no interface vxa"):
        netlink.link("vxa")


def test_the_peer_may_be_in_another_namespace() -> None:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        space = f"/proc/{other.pid}/ns/net"
        netlink.make_vxcan("vxa", "vxb", space)
        try:
            with pytest.raises(OSError, match="there is no interface vxb"):
                netlink.link("vxb")
            shown = run("nsenter", f"--net={space}", "ip", "link", "show", "vxb")
            assert "LOWER_UP" in shown
            assert "mtu 72" in shown
        finally:
            netlink.remove("vxa")
            other.stdin.close()


def test_what_the_kernel_says_of_making_and_removing(vcan: str) -> None:
    with pytest.raises(FileExistsError, match=f"there is an interface {vcan} already"):
        netlink.make_vcan(vcan)
    with pytest.raises(OSError, match="lo is not virtual") as caught:
        netlink.remove("lo")
    assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError, match="there is no interface nosuch0"):
        netlink.remove("nosuch0")
    with pytest.raises(OSError, match="there is no interface nosuch0"):
        netlink.set_up("nosuch0", True)
    with pytest.raises(FileNotFoundError):
        netlink.make_vxcan("vxa", "vxb", "nosuch")
    with pytest.raises(OSError, match="this kernel has no nosuch"):
        netlink._make("vxa", "nosuch", b"")
    found = netlink.link(vcan)
    assert (found.kind, found.up, found.mtu, found.is_can) == ("vcan", True, 72, True)
    assert vcan in [one.name for one in netlink.can_links()]


def test_without_the_right_to_do_so_no_interface_is_made() -> None:
    code = "from protocols.can.buses import netlink; netlink.make_vcan('vcx')"
    done = without_administration(code)
    assert "PermissionError" in done.stderr
    assert "takes the right to administer the network (CAP_NET_ADMIN)" in done.stderr
