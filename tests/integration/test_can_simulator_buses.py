"""Simulated CAN buses: which are made, for whom, what is left of them, and what of that fails."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from can_drive import COMMAND, DIAGNOSIS, MOTION, RAW, TEMPERATURES, drive, peer_at, simulated
from structlog.testing import capture_logs
from waiting import until

from protocols.base import DriverError
from protocols.can.bus import Bus, make_bus
from protocols.can.buses import netlink
from protocols.can.config import Connection
from protocols.can.frame import Frame
from sim.can import SIMULATOR, node
from sim.can.traffic import Traffic
from tests import guest


@pytest.fixture(params=["virtual", "udp_multicast", pytest.param("vcan", marks=pytest.mark.socketcan)])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


# -- several buses -------------------------------------------------------------------------------


async def test_buses_are_apart_and_devices_of_one_bus_together(kind: str) -> None:
    simulation = {"bus": kind, "answers": []}
    one = drive("one", simulation=simulation)
    two = drive("two", connection={"channel": "can1"}, simulation=simulation, sim={**RAW["sim"], "starts": 2})
    three = drive(
        "three", points={"torque-limit": RAW["points"]["torque-limit"]}, sim={}, simulation=simulation
    )
    async with SIMULATOR.start({"one": one, "two": two, "three": three}) as moved:
        assert list(moved) == ["one", "two", "three"]
        assert moved["one"].connection == moved["three"].connection != moved["two"].connection
        async with peer_at(moved["one"].connection) as left, peer_at(moved["two"].connection) as right:
            await until(lambda: len(left.of(DIAGNOSIS)) > 3 and len(right.of(DIAGNOSIS)) > 3)
            for peer, starts in ((left, 412), (right, 2)):
                assert {one["Starts"] for one in peer.decoded(DIAGNOSIS) if one["Page"] == 0} == {starts}


async def test_two_simulations_at_once_have_buses_of_their_own(kind: str) -> None:
    async with simulated(drive(simulation={"bus": kind})) as (one, first):
        async with simulated(drive(simulation={"bus": kind})) as (two, second):
            assert one.connection != two.connection
            first.say(0x7FF, b"\x01")
            await until(lambda: second.of(MOTION))
            await until(lambda: len(first.of(MOTION)) > 10)
            assert second.of(0x7FF) == []


# -- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EPERM, "takes the right to administer the network"),
        OSError(errno.EOPNOTSUPP, "this kernel has no vcan"),
    ],
)
async def test_without_vcan_the_bus_is_virtual(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(name: str) -> None:
        raise error

    monkeypatch.setattr("sim.can.buses._need_sockets", lambda: None)
    monkeypatch.setattr(netlink, "make_vcan", refuse)
    with capture_logs() as logs:
        async with simulated(drive(simulation={"bus": "auto"})) as (moved, peer):
            await until(lambda: peer.of(MOTION))
            assert moved.connection.interface == "virtual"
    (said,) = [one for one in logs if one["event"] == "simulated bus"]
    assert said["kind"] == "virtual"
    assert str(error.strerror) in said["reason"]


async def test_a_bus_that_is_asked_for_and_cannot_be_made_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(errno.EPERM, "not you")

    monkeypatch.setattr("sim.can.buses._need_sockets", lambda: None)
    monkeypatch.setattr(netlink, "make_vcan", refuse)
    with pytest.raises(PermissionError, match="not you"):
        async with simulated(drive(simulation={"bus": "vcan"})):
            pass


async def test_trouble_that_is_no_want_of_vcan_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(errno.ENOBUFS, "no memory")

    monkeypatch.setattr("sim.can.buses._need_sockets", lambda: None)
    monkeypatch.setattr(netlink, "make_vcan", fail)
    with pytest.raises(OSError, match="no memory"):
        async with simulated(drive(simulation={"bus": "auto"})):
            pass


async def test_a_node_that_fails_says_so_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []

    def twice_wrong(connection: Connection) -> Bus:
        made.append(connection)
        if len(made) == 1:
            raise DriverError("disconnected", "pulled out")
        if len(made) == 2:
            raise RuntimeError("a fault of ours")
        return make_bus(connection)

    monkeypatch.setattr(node, "make_bus", twice_wrong)
    monkeypatch.setattr(node, "_AGAIN_S", 0.01)
    with capture_logs() as logs:
        async with simulated(drive()) as (_, peer):
            await until(lambda: peer.of(MOTION))
    events = {one["event"]: one for one in logs}
    assert events["simulated node is off its bus"]["reason"] == "pulled out"
    assert events["simulated node failed"]["log_level"] == "error"


async def test_a_fault_while_listening_ends_no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Traffic.follow
    faults = iter([RuntimeError("a fault of ours")])

    def follow(self: Traffic, frame: Frame, t: float) -> None:
        for fault in faults:
            raise fault
        real(self, frame, t)

    monkeypatch.setattr(Traffic, "follow", follow)
    monkeypatch.setattr(node, "_AGAIN_S", 0.01)
    with capture_logs() as logs:
        async with simulated(drive()) as (_, peer):
            peer.say(COMMAND, bytes(8))
            await until(lambda: any(one["event"] == "simulated node failed" for one in logs))
            peer.heard.clear()
            await until(lambda: peer.of(MOTION))


async def test_frames_that_the_bus_does_not_take_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = threading.Event()
    refusing.set()

    class Refusing:
        def __init__(self, bus: Bus) -> None:
            self._bus = bus

        def __getattr__(self, name: str) -> Any:
            return getattr(self._bus, name)

        async def send(self, frame: Frame, timeout: float) -> Frame:
            if refusing.is_set():
                raise DriverError("timeout", "nobody acknowledged")
            return await self._bus.send(frame, timeout)

    monkeypatch.setattr(node, "make_bus", lambda connection: Refusing(make_bus(connection)))
    with capture_logs() as logs:
        async with simulated(drive()) as (_, peer):
            await until(lambda: {"100", "120"} <= {one.get("id") for one in logs})
            refusing.clear()
            await until(lambda: len(peer.of(TEMPERATURES)) > 1)
    for can_id in ("100", "120"):
        told = [one["event"] for one in logs if one.get("id") == can_id]
        assert told == ["simulated node cannot send", "simulated node sends again"]


async def test_a_frame_that_the_bus_cannot_carry_harms_no_other(tmp_path: Path) -> None:
    recording = tmp_path / "fd.log"
    lines = [f"(1.00{n}000) can0 701##000112233\n(1.00{n}500) can0 702#01\n" for n in range(3)]
    recording.write_text("".join(lines))
    replay = {"file": str(recording), "loop": False}
    with capture_logs() as logs:
        async with simulated(drive(simulation={"replay": replay})) as (_, peer):
            await until(lambda: len(peer.of(0x702)) == 3)
    told = [one["event"] for one in logs if one.get("id") == "701"]
    assert told == ["simulated node cannot send"]


def threads() -> set[str]:
    """All but those that the loop keeps for later."""
    return {one.name for one in threading.enumerate() if not one.name.startswith("asyncio_")}


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    from can.interfaces.virtual import channels

    (tmp_path / "rec.log").write_text("(1.000000) can0 123#01\n(3601.000000) can0 123#02\n")
    before = threads(), set(asyncio.all_tasks())
    async with simulated(drive(simulation={"replay": {"file": str(tmp_path / "rec.log")}})) as (moved, peer):
        await until(lambda: peer.of(0x123))
        await until(lambda: peer.of(MOTION))
        assert moved.connection.channel in channels
    assert (threads(), set(asyncio.all_tasks())) == before
    assert moved.connection.channel not in channels


# -- interfaces of the kernel --------------------------------------------------------------------

STAYS = """
import asyncio, sys
from can_drive import drive
from sim.can import SIMULATOR

