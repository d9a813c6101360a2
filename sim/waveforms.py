"""Waveforms: what a simulated quantity is at a time.

Every wave is a function of the seconds since the simulation began and of its parameters, seed included, so it
is the same at any poll rate and in any run. Only `Lag` has a memory: the writes that it follows.
"""

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

Wave = Callable[[float], float]

V = TypeVar("V")

_MASK = (1 << 64) - 1
_SCALE = 2.0**-63


def _uniform(key: int, index: int) -> float:
    """A number in [-1, 1) that depends on nothing but `key` and `index` (the SplitMix64 generator)."""
    x = (key + index * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) * _SCALE - 1.0


def _key(seed: int) -> int:
    """Where in the generator's cycle of 2**64 a seed begins: far from its neighbours."""
    return seed * 0xD1342543DE82EF95 & _MASK


def constant(value: V) -> Callable[[float], V]:
    """Always `value`."""
    return lambda t: value


def ramp(start: float, end: float, period: float, phase: float = 0.0) -> Wave:
    """A sawtooth: from `start` to `end` in each period. `phase` is in degrees."""
    rate, shift = 1.0 / period, phase / 360.0
    span = end - start
    return lambda t: start + span * ((t * rate + shift) % 1.0)


def sine(low: float, high: float, period: float, phase: float = 0.0) -> Wave:
    """A sine between `low` and `high` that rises through the middle at phase 0. `phase` is in degrees."""
    middle, amplitude = (low + high) / 2, (high - low) / 2
    omega, shift = math.tau / period, math.radians(phase)
    return lambda t: middle + amplitude * math.sin(omega * t + shift)


def square(low: V, high: V, period: float, duty: float = 0.5, phase: float = 0.0) -> Callable[[float], V]:
    """`high` for the first `duty` of each period, then `low`. `phase` is in degrees."""
    rate, shift = 1.0 / period, phase / 360.0
    return lambda t: high if (t * rate + shift) % 1.0 < duty else low


def noise(amplitude: float, seed: int) -> Wave:
    """Uniform noise within +-`amplitude`, drawn anew each microsecond."""
    key = _key(seed)
    return lambda t: amplitude * _uniform(key, int(t * 1e6))


def total(one: Wave, other: Wave) -> Wave:
    """The sum of two waves."""
    return lambda t: one(t) + other(t)


def walk(start: float, step: float, interval: float, low: float, high: float, seed: int) -> Wave:
    """A random walk: each `interval` it moves by about `step` (one standard deviation), and turns back at
    `low` and `high`.

    The free path is a Wiener process by Levy's midpoint construction, so any moment is found in a logarithmic
    number of draws, without those before it; folding it at the limits is reflection.
    """
    span, key = high - low, _key(seed)

    @functools.lru_cache(maxsize=1)  # most reads fall into the interval of the one before
    def after(steps: int) -> float:
        free = start - low + step * _wiener(steps, key)
        folded = free % (2 * span)
        return low + (folded if folded <= span else 2 * span - folded)

    return lambda t: after(int(t / interval))


_DEVIATION = math.sqrt(3.0)  # turns a draw from [-1, 1) into one of standard deviation 1


def _wiener(n: int, key: int) -> float:
    """The n-th value (n >= 0) of a Wiener process that starts at 0 with a deviation of 1 a step."""
    left, left_value = 0, 0.0
    length = 1
    value = _uniform(key, 1) * _DEVIATION
    # Doubling goes outwards over the powers of two until one lies beyond n ...
    while left + length <= n:
        left, left_value = left + length, value
        length = left
        value = left_value + _uniform(key, 2 * left) * _DEVIATION * math.sqrt(length)
    right_value = value
    # ... and halving comes back in: the middle of a bridge of length L deviates by sqrt(L)/2.
    while left < n:
        length //= 2
        middle = left + length
        value = (left_value + right_value) / 2 + _uniform(key, 2 * middle + 1) * _DEVIATION * math.sqrt(
            length / 2
        )
        if middle <= n:
            left, left_value = middle, value
        else:
            right_value = value
    return left_value


class Lag:
    """A first-order lag, dy/dt = (target - y) / tau, solved exactly between changes of the target."""

    __slots__ = ("_from", "_since", "_target", "_tau")

    def __init__(self, tau: float, start: float) -> None:
        self._tau = tau
        self._target = self._from = start
        self._since = 0.0

    def __call__(self, t: float) -> float:
        """The lagging value."""
        if self._from == self._target:
            return self._target
        value = self._target + (self._from - self._target) * math.exp((self._since - t) / self._tau)
        low, high = sorted((self._from, self._target))
        return min(max(value, low), high)  # rounding must not carry it past its target

    def aim(self, t: float, target: float) -> None:
        """The target changes at time `t`."""
        self._from = self(t) if self._tau > 0 else target
        self._since, self._target = t, target


def playback(times: Sequence[float], values: Sequence[V], end: float, loop: bool) -> Callable[[float], V]:
    """Recorded values, each held until the next one's time.

    `times` rise from 0. With `loop` the record starts again at `end`, else its last value stays.
    """

    def at(t: float) -> V:
        moment = t % end if loop else t
        return values[max(bisect.bisect_right(times, moment) - 1, 0)]

    return at
