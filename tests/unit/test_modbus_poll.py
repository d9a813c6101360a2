"""The schedule keeps its beat whatever the work takes."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.modbus.poll import Schedule


def test_cycles_are_absolute() -> None:
    schedule = Schedule(0.5, 100.0)
    assert schedule.next(100.0) == (100.0, 0)
    assert schedule.next(100.1) == (100.5, 0)
    assert schedule.next(100.95) == (101.0, 0)


def test_missed_cycles_are_counted_and_skipped() -> None:
    schedule = Schedule(0.5, 100.0)
    schedule.next(100.0)
    assert schedule.next(101.75) == (102.0, 3)
    assert schedule.next(102.1) == (102.5, 0)


@given(st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=50))
def test_every_cycle_is_either_run_or_missed(pauses: list[float]) -> None:
    schedule = Schedule(0.25, 0.0)
    now, missed_in_all = 0.0, 0
    for run, pause in enumerate(pauses):
        due, missed = schedule.next(now)
        missed_in_all += missed
        assert due == (run + missed_in_all) * 0.25
        assert due > now or run == 0
        now = max(now, due) + pause
