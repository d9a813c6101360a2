"""Recordings of a bus on a real disk: rotation, order, overflow, and disks that refuse."""

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import until

from protocols.base import DriverError
from protocols.can.config import Record
from protocols.can.frame import ERROR, EXTENDED, FDF, Frame
from protocols.can.recordings import logs, recorder
from protocols.can.recordings.recorder import Recorder
from protocols.can.recordings.writers import WRITERS, Writer

START_NS = 1_790_000_000_000_000_000
NAME = re.compile(r"rig-\d{8}T\d{6}\.\d{3}Z-\d{3}\.(blf|asc|log|pcapng)")


def frames(count: int, first: int = 0) -> list[Frame]:
    return [
        Frame(START_NS + number * 1000, 0x100, number.to_bytes(8)) for number in range(first, first + count)
    ]


def numbers(paths: list[Path]) -> list[int]:
    return [int.from_bytes(frame.data) for path in paths for frame in logs.read(path)]


@pytest.mark.parametrize("format", ["blf", "asc", "log", "pcapng"])
async def test_a_recording_has_all_frames_in_order(format: str, tmp_path: Path) -> None:
    one = Recorder(Record(format=format), tmp_path, "rig")
    path = await one.start()
    assert NAME.fullmatch(path.name)
    assert path.parent == tmp_path / "recordings"
    assert [file.name for file in path.parent.iterdir()] == [f"{path.name}.part"]
    for first in range(0, 3000, 30):
        one.frames(frames(30, first))
    assert await one.stop() == [path]
    assert await one.stop() == [path]  # twice
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert numbers([path]) == list(range(3000))
    one.frames(frames(1))  # over: not taken, and no error
    assert one.dropped == 0


@pytest.mark.parametrize("format", ["blf", "log"])
async def test_files_are_rotated_by_size_and_each_is_complete(format: str, tmp_path: Path) -> None:
    settings = Record(format=format, max_size="20KiB", files=1000)
    one = Recorder(settings, tmp_path, "rig")
    await one.start()
    one.frames(frames(20_000))
    paths = await one.stop()
    assert len(paths) > 2
    assert numbers(paths) == list(range(20_000))
    assert [path.name.rpartition("-")[2][:3] for path in paths] == [
        f"{i:03d}" for i in range(1, len(paths) + 1)
    ]
    assert all(path.stat().st_size < 60 * 1024 for path in paths)


async def test_files_are_rotated_by_time_also_when_the_bus_is_silent(tmp_path: Path) -> None:
    one = Recorder(Record(format="log", max_time="100ms"), tmp_path, "rig")
    first = await one.start()
    one.frames(frames(1))
    await until(first.exists)  # complete without another frame
    one.frames(frames(1, 1))
    paths = await one.stop()
    assert numbers([path for path in paths if path.stat().st_size]) == [0, 1]


async def test_the_oldest_files_go_and_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    ours = [f"rig-2020010{day}T000000.000Z-001.asc" for day in range(1, 5)]
    crashed = "rig-20200105T000000.000Z-001.blf.part"
    others = [
        "rig-2-20200101T000000.000Z-001.asc",
        "rig-20200101T000000.000Z-001.asc.gz",
        "rig.asc",
        "notes.txt",
    ]
    for name in (*ours, crashed, *others):
        (folder / name).touch()
    one = Recorder(Record(format="log", max_size="4KiB", files=3), tmp_path, "rig")
    first = await one.start()
    left = {path.name for path in folder.iterdir()}
    assert left == {ours[-1], crashed, f"{first.name}.part", *others}
    one.frames(frames(3000))
    paths = await one.stop()
    assert len(paths) == 3
    assert {path.name for path in folder.iterdir()} == {*others, *(path.name for path in paths)}
    found = numbers(paths)
    assert found == list(range(3000 - len(found), 3000))


async def test_a_clock_that_was_set_back_begins_a_new_file(tmp_path: Path) -> None:
    one = Recorder(Record(), tmp_path, "rig")
    await one.start()
    one.frames(frames(10, first=1_000_000))
    one.frames(frames(10))
    paths = await one.stop()
    assert len(paths) == 2
    assert [frame.time_ns for path in paths for frame in logs.read(path)] == [
        frame.time_ns for frame in (*frames(10, first=1_000_000), *frames(10))
    ]


class HeldUp:
    """A disk that is stuck until it is let go."""

    def __init__(self, writer: Writer, gate: threading.Event) -> None:
        self._writer, self._gate = writer, gate

    def write(self, batch: list[Frame]) -> None:
        self._gate.wait(10)
        self._writer.write(batch)

    def __getattr__(self, name: str) -> object:
        return getattr(self._writer, name)


