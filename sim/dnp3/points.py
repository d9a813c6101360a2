"""What a simulated outstation holds: its points, as raw values with flags. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.objects import (
    DOUBLE_BIT,
    EVENT_GROUP,
    FLAG_NAMES,
    LAYOUTS,
    ONLINE,
    STATIC_GROUP,
    PointType,
)
from protocols.dnp3.point import Dnp3Point

_STATIC: Final[Mapping[PointType, int]] = {
    "binary_input": 2,
    "double_bit_input": 2,
    "binary_output": 2,
    "counter": 1,
    "frozen_counter": 1,
    "analog_input": 6,
    "analog_output": 4,
    "octet_string": 0,
}
"""Static variations where the profile says none: with flags, and numbers so that nothing of them is lost."""

_CLASS: Final[Mapping[PointType, int]] = {
    "binary_input": 1,
    "double_bit_input": 1,
    "binary_output": 1,
    "counter": 2,
    "analog_input": 2,
    "analog_output": 2,
    "frozen_counter": 3,
    "octet_string": 3,
}
_LONGEST_STRING: Final = 255


class SimulatedPoint:
    """One point: its present value and how it is reported."""

    __slots__ = (
        "base",
        "event_class",
        "event_variation",
        "flags",
        "index",
        "kind",
        "point",
        "reported",
        "time_ms",
        "value",
        "variation",
    )

    def __init__(self, point: Dnp3Point, event_class: int) -> None:
        self.point = point
        self.kind = point.type
        self.index = point.index
        self.variation = point.variation or _STATIC[point.type]
        self.event_variation = _event_variation(point.type, self.variation)
        self.event_class = event_class
        """0 to 3; 0: its changes are no events."""
        self.value: Any = _nothing(point.type)
        """Raw: bool, 0 to 3 of a double-bit input, number, bytes."""
        self.base = 0
        """Of a counter: what its behaviour had counted when it was cleared last."""
        self.flags = ONLINE
        """Without the bits that hold the state."""
        self.reported: Any = self.value
        """The value of its last event, from which the deadband is counted."""
        self.time_ms = 0
        """When it changed last, by the outstation's clock."""

    def differs(self, value: Any, deadband: float) -> bool:
        """Whether this value, raw, is an event."""
        if self.kind in ("analog_input", "analog_output", "counter"):
            # Written so that NaN, which no deadband holds, differs from all but itself.
            same = abs(value - self.reported) <= deadband or (
                value != value and self.reported != self.reported
            )
            return not same
        return bool(value != self.reported)


def raw_of(point: Dnp3Point, value: Any) -> Any:
    """What the outstation holds for an engineering value."""
    match point.type:
        case "binary_input" | "binary_output":
            return bool(value)
        case "double_bit_input":
            return DOUBLE_BIT.index(value)
        case "octet_string":
            octets = bytes.fromhex(value) if point.encoding == "hex" else value.encode(point.encoding)
            return octets[:_LONGEST_STRING] or b"\0"
    raw = value if point.scale == 1 and point.offset == 0 else (value - point.offset) / point.scale
    return round(raw) % 2**32 if point.type in ("counter", "frozen_counter") else raw


def flags_of(kind: PointType, text: str) -> int:
    """The flag octet that has these names, divided by spaces.

    Raises:
        ValueError: a kind of point has no such flag.
    """
    bits: dict[str, int] = {name: bit for bit, name in FLAG_NAMES[kind].items()}
    flags = 0
    for word in text.split():
        if word not in bits:
            raise ValueError(f"a {kind} has no quality flag {word!r}; there are {', '.join(bits)}")
        flags |= bits[word]
    return flags


class Database:
    """All points of an outstation, by kind and index, and by the name of the profile."""

    def __init__(self, device: Dnp3Device) -> None:
        self._device = device
        self._by_kind: dict[PointType, dict[int, SimulatedPoint]] = {kind: {} for kind in STATIC_GROUP}
        self._by_name: dict[str, SimulatedPoint] = {}
        # Where a value and flags are two points of the profile, the value's is the one that counts.
        for point in sorted(device.points.values(), key=lambda one: (one.index, one.field != "value")):
            members = self._by_kind[point.type]
            if point.index not in members:
                members[point.index] = SimulatedPoint(point, self._configured_class(point))
            self._by_name[point.name] = members[point.index]

    def __getitem__(self, name: str) -> SimulatedPoint:
        return self._by_name[name]

    def __iter__(self) -> Iterator[SimulatedPoint]:
        for members in self._by_kind.values():
            yield from members.values()

    def of(self, kind: PointType) -> Mapping[int, SimulatedPoint]:
        """Points of a kind by index, in rising order."""
        return self._by_kind[kind]

    def reset_classes(self) -> None:
        """Forgets what a master assigned."""
        for point in self:
            point.event_class = self._configured_class(point.point)

    def _configured_class(self, point: Dnp3Point) -> int:
        return self._device.simulation.classes.get(point.name, _CLASS[point.type])


def runs(points: Sequence[SimulatedPoint]) -> Iterator[Sequence[SimulatedPoint]]:
    """Points in runs without gaps in their indices."""
    begin = 0
    for at in range(1, len(points) + 1):
        if at == len(points) or points[at].index != points[at - 1].index + 1:
            yield points[begin:at]
            begin = at


def _event_variation(kind: PointType, variation: int) -> int:
    """The event variation with absolute time that carries the same number as a static variation."""
    if kind == "octet_string":
        return 0
    number = LAYOUTS[STATIC_GROUP[kind], variation].number
    return next(
        v
        for (group, v), layout in LAYOUTS.items()
        if group == EVENT_GROUP[kind] and layout.time == "absolute" and layout.number == number
    )


def _nothing(kind: PointType) -> Any:
    if kind == "octet_string":
        return b"\0"
    return False if kind in ("binary_input", "binary_output") else 0
