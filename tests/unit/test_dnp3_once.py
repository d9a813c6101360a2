"""Events that come again because their confirmation was lost are handed on once."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocols.dnp3.once import Event, Once


def timed(*times: int, index: int = 0) -> list[Event]:
    return [(2, index, bool(time % 2), 1, time) for time in times]


def untimed(*values: bool) -> list[Event]:
    return [(2, 0, value, 1, None) for value in values]


def new(once: Once, events: list[Event]) -> list[Event]:
    return [event for event, fresh in zip(events, once.fresh(events), strict=True) if fresh]


def test_events_with_times_are_known_again_also_without_a_lost_connection() -> None:
    once = Once()
    assert new(once, timed(1, 2, 3)) == timed(1, 2, 3)
    assert new(once, timed(1, 2, 3)) == []
    assert new(once, timed(1, 2, 3, 4)) == timed(4)


def test_new_ones_may_stand_between_those_sent_again() -> None:
    once = Once()
    first = timed(1, 2) + timed(1, index=5)
    new(once, first)
    assert new(once, timed(1, 2, 9) + timed(1, 9, index=5)) == timed(9) + timed(9, index=5)


def test_what_was_sent_again_may_come_in_smaller_parts() -> None:
    once = Once()
    new(once, timed(1, 2, 3, 4))
    once.connection_lost()
    assert new(once, timed(1, 2)) == []
    once.connection_lost()
    assert new(once, timed(1, 2)) == []
    assert new(once, timed(3, 4, 5)) == timed(5)


def test_what_was_confirmed_long_ago_is_forgotten() -> None:
    once = Once()
    new(once, timed(1))
    new(once, timed(2))
    assert new(once, timed(1)) == timed(1)


def test_another_value_flag_or_point_is_another_event() -> None:
    once = Once()
    new(once, [(2, 0, True, 1, 5)])
    others: list[Event] = [(2, 0, False, 1, 5), (2, 0, True, 3, 5), (2, 1, True, 1, 5), (4, 0, True, 1, 5)]
    for other in others:
        new(once, [(2, 0, True, 1, 5)])
        assert new(once, [other]) == [other]


def test_events_of_a_coarse_clock_are_not_lost() -> None:
    """Two pulses within the second that the outstation's stamps count in."""
    pulse: list[Event] = [(2, 0, True, 1, 1000), (2, 0, False, 1, 1000)]
    once = Once()
    assert new(once, pulse) == pulse
    assert new(once, pulse) == pulse


def test_time_zero_tells_nothing_apart() -> None:
    once = Once()
    assert new(once, timed(0)) == timed(0)
    assert new(once, timed(0)) == timed(0)


def test_without_times_equal_events_are_new_while_the_connection_lasts() -> None:
    once = Once()
    assert new(once, untimed(True, False)) == untimed(True, False)
    assert new(once, untimed(True, False)) == untimed(True, False)


def test_without_times_the_whole_run_is_known_again_after_a_lost_connection() -> None:
    once = Once()
    new(once, untimed(True, False))
    once.connection_lost()
    once.without_events(present=False)  # what the outstation says to the first request
    assert new(once, untimed(True, False, True)) == untimed(True)
    assert new(once, untimed(True, False, True)) == untimed(True, False, True)


def test_without_times_a_part_of_the_run_is_new() -> None:
    once = Once()
    new(once, untimed(True, False))
    once.connection_lost()
    assert new(once, untimed(True)) == untimed(True)


def test_an_outstation_without_events_has_had_the_confirmation() -> None:
    once = Once()
    new(once, untimed(True, False))
    once.connection_lost()
    once.without_events(present=True)
    assert new(once, untimed(True, False)) == untimed(True, False)


def test_what_came_after_the_events_proves_their_confirmation() -> None:
    once = Once()
    new(once, untimed(True, False))
    once.without_events(present=False)
    once.connection_lost()
    assert new(once, untimed(True, False)) == untimed(True, False)


def test_runs_without_times_and_events_with_them_mix() -> None:
    once = Once()
    new(once, timed(1) + untimed(True))
    once.connection_lost()
    assert new(once, untimed(True) + timed(1, 2)) == timed(2)


def test_nan_is_known_again() -> None:
    once = Once()
    new(once, [(32, 0, math.nan, 1, 7)])
    assert new(once, [(32, 0, math.nan, 1, 7)]) == []


def test_memory_is_bounded() -> None:
    once = Once()
    new(once, timed(*range(1, 15_001)))
    for start in range(20_000, 30_000, 1000):
        new(once, timed(1, *range(start, start + 1000)))
    assert len(once._stamped) <= 11_001


steps = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 4)), max_size=25)


@given(steps, st.booleans())
def test_an_outstation_that_keeps_what_was_not_confirmed(
    plan: list[tuple[int, bool, int]], stamps: bool
) -> None:
    """Each event once and in order, whatever confirmations are lost, with the connection or without."""
    once = Once()
    buffer: list[Event] = []
    happened: list[Event] = []
    came: list[Event] = []
    for count, confirmed, _ in plan:
        for _ in range(count):
            event: Event = (32, len(happened) % 3, len(happened), 1, len(happened) + 1 if stamps else None)
            happened.append(event)
            buffer.append(event)
        if not buffer:
            once.without_events(present=True)
            continue
        came += new(once, list(buffer))
        if confirmed:
            buffer.clear()
        else:
            once.connection_lost()
    assert came == happened


@given(steps)
def test_an_outstation_that_sends_again_in_other_portions(plan: list[tuple[int, bool, int]]) -> None:
    """With times, and each portion as large as it likes: nothing is lost, and nothing comes twice."""
    once = Once()
    buffer: list[Event] = []
    happened: list[Event] = []
    came: list[Event] = []
    for count, confirmed, portion in plan:
        more = timed(*range(len(happened) + 1, len(happened) + 1 + count))
        happened += more
        buffer += more
        sent = buffer[: portion * 3]
        if sent:
            came += new(once, sent)
        if confirmed:
            del buffer[: len(sent)]
    while buffer:
        came += new(once, buffer[:2])
        del buffer[:2]
    assert Counter(came) == Counter(happened)