async def main():
    async with SIMULATOR.start({"drive": drive(simulation={"bus": sys.argv[1]})}) as moved:
        print("on", moved["drive"].connection, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


def interfaces() -> set[str]:
    return {one.name for one in netlink.can_links() if one.name.startswith("hil")}


@contextmanager
def agent(kind: str, *before: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A simulated drive in a process of its own, and its connection."""
    command = [*before, sys.executable, "-c", STAYS, kind]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process, next(line.split()[1] for line in process.stdout if line.startswith("on "))
        finally:
            process.send_signal(signal.SIGINT)  # so that it removes what it made


@pytest.mark.socketcan
async def test_vcan_is_made_and_removed() -> None:
    before = interfaces()
    async with SIMULATOR.start({"drive": drive(simulation={"bus": "auto"})}) as moved:
        connection = moved["drive"].connection
        assert interfaces() - before == {connection.channel}
        assert netlink.link(str(connection.channel)).kind == "vcan"
        assert connection.interface == "socketcan"
    assert interfaces() == before


@pytest.mark.socketcan
async def test_what_a_killed_agent_left_is_removed_and_no_living_agents() -> None:
    with agent("vcan") as (living, first), agent("vcan") as (killed, second):
        assert first != second
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert {first, second} == {f"socketcan:{name}" for name in interfaces()}
        async with simulated(drive(simulation={"bus": "vcan"})) as (moved, peer):
            assert str(moved.connection) == second  # its name is free again
            await until(lambda: peer.of(MOTION))
            assert living.poll() is None
        assert {first} == {f"socketcan:{name}" for name in interfaces()}


@pytest.mark.socketcan
async def test_an_interface_of_that_name_is_used_and_left(vcan: str) -> None:
    async with simulated(drive(simulation={"bus": "vcan", "channel": vcan})) as (moved, peer):
        assert moved.connection.channel == vcan
        await until(lambda: peer.of(MOTION))
        with pytest.raises(OSError, match="another agent has its simulated bus on") as caught:
            async with simulated(drive(simulation={"bus": "vcan", "channel": vcan})):
                pass
        assert caught.value.errno == errno.EADDRINUSE
    assert netlink.link(vcan).up


@pytest.mark.socketcan
async def test_an_interface_of_another_kind_is_not_used() -> None:
    with pytest.raises(FileExistsError, match="interface lo is there already, and no vcan"):
        async with simulated(drive(simulation={"bus": "auto", "channel": "lo"})):
            pass


@pytest.mark.socketcan
async def test_a_name_that_is_given_is_made_and_removed() -> None:
    async with simulated(drive(simulation={"bus": "vcan", "channel": "hil-given"})):
        assert "hil-given" in interfaces()
    assert "hil-given" not in interfaces()


@pytest.mark.socketcan
async def test_without_the_right_to_make_interfaces_the_bus_is_virtual() -> None:
    with agent("auto", "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin") as (
        _,
        connection,
    ):
        assert connection.startswith("virtual:")


@pytest.mark.socketcan
async def test_vxcan_without_namespace_is_two_interfaces() -> None:
    before = interfaces()
    async with simulated(drive(simulation={"bus": "vxcan"})) as (moved, peer):
        mine = str(moved.connection.channel)
        assert interfaces() - before == {mine, f"{mine}x"}
        await until(lambda: peer.of(MOTION))
        peer.say(0x7E0, bytes.fromhex("0322F18C00000000"))
        await until(lambda: peer.of(0x7E8))
    assert interfaces() == before


@pytest.mark.socketcan
async def test_vxcan_reaches_into_another_namespace() -> None:
    assert guest.ip("netns", "add", "hiltest").returncode == 0
    try:
        simulation = {"bus": "vxcan", "namespace": "hiltest", "channel": "hilpair"}
        async with simulated(drive(simulation=simulation)) as (_, peer):
            await until(lambda: peer.of(MOTION))
            other = ["ip", "netns", "exec", "hiltest", "cansend", "hilpair", "7FF#0102"]
            await asyncio.to_thread(subprocess.run, other, check=True)
            await until(lambda: peer.of(0x7FF))
        assert "hilpair" not in interfaces()
        assert "hilpair" not in guest.ip("netns", "exec", "hiltest", "ip", "link").stdout
    finally:
        guest.ip("netns", "delete", "hiltest")


@pytest.mark.socketcan
async def test_vxcan_into_no_namespace_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        async with simulated(drive(simulation={"bus": "vxcan", "namespace": "nowhere"})):
            pass


@pytest.mark.socketcan
async def test_an_interface_that_goes_away_is_said_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_AGAIN_S", 0.01)
    with capture_logs() as logs:
        async with SIMULATOR.start({"drive": drive(simulation={"bus": "vcan"})}) as moved:
            netlink.remove(str(moved["drive"].connection.channel))
            await until(lambda: any(one["event"] == "simulated node is off its bus" for one in logs))
    assert logs[-1]["event"] == "simulated bus could not be removed"
