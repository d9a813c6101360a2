"""Recordings: what each format keeps, that others read ours, and that nothing hostile gets through."""

import gzip
import io
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import can
import pytest
from can_frames import RECORDINGS, START_NS, seen
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, EXTENDED_MASK, FDF, LOCAL, OWN, REMOTE, Frame
from protocols.can.recordings import logs
from protocols.can.recordings.writers import WRITERS

bounded = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ONE_OF_EACH = [
    Frame(START_NS + 5_000_123, 0x123, b"\x01\x02"),
    Frame(START_NS + 5_001_999, 0x18DAF110 | EXTENDED, bytes(8), OWN),
    Frame(START_NS + 5_002_000, 0x7 | EXTENDED, b"", LOCAL),
    Frame(START_NS + 6_000_000, 0x7FF | REMOTE, bytes(5)),
    Frame(START_NS + 7_000_001, 0x100, bytes(range(64)), FDF | BRS),
    Frame(START_NS + 8_000_000, 0x1FFFFFFF | EXTENDED, b"", FDF | ESI | OWN),
    Frame(START_NS + 9_000_000, 0x88 | ERROR, b"\x00\x04\x02\x19\x00\x00\x7f\x60"),
]


def whole_microseconds(frame: Frame) -> Frame:
    return frame._replace(time_ns=frame.time_ns // 1000 * 1000)


def as_asc_has_it(frame: Frame) -> Frame:
    frame = whole_microseconds(frame)
    return Frame(frame.time_ns, ERROR, bytes(8)) if frame.can_id & ERROR else frame


KEPT: dict[str, Callable[[Frame], Frame]] = {
    "blf": lambda frame: frame,
    "asc": as_asc_has_it,
    "log": whole_microseconds,
    "pcapng": lambda frame: frame,
    "csv": lambda frame: frame,
}
"""What each format keeps of a frame, but for who of this machine sent it."""


def written(format: str, frames: Sequence[Frame], *, flush_each: int = 7) -> bytes:
    file = io.BytesIO()
    writer = WRITERS[format](cast(BinaryIO, file), "can0")
    for begin in range(0, len(frames), flush_each):
        writer.write(frames[begin : begin + flush_each])
        writer.flush()
    writer.finish()
    return file.getvalue()


def made(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("format", KEPT)
@given(frames=RECORDINGS)
@example(frames=ONE_OF_EACH)
@bounded
def test_a_recording_is_read_back(format: str, frames: list[Frame], tmp_path: Path) -> None:
    path = made(tmp_path, f"x.{format}", written(format, frames))
    expected = [seen(KEPT[format](frame)) for frame in frames]
    recording = logs.read(path)
    assert list(recording) == expected
    assert list(recording) == expected  # again, from its beginning
    packed = made(tmp_path, f"x.{format}.gz", gzip.compress(path.read_bytes()))
    assert list(logs.read(packed)) == expected


def of_message(message: can.Message) -> Frame:
    """What python-can read; stamps to the microsecond that its floats hold."""
    can_id = message.arbitration_id | (EXTENDED if message.is_extended_id else 0)
    time_ns = round(message.timestamp * 1e6) * 1000
    direction = 0 if message.is_rx else OWN
    if message.is_error_frame:
        return Frame(time_ns, message.arbitration_id & EXTENDED_MASK | ERROR, bytes(message.data))
    if message.is_remote_frame:
        return Frame(time_ns, can_id | REMOTE, bytes(message.dlc), direction)
    fd = message.is_fd * FDF | message.bitrate_switch * BRS | message.error_state_indicator * ESI
    return Frame(time_ns, can_id, bytes(message.data), fd | direction)


def to_message(frame: Frame) -> can.Message:
    error, remote = bool(frame.can_id & ERROR), bool(frame.can_id & REMOTE)
    return can.Message(
        timestamp=frame.time_ns / 1e9,
        arbitration_id=frame.can_id & EXTENDED_MASK,
        is_extended_id=bool(frame.can_id & EXTENDED),
        is_remote_frame=remote,
        is_error_frame=error,
        is_fd=bool(frame.flags & FDF),
        bitrate_switch=bool(frame.flags & BRS),
        error_state_indicator=bool(frame.flags & ESI),
        is_rx=not frame.flags & (OWN | LOCAL),
        dlc=len(frame.data),
        data=b"" if remote else frame.data,
    )


def microseconds(frame: Frame) -> Frame:
    return frame._replace(time_ns=round(frame.time_ns / 1000) * 1000)


@given(frames=RECORDINGS)
@example(frames=ONE_OF_EACH)
@bounded
def test_python_can_reads_our_blf(frames: list[Frame], tmp_path: Path) -> None:
    path = made(tmp_path, "x.blf", written("blf", frames))
    with can.BLFReader(path) as reader:
        found = [of_message(message) for message in reader]
        assert reader.object_count == len(frames)
        assert reader.file_size == path.stat().st_size
    for ours, theirs in zip(frames, found, strict=True):
        assert abs(ours.time_ns - theirs.time_ns) <= 1000
        assert theirs._replace(time_ns=0) == seen(ours)._replace(time_ns=0)


@given(frames=RECORDINGS)
@example(frames=ONE_OF_EACH)
@bounded
def test_we_read_python_cans_blf(frames: list[Frame], tmp_path: Path) -> None:
    path = tmp_path / "x.blf"
    with can.BLFWriter(path, max_container_size=700) as writer:
        for frame in frames:
            writer.on_message_received(to_message(frame))
    found = list(logs.read(path))
    for ours, theirs in zip(frames, found, strict=True):
        assert abs(ours.time_ns - theirs.time_ns) <= 1000
        assert theirs._replace(time_ns=0) == seen(ours)._replace(time_ns=0)


@given(frames=RECORDINGS)
@example(frames=ONE_OF_EACH)
@bounded
def test_python_can_reads_our_log(frames: list[Frame], tmp_path: Path) -> None:
    path = made(tmp_path, "x.log", written("log", frames))
    with can.CanutilsLogReader(path) as reader:
        found = [of_message(message) for message in reader]
    for ours, theirs in zip(frames, found, strict=True):
        assert abs(ours.time_ns - theirs.time_ns) <= 1000
        if not ours.can_id & ERROR:  # python-can knows only that it is one
            assert theirs._replace(time_ns=0) == seen(ours)._replace(time_ns=0)


def test_files_of_python_can_that_only_it_can_read(tmp_path: Path) -> None:
    frames = [frame for frame in ONE_OF_EACH if not frame.flags & FDF and not frame.can_id & ERROR]
    for name, writer in (("x.csv", can.CSVWriter), ("x.trc", can.TRCWriter)):
        path = tmp_path / name
        if name == "x.trc":  # its writer has no remote frames
            frames = [frame for frame in frames if not frame.can_id & REMOTE]
        with writer(path) as opened:
            for frame in frames:
                opened.on_message_received(to_message(frame))
        found = list(logs.read(path))
        assert [frame.data for frame in found] == [frame.data for frame in frames]
        assert [frame.can_id & EXTENDED_MASK for frame in found] == [f.can_id & EXTENDED_MASK for f in frames]


def test_asc_keeps_its_start_to_the_millisecond(tmp_path: Path) -> None:
    """python-can 4.6.1's own writer fails this: why ours exists."""
    frame = Frame(1_790_000_000_005_000_000, 1, b"")
    path = made(tmp_path, "x.asc", written("asc", [frame]))
    with can.ASCReader(path, relative_timestamp=False) as reader:
        (message,) = reader
    assert message.timestamp == pytest.approx(1_790_000_000.005, abs=1e-6)


def test_asc_with_stamps_since_the_line_before(tmp_path: Path) -> None:
    text = (
        "date Tue Sep 22 02:13:20.000 2026\nbase hex  timestamps relative\nno internal events logged\n"
        "   0.500000 1  123             Rx   d 1 01\n   0.250000 1  123             Rx   d 1 02\n"
    )
    first, second = logs.read(made(tmp_path, "x.asc", text.encode()))
    assert second.time_ns - first.time_ns == 250_000_000


def test_candump_lines_as_people_have_them(tmp_path: Path) -> None:
    text = (
        "(1436509052.249713) vcan0 044#2A366C2BBA\n\n"
        "(1436509052.449847123) can1 18DAF110#R3 T\n"
        "(0.000001) any 123##3" + "AA" * 12 + " R\n"
        "(1436509053.000000) vcan0 123#11.22.33\n"
        "(1436509053.000000) vcan0 20000088#0000000000000000\n"
    )
    found = list(logs.read(made(tmp_path, "x.log", text.encode())))
    assert found == [
        Frame(1436509052_249713000, 0x44, bytes.fromhex("2A366C2BBA")),
        Frame(1436509052_449847123, 0x18DAF110 | EXTENDED | REMOTE, bytes(3), OWN),
        Frame(1000, 0x123, b"\xaa" * 12, FDF | BRS | ESI),
        Frame(1436509053_000000000, 0x123, b"\x11\x22\x33"),
        Frame(1436509053_000000000, 0x88 | ERROR, bytes(8)),
    ]


def test_bodies_of_frames_events_are_read(tmp_path: Path) -> None:
    from protocols.can.pcap import Gatherer

    bodies: list[bytes] = []
    gatherer = Gatherer(100_000, lambda body, time_ns: bodies.append(body))
    gatherer.extend(ONE_OF_EACH)
    gatherer.flush()
    expected = [frame._replace(flags=frame.flags & ~(OWN | LOCAL)) for frame in ONE_OF_EACH]
    assert list(logs.read(made(tmp_path, "x.pcap", bodies[0]))) == expected


def test_pcapng_of_the_other_byte_order_in_microseconds_with_other_packets(tmp_path: Path) -> None:
    def block(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, 12 + len(body)) + body + struct.pack(">I", 12 + len(body))

    packet = struct.pack(">IBBBB8s", 0x123, 2, 0, 0, 0, b"\x01\x02")
    stamp = 1_790_000_000_000_001
    content = (
        block(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack(">HHI", 1, 0, 0))
        + block(1, struct.pack(">HHI", 227, 0, 0))
        + block(6, struct.pack(">5I", 0, stamp >> 32, stamp & 0xFFFFFFFF, 4, 4) + b"eth0")
        + block(5, bytes(12))
        + block(6, struct.pack(">5I", 1, stamp >> 32, stamp & 0xFFFFFFFF, 16, 16) + packet)
    )
    assert list(logs.read(made(tmp_path, "x.pcapng", content))) == [Frame(stamp * 1000, 0x123, b"\x01\x02")]


# -- damaged and hostile ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "cut"),
    [("blf", 1), ("blf", 5), ("blf", 30), ("log", 30), ("pcapng", 1), ("pcapng", 30), ("csv", 9)],
)
def test_a_file_that_ends_too_early_says_where(format: str, cut: int, tmp_path: Path) -> None:
    path = made(tmp_path, f"x.{format}", written(format, ONE_OF_EACH * 3)[:-cut])
    with pytest.raises(ValueError, match=r"x\.\w+, (line \d+|before byte \d+): ") as raised:
        list(logs.read(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("format", ["blf", "log", "pcapng"])
def test_of_a_part_comes_what_is_whole(format: str, tmp_path: Path) -> None:
    content = written(format, ONE_OF_EACH * 3)
    expected = [seen(KEPT[format](frame)) for frame in ONE_OF_EACH * 3]
    lengths = set()
    for end in range(200, len(content), 13):
        found = list(logs.read(made(tmp_path, f"x.{format}.part", content[:end])))
        if format != "log":  # the data of its last line may be cut
            assert found == expected[: len(found)]
        lengths.add(len(found))
    assert len(lengths) > 1
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0x55
    damaged[len(content) // 2 + 1 :] = bytes(len(damaged[len(content) // 2 + 1 :]))
    with pytest.raises(ValueError, match=r"y\."):
        list(logs.read(made(tmp_path, f"y.{format}", bytes(damaged))))


@pytest.mark.parametrize("suffix", ["blf", "asc", "log", "pcapng", "pcap", "csv", "trc"])
@given(data=st.data())
@bounded
def test_hostile_files_are_a_value_error(suffix: str, data: st.DataObject, tmp_path: Path) -> None:
    good = written(suffix, ONE_OF_EACH) if suffix in WRITERS else b"\xa1\xb2\x3c\x4d\x00\x02\x00\x04"
    content = bytearray(good if data.draw(st.booleans()) else data.draw(st.binary(max_size=300)))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8)):
        if at < len(content):
            content[at] = value
    path = made(tmp_path, f"x.{suffix}", bytes(content))
    try:
        for frame in logs.read(path):
            assert 0 <= frame.time_ns < 2**63
            assert len(frame.data) <= 64
            assert frame.can_id & EXTENDED or frame.can_id & ERROR or frame.identifier <= 0x7FF
    except ValueError as error:
        assert str(path) in str(error)


@given(content=st.binary(max_size=400), seed=st.integers(0, 400))
@bounded
def test_hostile_objects_in_a_good_container(content: bytes, seed: int, tmp_path: Path) -> None:
    """Bytes that are compressed are only reached by what is well-formed around them."""
    good = bytearray(zlib.decompress(blf_objects(written("blf", ONE_OF_EACH))))
    good[seed % len(good) : seed % len(good) + len(content) % 9] = content[: len(content) % 9]
    path = made(tmp_path, "x.blf", blf_with(zlib.compress(bytes(good))))
    try:
        for frame in logs.read(path):
            assert len(frame.data) <= 64
    except ValueError as error:
        assert str(path) in str(error)


def blf_objects(content: bytes) -> bytes:
    return content[144 + 32 :]


def blf_with(packed: bytes, size: int = 0) -> bytes:
    head = struct.pack("<4sHHLL", b"LOBJ", 16, 1, 32 + len(packed), 10) + struct.pack("<H6xL4x", 2, size)
    return written("blf", [])[:144] + head + packed + bytes((32 + len(packed)) % 4)


def test_what_inflates_without_end_is_stopped(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    began = time.monotonic()
    with pytest.raises(ValueError, match="too large"):
        list(logs.read(made(tmp_path, "x.blf", blf_with(bomb))))
    assert time.monotonic() - began < 5


def test_a_line_without_end_is_stopped(tmp_path: Path) -> None:
    path = made(tmp_path, "x.log", b"(1.000000) can0 123#" + b"00" * 100_000)
    with pytest.raises(ValueError, match="line 1: a line is longer than"):
        list(logs.read(path))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("(1.000000) can0 7FF#112233445566778899", "9 bytes"),
        ("(1.000000) can0 800#", "11 bits"),
        ("(1.000000) can0 FFFFFFFF#", "29 bits|error|FD"),
        ("(1.000000) can0 123##0112233445566778899", "9 bytes"),
        ("(99999999999.000000) can0 123#", "1970 and 2262"),
        ("hello", "candump -l"),
    ],
)
def test_wrong_lines_of_a_log(line: str, says: str, tmp_path: Path) -> None:
    path = made(tmp_path, "x.log", f"(1.000000) can0 123#\n{line}\n".encode())
    if line.startswith("(1.000000) can0 FFFFFFFF"):
        assert [frame.can_id for frame in logs.read(path)][1] == ERROR | EXTENDED_MASK
        return
    frames: Iterator[Any] = iter(logs.read(path))
    assert next(frames).can_id == 0x123
    with pytest.raises(ValueError, match=f"line 2: .*({says})"):
        list(frames)


def test_other_suffixes_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in one of \.blf, \.asc"):
        logs.read(made(tmp_path, "x.txt", b""))
    with pytest.raises(FileNotFoundError):
        logs.read(tmp_path / "none.blf")


def test_progress_is_in_bytes_of_the_file(tmp_path: Path) -> None:
    noise = random.Random(1)
    frames = [Frame(START_NS + i, 0x123, noise.randbytes(8)) for i in range(20_000)]
    content = written("log", frames)
    for path in (
        made(tmp_path, "x.log", content),
        made(tmp_path, "x.log.gz", gzip.compress(content)),
    ):
        recording = logs.read(path)
        assert (recording.position, recording.size) == (0, path.stat().st_size)
        positions = [recording.position for _ in recording]
        assert positions == sorted(positions)
        assert 0 < positions[len(positions) // 2] < recording.size
        assert recording.position == recording.size
