"""Playing recordings: everything, in order, in time; whose time is asked about stands still but for waits."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.can.frame import ERROR, Frame
from protocols.can.recordings import logs, player
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


class Time:
    """The player's clock: it goes on by what is waited, and is never late by itself."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.wait(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    one = Time()
    monkeypatch.setattr(player, "time", SimpleNamespace(monotonic=lambda: one.now, sleep=one.wait))
    monkeypatch.setattr(player, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": one.sleep}))
    return one


def at(*milliseconds: float) -> list[Frame]:
    return [Frame(10**18 + round(ms * MS), number, b"") for number, ms in enumerate(milliseconds)]


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
async def test_gaps_are_those_of_the_stamps(clock: Time, speed: float) -> None:
    frames, times = at(0, 5, 5.2, 12, 60), []

    async def send(frame: Frame) -> None:
        times.append(clock.now)

    played = await play(frames, send, speed=speed)
    assert times == pytest.approx([1000 + ms / 1000 / speed for ms in (0, 5, 5.2, 12, 60)])
    assert (played.sent, played.errors, played.loops) == (5, 0, 1)
    assert played.position == pytest.approx(0.060)
    assert played.lateness() == pytest.approx(0)


async def test_a_late_frame_makes_no_other_late(clock: Time) -> None:
    frames, times = at(*range(0, 200, 10)), []

    async def send(frame: Frame) -> None:
        times.append(clock.now)
        if frame.can_id == 0:
            clock.wait(0.1)

    played = await play(frames, send)
    assert times == pytest.approx([1000, *[1000.1] * 10, *(1000 + ms / 1000 for ms in range(110, 200, 10))])
    assert played.lateness() == pytest.approx(0.09)
    assert played.lateness(0.5) == pytest.approx(0)


async def test_loops() -> None:
    bus = Bus()
    played = await play(at(0, 1, 2), bus.send, loop=3)
    assert [frame.can_id for frame in bus.frames] == [0, 1, 2] * 3
    assert (played.loops, played.sent) == (3, 9)
    for once in (False, 1, 0):
        assert (await play(at(0, 1), Bus().send, loop=once)).sent == 2


async def test_each_lap_takes_its_time() -> None:
    bus, began = Bus(), time.monotonic()
    await play(at(0, 40), bus.send, loop=3)
    for number, due in enumerate((0, 0.04, 0.04, 0.08, 0.08, 0.12)):
        assert bus.times[number] - began >= due


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


async def test_a_clock_that_was_set_back_is_no_time(clock: Time) -> None:
    bus = Bus()
    await play(at(100_000, 100_001, 0, 1), bus.send)
    assert len(bus.frames) == 4
    assert clock.now == pytest.approx(1000.002)


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
