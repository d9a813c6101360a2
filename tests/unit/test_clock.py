"""The timeline: what it makes of steps of the wall clock, restarts and reboots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import clock
from agent.clock import Moment, Timeline

SECOND_NS = 1_000_000_000


class Clocks:
    """All clocks of a machine, moved by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall_ns = 1_800_000_000 * SECOND_NS
        self.up = 1000.0
        self.boot = "first"
        patch.setattr(clock, "now_ns", lambda: self.wall_ns)
        patch.setattr(clock, "steady", lambda: self.up)
        patch.setattr(clock, "boot_id", lambda: self.boot)

    def pass_time(self, seconds: float) -> None:
        self.up += seconds
        self.wall_ns += round(seconds * SECOND_NS)

    def step(self, seconds: float) -> None:
        self.wall_ns += round(seconds * SECOND_NS)

    def reboot(self, away: float) -> None:
        self.wall_ns += round(away * SECOND_NS)
        self.up, self.boot = 5.0, self.boot + "'"


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_steps_of_the_wall_clock_move_nothing(clocks: Clocks) -> None:
    timeline = Timeline()
    for step in (3600, -86400, 10**9):
        clocks.step(step)
        clocks.pass_time(1)
    assert timeline.now() == pytest.approx(3)


def test_a_restart_counts_the_time_between_whatever_the_wall_clock_did(clocks: Clocks) -> None:
    timeline = Timeline()
    clocks.pass_time(10)
    left = timeline.moment()
    clocks.pass_time(30)
    clocks.step(-7200)
    assert Timeline(left).now() == pytest.approx(40)


def test_over_a_reboot_the_wall_clock_counts_and_time_never_goes_back(clocks: Clocks) -> None:
    timeline = Timeline()
    clocks.pass_time(10)
    left = timeline.moment()
    clocks.reboot(away=120)
    assert Timeline(left).now() == pytest.approx(130)
    clocks.step(-86400)
    assert Timeline(left).now() == pytest.approx(10)


def test_an_instant_is_said_in_the_wall_clock_of_now(clocks: Clocks) -> None:
    timeline = Timeline()
    clocks.step(500)
    assert timeline.wall_ns(timeline.now() + 60) == pytest.approx(clocks.wall_ns + 60 * SECOND_NS, abs=1000)


Act = st.tuples(st.sampled_from(["pass", "step", "restart", "reboot"]), st.integers(-(10**6), 10**6))


@given(acts=st.lists(Act, max_size=30))
def test_it_never_goes_back(acts: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clocks = Clocks(patch)
        timeline, before = Timeline(), 0.0
        for act, seconds in acts:
            left: Moment = timeline.moment()
            match act:
                case "pass":
                    clocks.pass_time(abs(seconds))
                case "step":
                    clocks.step(seconds)
                case "restart":
                    timeline = Timeline(left)
                case _:
                    clocks.reboot(seconds)
                    timeline = Timeline(left)
            assert timeline.now() >= before - 1e-6
            before = timeline.now()


def test_the_real_clocks_agree() -> None:
    timeline = Timeline()
    first = timeline.moment()
    second = Timeline(first).moment()
    assert 0 <= second.at - first.at < 10
    assert second.boot == first.boot
    assert abs(timeline.wall_ns(second.at) - second.wall_ns) < SECOND_NS
