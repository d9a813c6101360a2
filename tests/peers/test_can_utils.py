"""can-utils as the other node: what they send an AMQP consumer gets, what a command sends they see."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tshark
from canutils import candump, cansend, content, mixed, parse_line, pcap_frames, run, why_missing
from desk import Desk, desk

from agent.app import Agent
from agent.profile import load_profile
from agent.settings import load_settings
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, REMOTE, Frame
from sim.broker import Broker

pytestmark = [pytest.mark.socketcan, pytest.mark.peer("can-utils")]

DATABASE = """
VERSION ""
BU_: drive gateway
BO_ 256 Status: 8 drive
 SG_ Speed : 0|16@1+ (0.1,0) [0|6000] "rpm" gateway
 SG_ Torque : 23|12@0- (0.5,-10) [-1000|1000] "Nm" gateway
 SG_ State : 32|2@1+ (1,0) [0|3] "" gateway
BO_ 512 Command: 4 gateway
 SG_ Setpoint : 7|16@0+ (0.1,0) [0|3000] "rpm" drive
 SG_ Enable : 16|1@1+ (1,0) [0|1] "" drive
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 10000;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_ "GenMsgCycleTime" BO_ 256 100;
VAL_ 256 State 0 "off" 1 "running" 2 "fault" ;
"""
SIGNALS = """
    database: drive.dbc
    messages: {Status: {timeout: 300ms}}
    points:
      speed:    {signal: Speed}
      torque:   {signal: Torque}
      state:    {signal: State}
      setpoint: {signal: Setpoint, access: rw, min: 0, max: 3000}
      enable:   {signal: Enable, access: rw}
