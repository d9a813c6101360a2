"""`hilgate replay`: a recording onto a bus, in its time, seen by another node."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import can
import pytest
from can_recordings import FRAMES, START_NS, recording
from shell import WAIT_S, hilgate, running

from protocols.can.frame import ERROR, EXTENDED_MASK, REMOTE, Frame

GROUP = "239.74.163.78"
SENDABLE = [frame for frame in FRAMES if not frame.can_id & ERROR]


class Node:
    """Another node on a bus over UDP multicast, and the profile that names the bus."""

    def __init__(self, folder: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        self.bus = can.Bus(interface="udp_multicast", channel=GROUP, port=port, hop_limit=0, fd=True)
        self.profile = folder / "rig.yaml"
        options = f"{{port: {port}, hop_limit: 0}}"
        connection = f"{{interface: udp_multicast, channel: {GROUP}, fd: true, options: {options}}}"
        self.profile.write_text(
            f"profile: rig\ndevices:\n  bus: {{protocol: can, connection: {connection}, frames: {{}}}}\n"
        )

    async def heard(self, count: int) -> list[can.Message]:
        """The next messages."""
        found: list[can.Message] = []
        async with asyncio.timeout(WAIT_S):
            while len(found) < count:
                message = await asyncio.to_thread(self.bus.recv, 0.2)
                if message is not None:
                    found.append(message)
        return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.bus.shutdown()


async def test_a_recording_goes_onto_a_bus_in_its_time(node: Node, tmp_path: Path) -> None:
    source = recording(tmp_path, "in.blf")
    done = await hilgate("replay", str(source), "--profile", str(node.profile), "--json", "--speed", "0.1")
    assert done.code == 0, done.err
    (summary,) = done.lines
    assert (summary["complete"], summary["sent"], summary["errors"]) == (True, len(SENDABLE), 1)
    assert (summary["filtered"], summary["loops"]) == (0, 1)
    assert summary["seconds"] >= 0.07
    assert 0 <= summary["late_ms"]["p50"] <= summary["late_ms"]["p99"] <= summary["late_ms"]["max"]
    heard = await node.heard(len(SENDABLE))
    assert [message.arbitration_id for message in heard] == [f.can_id & EXTENDED_MASK for f in SENDABLE]
    assert [bytes(message.data) for message in heard] == [
        b"" if frame.can_id & REMOTE else frame.data for frame in SENDABLE
    ]
    assert [message.is_fd for message in heard] == [bool(frame.flags & 4) for frame in SENDABLE]
    # No frame goes early; where the first went late, on a busy machine, the others are closer to it.
    spans = [heard[-1].timestamp - heard[0].timestamp]
    while max(spans) < 0.069 and len(spans) < 5:
        await hilgate("replay", str(source), "--profile", str(node.profile), "--speed", "0.1")
        heard = await node.heard(len(SENDABLE))
        spans.append(heard[-1].timestamp - heard[0].timestamp)
    assert max(spans) >= 0.069


async def test_ids_are_chosen_and_moved(node: Node, tmp_path: Path) -> None:
    frames = [Frame(START_NS + n * 1_000_000, n, bytes([n])) for n in range(0x10)]
    source = recording(tmp_path, "in.log", frames)
    words = ["--ids", "0x2", "--ids", "0x4..0x9", "--map", "0x4..0x6=0x704..0x706", "--map", "0x9=0x18DAF110"]
    done = await hilgate("replay", str(source), "--profile", str(node.profile), "--device", "bus", *words)
    assert done.code == 0, done.err
    assert "7 frames sent in" in done.err
    assert "passed over: 9 not wanted" in done.err
    heard = await node.heard(7)
    assert [(message.arbitration_id, message.data[0]) for message in heard] == [
        (0x2, 2),
        (0x704, 4),
        (0x705, 5),
        (0x706, 6),
        (0x7, 7),
        (0x8, 8),
        (0x18DAF110, 9),
    ]
    assert heard[-1].is_extended_id


async def test_it_loops_until_it_is_interrupted_and_says_what_it_did(node: Node, tmp_path: Path) -> None:
    source = recording(tmp_path, "in.blf", SENDABLE)
    words = ["replay", str(source), "--profile", str(node.profile), "--loop", "--json"]
    async with running(*words) as replaying:
        await node.heard(3 * len(SENDABLE))
        ended = await replaying.end()
    assert ended.code == 0, ended.err
    (summary,) = ended.lines
    assert summary["complete"] is False
    assert summary["sent"] >= 3 * len(SENDABLE)
    assert summary["loops"] >= 3


async def test_so_many_times(node: Node, tmp_path: Path) -> None:
    source = recording(tmp_path, "in.blf", SENDABLE)
    done = await hilgate("replay", str(source), "--profile", str(node.profile), "--times", "3", "--json")
    (summary,) = done.lines
    assert (summary["sent"], summary["loops"]) == (3 * len(SENDABLE), 3)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("FILE", 2, "Onto which bus? Give --channel"),
        ("FILE --channel a-name-that-is-too-long", 2, "--channel"),
        ("FILE --channel can0 --bitrate 3", 2, "--bitrate"),
        ("FILE --channel can0 --map 0x100", 2, "should be such as 0x100=0x200"),
        ("FILE --channel can0 --map 0x100..0x1FF=0x200", 2, "the same number of ids"),
        ("FILE --channel can0 --ids zebra", 2, "'zebra': an arbitration id is written"),
        ("FILE --channel can0 --profile PROFILE", 2, "not both"),
        ("FILE --profile PROFILE --device pump", 2, "there is no CAN bus 'pump'; profile"),
        ("FILE --channel can0 --speed 0", 2, "--speed"),
        ("none.blf --channel can0", 3, "none.blf"),
        ("FILE --interface nonsense --channel 0", 3, "nonsense"),
        ("DAMAGED --profile PROFILE", 3, "line 2"),
    ],
)
async def test_what_is_wrong_is_a_sentence(
    words: str, code: int, says: str, tmp_path: Path, node: Node
) -> None:
    damaged = recording(tmp_path, "damaged.log", SENDABLE[:1])
    with damaged.open("ab") as file:
        file.write(b"nonsense\n")
    named = {
        "FILE": str(recording(tmp_path, "in.blf")),
        "PROFILE": str(node.profile),
        "DAMAGED": str(damaged),
    }
    done = await hilgate("replay", *(named.get(word, word) for word in words.split()))
    assert done.code == code, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    assert await asyncio.to_thread(node.bus.recv, 0.0) is None  # nothing was sent


@pytest.mark.socketcan
async def test_onto_socketcan_every_frame_in_time(vcan: str, tmp_path: Path) -> None:
    count, gap_ns = 2000, 1_000_000
    frames = [Frame(START_NS + n * gap_ns, n % 0x800, n.to_bytes(8)) for n in range(count)]
    source = recording(tmp_path, "in.blf", frames)
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as other:
        other.setsockopt(socket.SOL_SOCKET, 33, 16 * 1024 * 1024)  # SO_RCVBUFFORCE
        other.bind((vcan,))
        other.settimeout(WAIT_S)
        done = await hilgate("replay", str(source), "--channel", vcan, "--json")
        assert done.code == 0, done.err
        (summary,) = done.lines
        received = [struct.unpack("<IB3x8s", other.recv(16)) for _ in range(count)]
    assert [(can_id, data) for can_id, _, data in received] == [(f.can_id, f.data) for f in frames]
    assert summary["sent"] == count
    assert summary["seconds"] > 1.99


@pytest.mark.socketcan
async def test_a_bus_that_goes_ends_it(tmp_path: Path) -> None:
    from tests.guest import ip, new_vcan

    source = recording(tmp_path, "in.blf", SENDABLE[:2])
    with new_vcan() as name:
        async with running("replay", str(source), "--channel", name, "--loop") as replaying:
            with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as other:
                other.bind((name,))
                other.settimeout(WAIT_S)
                await asyncio.to_thread(other.recv, 16)
            ip("link", "delete", name)
            said = await replaying.said(name)
            assert await replaying.process.wait() == 3
    assert "Traceback" not in said


@pytest.mark.socketcan
async def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    done = await hilgate("replay", str(recording(tmp_path, "in.blf")), "--channel", "nocan7")
    assert done.code == 3
    assert "nocan7" in done.err
    assert "Traceback" not in done.err
