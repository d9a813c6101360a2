"""From frames to samples: what is reported when, how old it is, and when it is stale."""

from pathlib import Path
from typing import Any

import pytest
from can_rig import device, write_database

from protocols.base import Quality, Sample, Value
from protocols.can.frame import REMOTE, Frame
from protocols.can.router import Route, Router

MOTION, PAGES, COMMAND = 16, 32, 48
PAGE_POINTS = {"one": {"signal": "One"}, "two": {"signal": "Two"}}


class Bus:
    """A router, what it reported, and a clock."""

    def __init__(self, folder: Path, points: dict[str, Any], **messages: Any) -> None:
        self.router = Router(device(write_database(folder), points=points, messages=messages, refresh=10.0))
        self.samples: list[Sample] = []
        self.now = 1000.0
        self.router.restart(self.now)

    def brings(self, can_id: int, data: str, after: float = 0.001) -> None:
        """A frame comes so many seconds later; its time is that of the clock."""
        self.now += after
        frame = Frame(round(self.now * 1e9), can_id, bytes.fromhex(data))
        self.router.take([frame], self.now, self.samples.append)

    def passes(self, after: float) -> bool:
        """Time passes without a frame; whether the only message is stale then."""
        self.now += after
        return self.route.expire(self.now, self.samples.append)

    @property
    def route(self) -> Route:
        """The only message."""
        (route,) = self.router.routes.values()
        return route


def motion(speed: int = 0, mode: int = 0) -> str:
    return (speed * 2).to_bytes(2, "little", signed=True).hex() + f"14{mode:02x}00000000"


def test_a_value_of_another_page_is_as_old_as_its_own_frame(tmp_path: Path) -> None:
    bus = Bus(tmp_path, PAGE_POINTS)
    bus.brings(PAGES, "030700")
    first = round(bus.now * 1e9)
    bus.brings(PAGES, "050001", after=1.0)
    assert bus.router.values(["one"]) == Sample(first, {"one": 7})
    assert bus.router.values(["two"]).time_ns == round(bus.now * 1e9)
    assert bus.router.values(["two", "one"]) == Sample(first, {"one": 7, "two": 256})
    bus.brings(PAGES, "030700", after=1.0)
    assert bus.router.values(["one"]).time_ns == round(bus.now * 1e9)


@pytest.mark.parametrize("report", ["every", "change"])
def test_the_same_frame_again_makes_its_values_young_again(tmp_path: Path, report: str) -> None:
    bus = Bus(tmp_path, PAGE_POINTS, Pages={"report": report})
    bus.brings(PAGES, "030700")
    bus.brings(PAGES, "030700")
    assert bus.router.values(["one"]).time_ns == round(bus.now * 1e9)
    assert len(bus.samples) == (2 if report == "every" else 1)


@pytest.mark.parametrize("report", ["every", "change"])
def test_a_page_without_points_is_no_sample(tmp_path: Path, report: str) -> None:
    bus = Bus(tmp_path, {"one": {"signal": "One"}}, Pages={"report": report})
    bus.brings(PAGES, "050001")
    bus.brings(PAGES, "050001")
    assert bus.samples == []
    bus.brings(PAGES, "030100")
    assert [sample.values for sample in bus.samples] == [{"one": 1}]


def test_what_waits_to_be_reported_is_said_before_it_is_stale(tmp_path: Path) -> None:
    bus = Bus(tmp_path, {"speed": {"signal": "Speed"}}, Motion={"report": 60.0, "timeout": 1.0})
    bus.brings(MOTION, motion(1))
    at = round(bus.now * 1e9)
    assert bus.passes(2)
    assert bus.samples[0] == Sample(at, {"speed": 1.0})
    assert bus.samples[1].bad == {"speed": Quality.STALE}
    bus.route.report_newest(bus.samples.append)
    assert len(bus.samples) == 2


def test_nothing_from_before_the_bus_was_lost_is_said_after_it_came_back(tmp_path: Path) -> None:
    bus = Bus(tmp_path, {"speed": {"signal": "Speed"}, **PAGE_POINTS}, Motion={"report": 60.0})
    bus.brings(MOTION, motion(1))
    bus.brings(PAGES, "030700")
    bus.samples.clear()
    bus.router.restart(bus.now)
    for route in bus.router.routes.values():
        route.report_newest(bus.samples.append)
    assert bus.samples == []
    assert bus.router.values(["speed", "one"]).bad == dict.fromkeys(["speed", "one"], Quality.TIMEOUT)
    assert {route.payload for route in bus.router.routes.values()} == {None}


def test_a_label_that_reads_like_a_quality_is_news_after_it(tmp_path: Path) -> None:
    bus = Bus(tmp_path, {"mode": {"signal": "Mode"}}, Motion={"report": "change", "timeout": 60.0})
    point = bus.router.of_point["mode"]
    bus.brings(MOTION, motion(mode=0))
    point.held["mode"] = Quality.OUT_OF_RANGE
    label: dict[str, Value] = {"mode": "out-of-range"}
    point._decode = lambda payload: (label, {})
    bus.brings(MOTION, motion(mode=1))
    assert bus.samples[-1].values == label


def test_changes_are_reported_once_and_everything_each_refresh(tmp_path: Path) -> None:
    points = {"speed": {"signal": "Speed"}, "mode": {"signal": "Mode"}}
    bus = Bus(tmp_path, points, Motion={"report": "change", "timeout": 60.0})
    for speed, mode, after in (
        (1, 0, 0),
        (1, 0, 1),
        (2, 0, 1),
        (2, 1, 1),
        (2, 1, 6.9),
        (2, 1, 0.2),
        (2, 1, 1),
    ):
        bus.brings(MOTION, motion(speed, mode), after)
    assert [sample.values for sample in bus.samples] == [
        {"speed": 1.0, "mode": "off"},
        {"speed": 2.0},
        {"mode": "on"},
        {"speed": 2.0, "mode": "on"},
    ]


def test_a_message_that_comes_again_is_reported_though_nothing_changed(tmp_path: Path) -> None:
    bus = Bus(tmp_path, {"speed": {"signal": "Speed"}}, Motion={"report": "change"})
    bus.brings(MOTION, motion(1))
    assert not bus.passes(0.099)  # three cycles are over: so short a silence may be the host's
    assert bus.passes(0.002)
    assert bus.passes(1)
    assert [dict(sample.bad) for sample in bus.samples] == [{}, {"speed": Quality.STALE}]
    assert bus.router.values(["speed"]).bad == {"speed": Quality.STALE}
    bus.brings(MOTION, motion(1))
    assert bus.samples[-1].values == {"speed": 1.0}
    assert not bus.route.stale


def test_what_we_send_ourselves_is_stale_only_where_the_profile_says_when(tmp_path: Path) -> None:
    points = {"setpoint": {"signal": "Setpoint", "access": "rw"}}
    assert not Bus(tmp_path, points).passes(1e6)
    assert Bus(tmp_path, points, Command={"timeout": 1.0}).passes(1.1)


def test_remote_frames_are_no_values(tmp_path: Path) -> None:
    bus = Bus(tmp_path, {"speed": {"signal": "Speed"}})
    bus.brings(MOTION | REMOTE, motion(1))
    assert bus.samples == []


@pytest.mark.parametrize("report", [0.0, 0.0009])
def test_a_rate_that_would_leave_no_time_for_anything_else_is_refused(tmp_path: Path, report: float) -> None:
    with pytest.raises(ValueError, match="is at least 1ms"):
        Bus(tmp_path, {"speed": {"signal": "Speed"}}, Motion={"report": report})