"""


@pytest.fixture(autouse=True)
def _can_utils(need: Callable[[str, str | None, str], None]) -> None:
    need("can-utils", why_missing(), "make peers")


@contextlib.asynccontextmanager
async def bench(folder: Path, channel: str, *, buffer: str = "16MiB", more: str = "") -> AsyncIterator[Desk]:
    """An agent on a real interface with an embedded broker, and a desk that has seen it come up."""
    (folder / "drive.dbc").write_text(DATABASE)
    connection = f"{{channel: {channel}, fd: true, receive_buffer: {buffer}}}"
    (folder / "bench.yaml").write_text(
        f"profile: bench\ndevices:\n  bus:\n    protocol: can\n    connection: {connection}\n{more}"
    )
    async with Broker("127.0.0.1", 0) as broker, desk(broker.url, "rig") as one:
        chosen = {"bench": "rig", "broker": broker.url, "heartbeat": "200ms", "store": folder / "store"}
        agent = Agent(load_profile(folder / "bench.yaml", {}), load_settings(None, {}, chosen))
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(agent.run(stop))
            try:
                await one.until_state("available")
                yield one
            finally:
                stop.set()
                async with asyncio.timeout(20):
                    await running


def bodies(one: Desk) -> list[bytes]:
    """The bodies of all frames events so far, which have to be without a hole."""
    events = [event for event in one.events if event.source == "/benches/rig/devices/bus"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [event.data for event in events if event.type == "io.hilgate.frames.v1"]


def heard(one: Desk) -> list[Frame]:
    """The frames that the desk was told of, in the order it was told."""
    return [frame for body in bodies(one) for frame in pcap_frames(body)]


def to_microseconds(frames: list[Frame]) -> list[Frame]:
    """Frames with stamps as candump prints them."""
    return [frame._replace(time_ns=frame.time_ns // 1000 * 1000) for frame in frames]


async def test_a_consumer_gets_every_frame_that_cangen_sends(vcan: str, tmp_path: Path) -> None:
    count = 5000
    async with candump(vcan) as dump, bench(tmp_path, vcan, more="    frames: {}\n") as one:
        await run(*mixed(vcan, count))
        await dump.until(lambda frames: len(frames) >= count)
        await one.until(lambda: len(heard(one)) >= count)
        # The kernel stamps a frame once, for all who listen.
        assert to_microseconds(heard(one)) == dump.frames
        assert not one.of_type("loss")
    frames = heard(one)
    assert len(frames) == count
    for bit in (EXTENDED, REMOTE):
        assert any(frame.can_id & bit for frame in frames)
    for bit in (FDF, BRS, ESI):
        assert any(frame.flags & bit for frame in frames)
    assert all(earlier.time_ns <= later.time_ns for earlier, later in pairwise(frames))
    first = bodies(one)[0]
    assert [seen.frame for seen in tshark.opened(first)] == pcap_frames(first)


async def test_a_consumer_gets_what_canplayer_replays(vcan: str, tmp_path: Path) -> None:
    recorded = [
        ("123#", (0x123, b"", 0)),
        ("123#DEADBEEF", (0x123, b"\xde\xad\xbe\xef", 0)),
        ("18DAF110#0102030405060708", (0x18DAF110 | EXTENDED, bytes(range(1, 9)), 0)),
        ("00000123#FF", (0x123 | EXTENDED, b"\xff", 0)),
        ("321#R5", (0x321 | REMOTE, bytes(5), 0)),
        ("1ABCDEF0#R", (0x1ABCDEF0 | EXTENDED | REMOTE, b"", 0)),
        ("100##5" + "A5" * 64, (0x100, b"\xa5" * 64, FDF | BRS)),
        ("101##6" + "00" * 12, (0x101, bytes(12), FDF | ESI)),
    ]
    gap_ns = 20_000_000
    log = tmp_path / "bus.log"
    times = [1_790_000_000_000_000_000 + at * gap_ns for at in range(len(recorded))]
    lines = (
        f"({time // 1_000_000_000}.{time // 1000 % 1_000_000:06d}) can0 {text}\n"
        for time, (text, _) in zip(times, recorded, strict=True)
    )
    log.write_text("".join(lines))
    async with bench(tmp_path, vcan, more="    frames: {}\n") as one:
        await run("canplayer", "-I", str(log), f"{vcan}=can0")
        await one.until(lambda: len(heard(one)) >= len(recorded))
    frames = heard(one)
    assert content(frames) == [expected for _, expected in recorded]
    # Not how far apart: canplayer may be late for any of them.
    assert all(earlier.time_ns <= later.time_ns for earlier, later in pairwise(frames))


async def test_canplayer_replays_what_the_agent_recorded(vcan: str, tmp_path: Path) -> None:
    count = 500
    async with bench(tmp_path, vcan, more="    frames: {}\n") as one:
        begun = await one.ask("call", device="bus", method="record", args={"start": True, "format": "log"})
        assert begun["status"] == "ok", begun
        await run(*mixed(vcan, count))
        await one.until(lambda: len(heard(one)) >= count)
        ended = await one.ask("call", device="bus", method="record", args={"stop": True})
        assert ended["status"] == "ok", ended
    (recording,) = (tmp_path / "recordings").iterdir()
    written = [parse_line(line) for line in recording.read_text().splitlines()]
    async with candump(vcan) as dump:
        await run("canplayer", "-t", "-I", str(recording), f"{vcan}={written[0].channel}")
        await dump.until(lambda frames: len(frames) >= count)
    assert [one.frame for one in written] == to_microseconds(heard(one))
    assert content(dump.frames) == content(heard(one))


def lateness_ns(replayed: list[Frame], logged: list[Frame]) -> int:
    """How far half of the frames are from where they were, counted from the first."""
    shifts = sorted(
        (now.time_ns - replayed[0].time_ns) - (then.time_ns - logged[0].time_ns)
        for now, then in zip(replayed, logged, strict=True)
    )
    return abs(shifts[len(shifts) // 2])


async def test_hilgate_replays_what_candump_logged(vcan: str, tmp_path: Path) -> None:
    count = 200
    async with candump(vcan) as dump:
        await run(*mixed(vcan, count, gap_ms=2))
        await dump.until(lambda frames: len(frames) >= count)
        (tmp_path / "bus.log").write_text("".join(dump.lines))
        hilgate = str(Path(sys.executable).with_name("hilgate"))
        logged, late_ns = dump.frames[:count], []
        for _ in range(5):  # a machine that is busy at the wrong moment makes the first late, or many
            dump.frames.clear()
            await run(hilgate, "replay", str(tmp_path / "bus.log"), "--channel", vcan, "--fd")
            await dump.until(lambda frames: len(frames) >= count)
            replayed = dump.frames[:]
            assert content(replayed) == content(logged)
            late_ns.append(lateness_ns(replayed, logged))
            if late_ns[-1] < 50_000_000:
                break
    assert late_ns[-1] < 50_000_000, late_ns  # at twice the speed it were 200 ms


async def test_error_frames_are_frames_too(vcan: str, tmp_path: Path) -> None:
    async with bench(tmp_path, vcan, more="    frames: {}\n") as one:
        await cansend(vcan, "20000004#0004000000006000", "123#01")
        await one.until(lambda: len(heard(one)) >= 2)
    error, other = heard(one)
    assert (error.can_id, error.data) == (ERROR | 0x004, bytes.fromhex("0004000000006000"))
    assert other.can_id == 0x123


async def test_candump_shows_what_a_command_sends(vcan: str, tmp_path: Path) -> None:
    sent: list[tuple[dict[str, Any], tuple[int, bytes, int]]] = [
        ({"id": "0x123", "data": "0102ff"}, (0x123, b"\x01\x02\xff", 0)),
        ({"id": "0x123", "data": "", "extended": True}, (0x123 | EXTENDED, b"", 0)),
        ({"id": "0x18DAF110", "data": "00" * 8}, (0x18DAF110 | EXTENDED, bytes(8), 0)),
        ({"id": "0x321", "remote": True, "dlc": 5}, (0x321 | REMOTE, bytes(5), 0)),
        ({"id": "0x100", "data": "a5" * 64, "fd": True, "brs": True}, (0x100, b"\xa5" * 64, FDF | BRS)),
        ({"id": "0x7ff", "data": "11" * 12, "fd": True}, (0x7FF, b"\x11" * 12, FDF)),
    ]
    async with candump(vcan) as dump, bench(tmp_path, vcan, more="    frames: {}\n") as one:
        for args, _ in sent:
            result = await one.ask("call", device="bus", method="send", args=args)
            assert result["status"] == "ok", result
        await dump.until(lambda frames: len(frames) >= len(sent))
        await one.until(lambda: len(heard(one)) >= len(sent))
        refused = await one.ask("call", device="bus", method="send", args={"id": "0x800000000", "data": ""})
        assert refused["status"] == "rejected"
        assert to_microseconds(heard(one)) == dump.frames
    assert content(dump.frames) == [expected for _, expected in sent]


async def test_candump_shows_what_is_written(vcan: str, tmp_path: Path) -> None:
    async with candump(vcan) as dump, bench(tmp_path, vcan, more=SIGNALS) as one:
        for values in ({"setpoint": 1500}, {"enable": True}, {"setpoint": 0.5, "enable": False}):
            result = await one.ask("write", device="bus", values=values)
            assert result["status"] == "ok", result
        await dump.until(lambda frames: len(frames) >= 3)
        beyond = await one.ask("write", device="bus", values={"setpoint": 3000.5})
        assert beyond["status"] == "rejected"
    assert content(dump.frames) == [
        (0x200, bytes.fromhex("3A980000"), 0),
        (0x200, bytes.fromhex("3A980100"), 0),
        (0x200, bytes.fromhex("00050000"), 0),
    ]


async def test_candump_shows_what_is_sent_periodically(vcan: str, tmp_path: Path) -> None:
    async def periodic(one: Desk, **args: Any) -> None:
        result = await one.ask("call", device="bus", method="periodic", args=args)
        assert result["status"] == "ok", result

    async with candump(vcan) as dump, bench(tmp_path, vcan, more="    frames: {}\n") as one:
        await periodic(one, start="beat", id="0x700", data=["01", "02"], period="20ms")
        await dump.until(lambda frames: len(frames) >= 10)
        await periodic(one, update="beat", data=["03", "03"])
        updated_ns = time.time_ns()
        await dump.until(lambda frames: sum(frame.time_ns > updated_ns for frame in frames) >= 5)
        await periodic(one, stop="beat")
        stopped_ns = time.time_ns()
        # If it still went on, some periods would show it.
        await periodic(one, start="later", id="0x701", data="", period="100ms")
        await dump.until(lambda frames: sum(frame.can_id == 0x701 for frame in frames) >= 2)
        await one.until(lambda: sum(frame.can_id == 0x701 for frame in heard(one)) >= 2)
    beats = [frame for frame in dump.frames if frame.can_id == 0x700]
    old = [frame.data for frame in beats if frame.data != b"\x03"]
    assert old == ([b"\x01", b"\x02"] * len(old))[: len(old)]
    assert {frame.data for frame in beats if frame.time_ns > updated_ns} == {b"\x03"}
    assert all(frame.time_ns < stopped_ns for frame in beats)
    spans = sorted(later.time_ns - earlier.time_ns for earlier, later in pairwise(beats))
    assert spans[len(spans) // 2] == pytest.approx(20_000_000, rel=0.5)
    both = list(
        zip(to_microseconds(heard(one)), dump.frames, strict=False)
    )  # either may have seen more of the end
    assert all(mine == theirs for mine, theirs in both)


async def test_signals_that_cansend_sends_are_samples_until_it_stops(vcan: str, tmp_path: Path) -> None:
    async with bench(tmp_path, vcan, more=SIGNALS) as one:
        # 0x39D5 x 0.1, 0xF9C (12 bits, signed: -100) x 0.5 - 10, label 1.
        await cansend(vcan, "100#D539F9C001000000", "101#FFFF", "00000100#FFFFFFFFFFFFFFFF")
        await one.until(lambda: one.samples("bus"))
        await one.until(lambda: any(sample.get("bad") for sample in one.samples("bus")))
        good, stale = (
            [sample for sample in one.samples("bus") if sample.get(kind)] for kind in ("values", "bad")
        )
        assert [sample["values"] for sample in good] == [{"speed": 1480.5, "torque": -60, "state": "running"}]
        assert stale[-1]["bad"] == {"speed": "stale", "torque": "stale", "state": "stale"}
        read = await one.ask("read", device="bus", points=["speed"])
        assert read["status"] == "failed", read
        await cansend(vcan, "100#0000000000000000")
        await one.until(lambda: one.samples("bus")[-1].get("values"))
        assert one.samples("bus")[-1]["values"] == {"speed": 0, "torque": -10, "state": "off"}


async def test_what_the_kernel_had_no_room_for_is_said_as_loss(vcan: str, tmp_path: Path) -> None:
    count = 3000
    async with bench(tmp_path, vcan, buffer="64KiB", more="    frames: {}\n") as one:
        # The agent is on this loop, and while the loop waits here it does not read.
        subprocess.run(mixed(vcan, count), check=True, timeout=30)  # noqa: ASYNC221
        # The kernel tells of lost frames with the next one that comes.
        await one.until(lambda: heard(one))
        await cansend(vcan, "7FF#")
        losses = await one.until(lambda: one.of_type("loss"))
        await one.until(lambda: heard(one)[-1].can_id == 0x7FF)
    (loss,) = [body for _, body in losses]
    assert loss["reason"] == "receive-overflow"
    assert 0 < loss["count"] < count
    assert loss["source"] == "/benches/rig/devices/bus"
    assert len(heard(one)) + loss["count"] == count + 1
