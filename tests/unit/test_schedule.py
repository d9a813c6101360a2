"""The schedule keeps its beat whatever the work takes."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.schedule import Schedule


def test_cycles_are_absolute() -> None:
    schedule = Schedule(0.5, 100.0)
    assert schedule.due == 100.0
    assert schedule.begin(100.01) == 0
    assert schedule.due == 100.5
    assert schedule.begin(100.7) == 0
    assert schedule.due == 101.0


def test_a_cycle_that_is_late_within_its_period_is_run() -> None:
    schedule = Schedule(0.5, 100.0)
    schedule.begin(100.0)
    assert schedule.due < 100.6
    assert schedule.begin(100.6) == 0


def test_missed_cycles_are_counted_and_skipped() -> None:
    schedule = Schedule(0.5, 100.0)
    schedule.begin(100.0)
    assert schedule.begin(101.75) == 2
    assert schedule.due == 102.0


@given(st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=50))
def test_every_cycle_is_either_run_or_missed(pauses: list[float]) -> None:
    schedule = Schedule(0.25, 0.0)
    now, missed = 0.0, 0
    for run, pause in enumerate(pauses):
        now = max(now, schedule.due)
        missed += schedule.begin(now)
        assert (run + missed) * 0.25 <= now < (run + missed + 1) * 0.25
        now += pause