async def test_a_disk_that_is_too_slow_costs_frames_and_never_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    make = WRITERS["log"]
    held = {"log": lambda file, channel: HeldUp(make(file, channel), gate)}
    monkeypatch.setattr(recorder, "WRITERS", held)
    lost: list[tuple[int, str]] = []
    one = Recorder(
        Record(format="log"), tmp_path, "rig", lost=lambda count, reason: lost.append((count, reason))
    )
    await one.start()
    given = 0
    while not lost:
        one.frames(frames(1000, given))
        given += 1000
        assert given < 10 * recorder.WAITING_MOST
    assert lost == [(1000, "recording")]
    assert one.dropped == 1000
    kept = given - 1000
    gate.set()
    await until(lambda: one._taken == kept)
    one.frames(frames(5, given))  # there is room again
    paths = await one.stop()
    assert numbers(paths) == [*range(kept), *range(given, given + 5)]


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full, for this process: writing fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format", ["blf", "asc", "log", "pcapng"])
async def test_a_full_disk_ends_the_recording_and_says_so(format: str, tmp_path: Path) -> None:
    reasons: list[str] = []
    one = Recorder(Record(format=format), tmp_path, "rig", failed=reasons.append)
    path = await one.start()
    with files_no_larger_than(32 * 1024):
        first = 0
        while not reasons:
            one.frames(frames(500, first))
            first += 500
            await asyncio.sleep(0.001)
    (reason,) = reasons
    assert "File too large" in reason
    assert f"what could be written is in {path.name}.part" in reason
    assert await one.stop() == []
    assert [file.name for file in path.parent.iterdir()] == [f"{path.name}.part"]
    one.frames(frames(10))  # harmless
    assert len(list(logs.read(path.with_name(f"{path.name}.part")))) > 0


async def test_a_disk_that_is_full_when_the_recording_is_completed(tmp_path: Path) -> None:
    reasons: list[str] = []
    one = Recorder(Record(format="blf"), tmp_path, "rig", failed=reasons.append)
    path = await one.start()
    with files_no_larger_than(144):
        one.frames(frames(10))
        assert await one.stop() == []
    assert [path.name in reason for reason in reasons] == [True]


async def test_a_folder_that_cannot_be_made_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("a file")
    one = Recorder(Record(), tmp_path, "rig")
    with pytest.raises(DriverError, match=r"cannot record into .*recordings") as raised:
        await one.start()
    assert raised.value.code == "device-error"
    assert await one.stop() == []
    one.frames(frames(1))


async def test_a_frame_that_no_format_can_hold_ends_the_recording(tmp_path: Path) -> None:
    reasons: list[str] = []
    one = Recorder(Record(format="pcapng"), tmp_path, "rig", failed=reasons.append)
    await one.start()
    one.frames([Frame(-1, 1, b"")])
    await until(lambda: reasons)
    assert "error" in reasons[0]
    assert await one.stop() == []


@pytest.mark.parametrize("format", ["blf", "asc", "log", "pcapng"])
def test_what_a_killed_agent_leaves_can_be_read(format: str, tmp_path: Path) -> None:
    program = f"""
        import asyncio, sys
        from pathlib import Path
        from protocols.can.recordings import logs
        from protocols.can.config import Record
        from protocols.can.frame import Frame
        from protocols.can.recordings.recorder import Recorder
        async def main():
            one = Recorder(Record(format={format!r}), Path({str(tmp_path)!r}), "rig")
            path = await one.start()
            one.frames([Frame({START_NS} + n * 1000, 0x100, n.to_bytes(8)) for n in range(5000)])
            part = path.with_name(path.name + ".part")
            one.frames([Frame({START_NS} + n * 1000, 0x100, n.to_bytes(8)) for n in range(5000, 5010)])
            while sum(1 for _ in logs.read(part)) < 5010:  # what is flushed each second
                await asyncio.sleep(0.1)
            print(part, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        part = Path(process.stdout.readline().strip())
        os.kill(process.pid, signal.SIGKILL)
    assert part.suffix == ".part"
    found = list(logs.read(part))
    assert [int.from_bytes(frame.data) for frame in found] == list(range(5010))
    assert found[0].time_ns == START_NS


async def test_frames_of_every_kind(tmp_path: Path) -> None:
    given = [
        Frame(START_NS, 0x1FFFFFFF | EXTENDED, bytes(64), FDF),
        Frame(START_NS + 1000, 0x40 | ERROR, bytes(8)),
    ]
    one = Recorder(Record(), tmp_path, "rig")
    await one.start()
    one.frames(given)
    (path,) = await one.stop()
    assert list(logs.read(path)) == given
