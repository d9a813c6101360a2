"""Recordings as those read them who did not write them: tshark, and can-utils' converters."""

import io
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import tshark
from canutils import content, parse_line

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, OWN, REMOTE, Frame
from protocols.can.recordings import logs
from protocols.can.recordings.writers import WRITERS

START_NS = 1_790_000_000_000_000_000
CLASSICAL = [
    Frame(START_NS + 1_000, 0x123, b"\xde\xad\xbe\xef"),
    Frame(START_NS + 2_001_000, 0x18DAF110 | EXTENDED, bytes(range(1, 9)), OWN),
    Frame(START_NS + 3_000_000, 0x123 | EXTENDED, b"\xff"),
    Frame(START_NS + 4_000_000, 0x321 | REMOTE, bytes(5)),
    Frame(START_NS + 5_000_000, 0x7FF, b""),
]
FD = [
    Frame(START_NS + 6_000_000, 0x100, b"\xa5" * 64, FDF | BRS),
    Frame(START_NS + 7_000_000, 0x1ABCDEF0 | EXTENDED, bytes(12), FDF | ESI | OWN),
]
ERRORS = [Frame(START_NS + 8_000_999, 0x40 | ERROR, bytes(8))]

Need = Callable[[str, str | None, str], None]


def written(format: str, frames: Sequence[Frame]) -> bytes:
    file = io.BytesIO()
    writer = WRITERS[format](cast(BinaryIO, file), "can0")
    writer.write(frames)
    writer.finish()
    return file.getvalue()


def missing(command: str) -> str | None:
    return None if shutil.which(command) else f"no command {command}"


@pytest.mark.peer("tshark")
def test_tshark_opens_pcapng(need: Need) -> None:
    need("tshark", tshark.why_missing(), "make peers")
    frames = [*CLASSICAL, *FD, *ERRORS]
    field = "frame.packet_flags_direction"
    seen = tshark.opened(written("pcapng", frames), field, "frame.interface_name")
    for frame, (found, more) in zip(frames, seen, strict=True):
        expected = frame._replace(flags=frame.flags & ~OWN)
        if frame.can_id & (REMOTE | ERROR):
            expected, found = expected._replace(data=b""), found._replace(data=b"")
        assert found == expected
        assert int(more[field], 0) == (2 if frame.flags & OWN else 1)
        assert more["frame.interface_name"] == "can0"


@pytest.mark.peer("can-utils")
def test_asc2log_reads_our_asc(need: Need, tmp_path: Path) -> None:
    need("can-utils", missing("asc2log"), "make peers")
    frames = [*CLASSICAL, *FD]
    (tmp_path / "x.asc").write_bytes(written("asc", frames))
    done = subprocess.run(
        ["asc2log", "-I", str(tmp_path / "x.asc")], capture_output=True, text=True, timeout=60, check=True
    )
    found = [parse_line(line).frame for line in done.stdout.splitlines()]
    assert content(found) == content([frame._replace(flags=frame.flags & ~OWN) for frame in frames])
    offsets = [frame.time_ns - found[0].time_ns for frame in found]
    assert offsets == [frame.time_ns - frames[0].time_ns for frame in frames]


@pytest.mark.peer("can-utils")
def test_log2asc_reads_our_log_and_we_read_its_asc(need: Need, tmp_path: Path) -> None:
    need("can-utils", missing("log2asc"), "make peers")
    frames = [*CLASSICAL, *FD]
    (tmp_path / "x.log").write_bytes(written("log", frames))
    with (tmp_path / "x.asc").open("wb") as file:
        command = ["log2asc", "-I", str(tmp_path / "x.log"), "can0"]
        subprocess.run(command, stdout=file, timeout=60, check=True)
    assert re.search(r"\b18DAF110x\b", (tmp_path / "x.asc").read_text())
    found = list(logs.read(tmp_path / "x.asc"))
    assert [(f.can_id, f.data, f.flags & FDF) for f in found] == [
        (frame.can_id, frame.data, frame.flags & FDF) for frame in frames
    ]
    offsets = [frame.time_ns - found[0].time_ns for frame in found]
    for offset, frame in zip(offsets, frames, strict=True):
        assert abs(offset - (frame.time_ns - frames[0].time_ns)) <= 100_000  # it has four decimals
