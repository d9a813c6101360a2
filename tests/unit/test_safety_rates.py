"""How fast a value may change: at most max_rate within any second."""

from hypothesis import given
from hypothesis import strategies as st

from agent.safety.rates import WINDOW_S, Rates, Span

KEY = ("plc", "speed")
RATE = 100.0


def test_a_first_write_may_go_as_far_as_the_rate_from_what_is_read() -> None:
    rates = Rates()
    rates.saw(KEY, 500.0, 10.0)
    assert rates.allowed(KEY, RATE, 10.0) == (400.0, 600.0)


def test_what_was_left_within_the_last_second_counts_and_what_is_older_does_not() -> None:
    rates = Rates()
    rates.saw(KEY, 0.0, 10.0)
    rates.wrote(KEY, 80.0, 10.4)
    rates.saw(KEY, 80.0, 11.3)
    assert rates.allowed(KEY, RATE, 11.3) == (-20.0, 100.0)  # 0 was in force until 10.4
    rates.saw(KEY, 80.0, 11.4)
    assert rates.allowed(KEY, RATE, 11.4) == (-20.0, 180.0)


def test_a_write_that_took_longer_than_a_second_leaves_its_old_value_at_its_end() -> None:
    rates = Rates()
    rates.saw(KEY, 0.0, 10.0)
    rates.wrote(KEY, 100.0, 12.5)
    rates.saw(KEY, 100.0, 13.0)
    assert rates.allowed(KEY, RATE, 13.0) == (0.0, 100.0)


def test_it_is_said_within_the_limits_of_the_point() -> None:
    assert str(Span(-50.0, 1000.5).within(0.0, None)) == "from 0 to 1000.5"
    assert str(Span(900.0, 1100.0).within(None, 1000.0)) == "from 900 to 1000"
    assert str(Span(2.0, 1.0).within(None, None)) == "nothing else for a second"


def test_nothing_is_allowed_where_the_value_moved_too_fast_by_itself() -> None:
    rates = Rates()
    rates.wrote(KEY, 3000.0, 10.0)
    rates.saw(KEY, 0.0, 10.1)
    low, high = rates.allowed(KEY, RATE, 10.1)
    assert low > high


def test_rounding_is_no_violation() -> None:
    rates = Rates()
    rates.saw(KEY, 0.1 + 0.2, 0.0)
    assert rates.allowed(KEY, 0.1, 0.0).holds(0.4)
    assert not rates.allowed(KEY, 0.1, 0.0).holds(0.4001)


def test_points_do_not_share_their_past() -> None:
    rates = Rates()
    rates.saw(KEY, 0.0, 0.0)
    rates.saw(("plc", "other"), 700.0, 0.0)
    assert rates.allowed(KEY, RATE, 0.0).high == RATE


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 0.7),  # until the next write is asked for
            st.floats(0.0, 1.5),  # how long it takes
            st.floats(-500.0, 500.0),  # what is wanted
        ),
        max_size=40,
    )
)
def test_what_is_allowed_never_makes_more_than_the_rate_in_any_second(
    asked: list[tuple[float, float, float]],
) -> None:
    rates, now, value = Rates(), 0.0, 0.0
    history = [(0.0, value)]  # when each value came into force
    for wait, took, wanted in asked:
        now += wait
        rates.saw(KEY, value, now)
        span = rates.allowed(KEY, RATE, now)
        if span.holds(wanted):
            now += took
            value = wanted
            rates.wrote(KEY, value, now)
            history.append((now, value))
    ends = [*(since for since, _ in history[1:]), float("inf")]
    for (since, later), index in zip(history, range(len(history)), strict=True):
        for earlier, end in zip(history[:index], ends[:index], strict=True):
            if since - end < WINDOW_S:
                assert abs(later - earlier[1]) <= RATE + 1e-6
