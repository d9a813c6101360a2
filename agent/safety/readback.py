"""Whether a device holds what was written to it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from protocols.base import Sample, Value


class Readable(Protocol):
    """A device, or its driver alone."""

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads points now; raises DriverError where not one could be read."""


class ReadBack(NamedTuple):
    """What was read of what had been written, and a sentence for each point where it is not the same."""

    values: Mapping[str, Value]
    differs: Mapping[str, str]


async def read_back(device: Readable, written: Mapping[str, Value]) -> ReadBack:
    """Reads points anew and compares.

    Raises:
        DriverError: not one point could be read.
    """
    back = await device.read(list(written))
    differs = {
        name: f"{name} was written as {value} and reads back as {back.values.get(name, back.bad.get(name))}"
        for name, value in written.items()
        if not same(value, back.values.get(name))
    }
    return ReadBack(back.values, differs)


def same(wanted: Value, read: Value | None) -> bool:
    """Whether a reading is the value, but for the rounding of floating-point numbers."""
    if isinstance(wanted, float) and isinstance(read, int | float):
        return math.isclose(wanted, read, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(wanted, list) and isinstance(read, list):
        return len(wanted) == len(read) and all(map(same, wanted, read))
    if isinstance(wanted, dict) and isinstance(read, dict):
        return wanted.keys() == read.keys() and all(same(part, read[key]) for key, part in wanted.items())
    return wanted == read and read is not None
