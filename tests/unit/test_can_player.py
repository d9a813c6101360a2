"""Playing recordings: everything, in order, in time; tests in the loop's own time, and one in real time."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.can.frame import ERROR, Frame
from protocols.can.recordings import logs
from protocols.can.recordings.candump import CandumpWriter
from protocols.can.recordings.player import Played, play

MS = 1_000_000


class Bus:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.times: list[float] = []

    async def send(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.times.append(time.monotonic())


def at(*milliseconds: float) -> list[Frame]:
    return [Frame(10**18 + round(ms * MS), number, b"") for number, ms in enumerate(milliseconds)]


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
async def test_gaps_are_those_of_the_stamps(speed: float) -> None:
    bus, frames = Bus(), at(0, 5, 5.2, 12, 60)
    played = await play(frames, bus.send, speed=speed)
    assert bus.frames == frames
    gaps = [when - bus.times[0] for when in bus.times]
    for gap, frame in zip(gaps, frames, strict=True):
        due = (frame.time_ns - frames[0].time_ns) * 1e-9 / speed
        assert due - 0.0005 <= gap <= due + 0.25
    assert (played.sent, played.errors, played.loops) == (5, 0, 1)
    assert played.position == pytest.approx(0.060)
    assert 0 <= played.lateness(0.5) <= played.lateness() < 0.25


async def test_a_late_frame_makes_no_other_late() -> None:
    frames, times = at(*range(0, 200, 10)), []

    async def send(frame: Frame) -> None:
        times.append(time.monotonic())
        if frame.can_id == 0:
            await asyncio.sleep(0.1)

    played = await play(frames, send)
    assert times[-1] - times[0] < 0.19 + 0.08
    assert played.lateness(0.5) >= 0  # those behind the slow one caught up
    assert max(played._late) > 0.08


async def test_loops() -> None:
    bus = Bus()
    played = await play(at(0, 1, 2), bus.send, loop=3)
    assert [frame.can_id for frame in bus.frames] == [0, 1, 2] * 3
    assert (played.loops, played.sent) == (3, 9)
    for once in (False, 1, 0):
        assert (await play(at(0, 1), Bus().send, loop=once)).sent == 2


async def test_each_lap_takes_its_time() -> None:
    bus = Bus()
    await play(at(0, 40), bus.send, loop=3)
    assert bus.times[-1] - bus.times[0] >= 0.119


async def test_without_end_until_cancelled() -> None:
    bus = Bus()
    task = asyncio.create_task(play(at(0), bus.send, loop=True))  # no time in it: it must not hold the loop
    while len(bus.frames) < 100:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_to_play_ends_also_in_a_loop() -> None:
    assert (await play([], Bus().send, loop=True)).sent == 0


async def test_error_frames_are_never_sent() -> None:
    bus = Bus()
    frames = [Frame(0, 1, b""), Frame(1, ERROR | 4, bytes(8)), Frame(2, 2, b"")]
    played = await play(frames, bus.send)
    assert [frame.can_id for frame in bus.frames] == [1, 2]
    assert (played.sent, played.errors) == (2, 1)


async def test_a_clock_that_was_set_back_is_no_time() -> None:
    bus = Bus()
    began = time.monotonic()
    await play(at(100_000, 100_001, 0, 1), bus.send)
    assert len(bus.frames) == 4
    assert time.monotonic() - began < 5


async def test_progress_is_told_also_in_long_gaps() -> None:
    told: list[tuple[int, float]] = []

    def on_progress(played: Played) -> None:
        told.append((played.sent, played.position))

    await play(at(0, 150, 300), Bus().send, on_progress=on_progress)
    assert told[-1][0] == 3
    assert told[-1][1] == pytest.approx(0.3)
    assert len(told) >= 3


async def test_what_sending_raises_ends_it() -> None:
    async def send(frame: Frame) -> None:
        raise OSError("no bus")

    with pytest.raises(OSError, match="no bus"):
        await play(at(0, 1), send)


async def test_a_damaged_file_is_played_up_to_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("wb") as file:
        CandumpWriter(file, "can0").write(at(0, 1, 2))
        file.write(b"nonsense\n")
    bus = Bus()
    with pytest.raises(ValueError, match="line 4"):
        await play(logs.read(path), bus.send)
    assert len(bus.frames) == 3


async def test_a_recording_is_closed_when_it_is_cancelled(tmp_path: Path) -> None:
    closed = []

    def frames() -> Iterator[Frame]:
        try:
            for number in range(100_000):
                yield Frame(10**18 + number * 100 * MS, number, b"")
        finally:
            closed.append(True)

    bus = Bus()
    task = asyncio.create_task(play(frames(), bus.send))
    while not bus.frames:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


@given(gaps=st.lists(st.integers(-5, 300), max_size=5000))
@settings(max_examples=15, deadline=None)
def test_everything_comes_in_order(gaps: list[int]) -> None:
    stamp, frames = 10**18, []
    for number, gap in enumerate(gaps):
        stamp += gap
        frames.append(Frame(stamp, number % 0x800, number.to_bytes(2)))
    bus = Bus()
    asyncio.run(play(frames, bus.send))
    assert bus.frames == frames
