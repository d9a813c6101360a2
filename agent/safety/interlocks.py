"""Whether what a point's `requires` asks for is so. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from agent.safety.readback import same
from protocols.base import DriverError, Sample, Value
from protocols.interlock import Band, Interlock, Requirement

Readings = Mapping[str, Sample | DriverError]
"""What was just read of each device, or why it could not be."""


def broken(interlocks: Iterable[Interlock], readings: Readings) -> list[str]:
    """A sentence for each interlock that does not hold, or of which it is not known."""
    return [text for interlock in interlocks if (text := _broken(interlock, readings[interlock.device]))]


def _broken(interlock: Interlock, reading: Sample | DriverError) -> str:
    place, wanted = f"{interlock.device}.{interlock.point}", interlock.wanted
    has_to_be = f"has to be {wanted if isinstance(wanted, Band) else _shown(wanted)}"
    if isinstance(reading, DriverError):
        return f"{place} cannot be read ({reading}), {has_to_be}"
    if interlock.point not in reading.values:
        return f"{place} cannot be read ({reading.bad.get(interlock.point, 'no value')}), {has_to_be}"
    value = reading.values[interlock.point]
    return "" if _holds(wanted, value) else f"{place} is {_shown(value)}, {has_to_be}"


def _holds(wanted: Requirement, value: Value) -> bool:
    if not isinstance(wanted, Band):
        return same(wanted, value)
    if not isinstance(value, int | float):
        return False
    return (wanted.min is None or value >= wanted.min) and (wanted.max is None or value <= wanted.max)


def _shown(value: Value) -> str:
    return msgspec.json.encode(value).decode()
