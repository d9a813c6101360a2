"""The raw view: which frames pass, at what rate, and what the pcap bodies hold."""

import asyncio
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import Batch
from protocols.can.config import Frames
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FD_LENGTHS, FDF, OWN, REMOTE, Frame
from protocols.can.pcap import Gatherer
from protocols.can.view import FramesView

NOW = 1_763_806_246_123_456_789


def unpack(body: bytes) -> list[Frame]:
    """The frames of a body; strict, and written from the formats' documents rather than from the code."""
    magic, major, minor, _, _, _, link = struct.unpack_from(">IHHiIII", body)
    assert (magic, major, minor, link) == (0xA1B23C4D, 2, 4, 227)
    at, frames = 24, []
    while at < len(body):
        seconds, nanoseconds, captured, length = struct.unpack_from(">IIII", body, at)
        assert captured == length in (16, 72)
        assert nanoseconds < 10**9
        can_id, size, flags, reserved, dlc = struct.unpack_from(">IBBBB", body, at + 16)
        assert (reserved, dlc) == (0, 0)
        assert (length == 72) is bool(flags & 0x04)
        payload = body[at + 24 : at + 16 + length]
        assert not any(payload[size:])
        frames.append(Frame(seconds * 10**9 + nanoseconds, can_id, payload[:size], flags))
        at += 16 + length
    assert at == len(body)
    return frames


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    extended = draw(st.booleans())
    can_id = draw(st.integers(0, 0x1FFFFFFF if extended else 0x7FF)) | (EXTENDED if extended else 0)
    time_ns = draw(st.integers(0, 2**32 * 10**9 - 1))
    if draw(st.booleans()):
        data = draw(st.sampled_from(FD_LENGTHS).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
        return Frame(time_ns, can_id, data, FDF | draw(st.sampled_from((0, BRS, ESI, BRS | ESI))))
    if draw(st.booleans()):
        return Frame(time_ns, can_id | REMOTE, bytes(draw(st.integers(0, 8))))
    return Frame(time_ns, can_id, draw(st.binary(max_size=8)))


@given(st.lists(frames(), max_size=50), st.integers(1024, 4096))
def test_every_frame_is_in_a_body_once_and_in_order(given: list[Frame], most: int) -> None:
    bodies: list[tuple[bytes, int]] = []
    gatherer = Gatherer(most, lambda body, time_ns: bodies.append((body, time_ns)))
    gatherer.extend(given)
    gatherer.flush()
    assert [frame for body, _ in bodies for frame in unpack(body)] == given
    for body, time_ns in bodies:
        assert len(body) <= most
        assert unpack(body)[0].time_ns == time_ns


def test_nothing_makes_no_body() -> None:
    bodies: list[bytes] = []
    gatherer = Gatherer(1024, lambda body, _: bodies.append(body))
    gatherer.extend([])
    gatherer.flush()
    assert bodies == []


class Seen:
    """What a view emits and loses."""

    def __init__(self, window: float = 0.0, **config: object) -> None:
        self.frames: list[Frame] = []
        self.bodies = 0
        self.emitted = asyncio.Event()
        self.lost: list[tuple[int, str]] = []
        settings = Frames.model_validate(config)
        self.view = FramesView(settings, Batch(window=window), self._emit, self._lost)

    def _emit(self, body: bytes, time_ns: int) -> None:
        self.frames += unpack(body)
        self.bodies += 1
        self.emitted.set()

    def _lost(self, count: int, reason: str) -> None:
        self.lost.append((count, reason))


def test_only_wanted_ids_pass_and_11_bits_are_not_29() -> None:
    seen = Seen(ids=["0x100..0x1FF", "0x18DAF110"])
    ids = (0xFF, 0x100, 0x1FF, 0x200, 0x150 | EXTENDED, 0x18DAF110 | EXTENDED, 0x150 | REMOTE)
    seen.view.take([Frame(NOW, can_id, b"") for can_id in ids])
    assert [frame.can_id for frame in seen.frames] == [ids[1], ids[2], ids[5], ids[6]]


@pytest.mark.parametrize(("config", "passed"), [({}, 3), ({"errors": False}, 2), ({"own": False}, 2)])
def test_error_frames_and_our_own_are_left_out_where_asked(config: dict[str, bool], passed: int) -> None:
    seen = Seen(**config)
    seen.view.take([Frame(NOW, 1, b""), Frame(NOW, 2, b"", OWN), Frame(NOW, ERROR | 4, bytes(8))])
    assert len(seen.frames) == passed


def test_error_frames_pass_an_id_filter() -> None:
    seen = Seen(ids=["0x100"])
    seen.view.take([Frame(NOW, ERROR | 0x40, bytes(8))])
    assert len(seen.frames) == 1


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=300), st.integers(10, 2000))
def test_no_second_has_more_than_the_rate_and_what_is_dropped_is_counted(gaps: list[int], rate: int) -> None:
    seen = Seen(max_rate=rate)
    times = [NOW + sum(gaps[: i + 1]) for i in range(len(gaps))]
    for time_ns in times:
        seen.view.take([Frame(time_ns, 1, b"")])
    assert len(seen.frames) + sum(count for count, _ in seen.lost) == len(gaps)
    assert {reason for _, reason in seen.lost} <= {"rate-limit"}
    passed = [frame.time_ns for frame in seen.frames]
    for i, first in enumerate(passed):
        within = sum(first <= time_ns < first + 10**9 for time_ns in passed[i:])
        assert within <= rate * 1.1 + 2


def test_a_slow_bus_loses_nothing_to_its_rate() -> None:
    seen = Seen(max_rate=100)
    for i in range(500):
        seen.view.take([Frame(NOW + i * 10_000_000, 1, b"")])
    assert len(seen.frames) == 500
    assert seen.lost == []


def test_a_clock_that_was_set_back_holds_no_frames_back() -> None:
    seen = Seen(max_rate=100)
    for start in (NOW, NOW - 3600 * 10**9):
        for i in range(100):
            seen.view.take([Frame(start + i * 10_000_000, 1, b"")])
    assert len(seen.frames) == 200
    assert seen.lost == []


async def test_a_window_gathers_and_then_leaves_by_itself() -> None:
    seen = Seen(window=0.01)
    push: Callable[[int], None] = lambda can_id: seen.view.take([Frame(NOW, can_id, b"")])  # noqa: E731
    push(1)
    push(2)
    assert seen.bodies == 0
    async with asyncio.timeout(5):
        await seen.emitted.wait()
    assert [frame.can_id for frame in seen.frames] == [1, 2]
    assert seen.bodies == 1
    push(3)
    seen.view.flush()
    assert seen.bodies == 2
