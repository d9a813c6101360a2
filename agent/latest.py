"""The last thing known of every point."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from protocols.base import Quality, Sample, Value


class Last(NamedTuple):
    """A point's last reading: a value, or why there is none, and when."""

    value: Value | None
    bad: Quality | None
    time_ns: int


class LatestValues:
    """Remembers for each point the sample that spoke of it last. Costs one dict update a sample."""

    def __init__(self) -> None:
        self._devices: dict[str, dict[str, Sample]] = {}

    def update(self, device: str, sample: Sample) -> None:
        """Takes a sample of a device."""
        points = self._devices.setdefault(device, {})
        points.update(dict.fromkeys(sample.values, sample))
        if sample.bad:
            points.update(dict.fromkeys(sample.bad, sample))

    def get(self, device: str) -> Mapping[str, Last]:
        """The last readings of a device's points; a point never heard of is missing."""
        return dict(self._readings(device))

    def _readings(self, device: str) -> Iterator[tuple[str, Last]]:
        for point, sample in self._devices.get(device, {}).items():
            yield point, Last(sample.values.get(point), sample.bad.get(point), sample.time_ns)
