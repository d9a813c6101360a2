"""Waveforms stay in their bounds, depend on nothing but time and seed, and mean what they say."""

import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import waveforms

times = st.floats(0, 1e7)
numbers = st.floats(-1e6, 1e6)
periods = st.floats(1e-3, 1e5)
phases = st.floats(-360, 360)
shares = st.floats(0, 1)
seeds = st.integers(0, 2**32)


@given(t=times, start=numbers, end=numbers, period=periods, phase=st.floats(-360, 360))
def test_a_ramp_stays_between_its_ends(
    t: float, start: float, end: float, period: float, phase: float
) -> None:
    value = waveforms.ramp(start, end, period, phase)(t)
    assert min(start, end) - 1e-6 <= value <= max(start, end) + 1e-6


def test_a_ramp_starts_again() -> None:
    ramp = waveforms.ramp(0, 100, 20.0)
    assert [ramp(t) for t in (0, 5, 10, 19, 20, 25)] == pytest.approx([0, 25, 50, 95, 0, 25])


@given(t=times, low=numbers, high=numbers, period=periods)
def test_a_sine_stays_between_its_limits(t: float, low: float, high: float, period: float) -> None:
    value = waveforms.sine(low, high, period)(t)
    assert min(low, high) - 1e-6 <= value <= max(low, high) + 1e-6


def test_a_sine_has_its_period_and_phase() -> None:
    sine = waveforms.sine(20, 30, 10.0)
    assert [sine(t) for t in (0, 2.5, 5, 7.5, 10)] == pytest.approx([25, 30, 25, 20, 25])
    assert waveforms.sine(20, 30, 10.0, phase=90)(0) == pytest.approx(30)


def test_a_square_is_high_for_its_duty() -> None:
    square = waveforms.square("off", "on", 10.0, duty=0.3)
    assert [square(t) for t in (0, 2.9, 3.1, 9.9, 10.1)] == ["on", "on", "off", "off", "on"]


@given(t=times, amplitude=st.floats(0, 1e6), seed=seeds)
def test_noise_stays_in_its_amplitude(t: float, amplitude: float, seed: int) -> None:
    value = waveforms.noise(amplitude, seed)(t)
    assert -amplitude <= value <= amplitude
    assert value == waveforms.noise(amplitude, seed)(t)


def test_noise_is_uniform_and_differs_by_seed() -> None:
    hiss, other = waveforms.noise(1, 1), waveforms.noise(1, 2)
    drawn = [hiss(n * 1e-3) for n in range(5000)]
    assert statistics.fmean(drawn) == pytest.approx(0, abs=0.05)
    assert statistics.stdev(drawn) == pytest.approx(1 / math.sqrt(3), rel=0.05)
    assert statistics.correlation(drawn, drawn[1:] + drawn[:1]) == pytest.approx(0, abs=0.05)
    assert statistics.correlation(drawn, [other(n * 1e-3) for n in range(5000)]) == pytest.approx(0, abs=0.05)


@given(
    t=times,
    low=numbers,
    span=st.floats(1e-3, 1e6),
    share=st.floats(0, 1),
    step=st.floats(1e-3, 1e3),
    seed=seeds,
)
def test_a_walk_stays_between_its_limits(
    t: float, low: float, span: float, share: float, step: float, seed: int
) -> None:
    walk = waveforms.walk(low + share * span, step, 0.1, low, low + span, seed)
    assert low - 1e-6 <= walk(t) <= low + span + 1e-6


def test_a_walk_starts_where_it_should_and_takes_steps_of_its_size() -> None:
    walk = waveforms.walk(5.0, 2.0, 0.1, -1e9, 1e9, seed=3)
    path = [walk(n * 0.1 + 0.05) for n in range(5000)]
    steps = [later - earlier for earlier, later in pairwise(path)]
    assert path[0] == 5.0
    assert walk(0.08) == path[0]  # the value holds for the whole interval
    assert statistics.fmean(steps) == pytest.approx(0, abs=0.15)
    assert statistics.stdev(steps) == pytest.approx(2.0, rel=0.05)
    assert statistics.correlation(steps, steps[1:] + steps[:1]) == pytest.approx(0, abs=0.05)


@given(st.lists(times, min_size=1, max_size=20), seeds)
def test_a_walk_does_not_depend_on_when_it_was_looked_at(moments: list[float], seed: int) -> None:
    one = waveforms.walk(0, 1, 0.1, -50, 50, seed)
    together = [one(t) for t in moments]
    assert together == [waveforms.walk(0, 1, 0.1, -50, 50, seed)(t) for t in moments]


def test_a_lag_closes_in_by_its_time_constant() -> None:
    lag = waveforms.Lag(2.0, 0.0)
    lag.aim(10.0, 100.0)
    assert lag(10.0) == 0.0
    assert lag(12.0) == pytest.approx(100 * (1 - math.exp(-1)))
    assert lag(1000.0) == pytest.approx(100)


@given(
    moments=st.lists(st.floats(0, 100), max_size=30),
    targets=st.lists(st.floats(-100, 100), min_size=1, max_size=5),
)
def test_reading_a_lag_does_not_change_it(moments: list[float], targets: list[float]) -> None:
    read, unread = waveforms.Lag(3.0, 0.0), waveforms.Lag(3.0, 0.0)
    for n, target in enumerate(targets):
        read.aim(n * 100.0, target)
        unread.aim(n * 100.0, target)
        for moment in sorted(moments):
            assert -100 <= read(n * 100.0 + moment) <= 100
    assert read(600.0) == unread(600.0)


def test_rounding_carries_no_lag_past_its_target() -> None:
    lag = waveforms.Lag(3.0, 0.0)
    for n, target in enumerate((98.0, 100.0, -28.278685712057424)):
        lag.aim(n * 100.0, target)
    assert lag(200.0) <= 100


def test_without_a_time_constant_a_lag_follows_at_once() -> None:
    lag = waveforms.Lag(0.0, 0.0)
    lag.aim(1.0, 7.0)
    assert lag(1.0) == 7.0


def test_playback_holds_each_value_and_loops() -> None:
    looped = waveforms.playback([0.0, 1.0, 3.0], ["a", "b", "c"], 5.0, loop=True)
    assert [looped(t) for t in (0, 0.9, 1, 2.9, 3, 4.9, 5, 6)] == list("aabbccab")
    once = waveforms.playback([0.0, 1.0, 3.0], ["a", "b", "c"], 5.0, loop=False)
    assert [once(t) for t in (0, 3, 5, 1e6)] == list("accc")
