"""What can only be seen when devices are known as a whole: limits, safe values, interlocks and behaviour."""

from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from agent.document import MappingNode
from agent.problems import Problem, did_you_mean
from agent.validation import locate, problems_of
from protocols.base import DeviceConfig, Point, Refused
from protocols.interlock import Band, Interlock, Requirement
from sim.behaviour import Spec, behaviours

_NUMBERS = ("integer", "number")


def check_device(device: DeviceConfig, tree: MappingNode) -> Iterator[Problem]:
    """What is wrong with a device that its protocol's model has passed; `tree` is what was written."""
    field = f"devices.{device.name}"
    for name, point in device.points.items():
        for key, message in _point_mistakes(point):
            spot = locate(tree, ("points", name, key), field)
            yield Problem.at(spot.place, spot.field, message)
    try:
        behaviours(device)
    except ValidationError as error:
        sim = tree.entries["sim"].node
        yield from problems_of(error, sim, f"{field}.sim", TypeAdapter(dict[str, Spec]).json_schema())


def _point_mistakes(point: Point) -> Iterator[tuple[str, str]]:
    if point.min is not None and point.max is not None and point.min > point.max:
        yield "min", f"min {point.min:g} is above max {point.max:g}"
    elif point.safe is not None:
        try:
            point.accept(point.safe)
        except Refused as refused:
            yield "safe", str(refused)
    if point.max_rate is not None:
        if point.kind not in _NUMBERS:
            yield "max_rate", "only numbers have a max_rate"
        elif point.access == "ro":
            yield "max_rate", "only points that can be written have a max_rate"
        elif point.access == "wo":
            yield "max_rate", "needs access: rw, for it is judged by what the point is now"
    if point.requires and not point.writable:
        yield "requires", "only points that can be written have interlocks"


def check_interlocks(
    devices: Mapping[str, DeviceConfig], trees: Mapping[str, MappingNode]
) -> Iterator[Problem]:
    """What is wrong with `requires`, which may name points of other devices.

    `trees` has all devices as they were written, `devices` what is good of them: of a device or a point
    that is wrong itself enough was said.
    """
    for name, device in devices.items():
        for point in device.points.values():
            for interlock in point.interlocks(name):
                if mistake := _interlock_mistake(interlock, devices, trees):
                    spot = locate(
                        trees[name], ("points", point.name, "requires", interlock.key), f"devices.{name}"
                    )
                    yield Problem.at(spot.place, spot.field, *mistake)


def _interlock_mistake(
    interlock: Interlock, devices: Mapping[str, DeviceConfig], trees: Mapping[str, MappingNode]
) -> tuple[str, ...]:
    """A message, and a hint where there is one."""
    if interlock.device not in trees:
        return f"no device is called {interlock.device!r}", did_you_mean(interlock.device, trees)
    if interlock.device not in devices:
        return ()
    points = devices[interlock.device].points
    if interlock.point not in points:
        written = locate(trees[interlock.device], ("points", interlock.point))
        if not written.key:
            return ()
        message = f"device {interlock.device} has no point {interlock.point!r}"
        return message, did_you_mean(interlock.point, points)
    return tuple(_value_mistakes(interlock.wanted, points[interlock.point]))


def _value_mistakes(wanted: Requirement, point: Point) -> Iterator[str]:
    if not point.readable:
        yield f"point {point.name!r} is write-only: it cannot be read"
    elif not isinstance(wanted, Band):
        try:
            point.typed(wanted)
        except Refused as refused:
            yield str(refused)
    elif point.kind not in _NUMBERS:
        yield f"point {point.name!r} is no number: write the value that it has to be"
    elif wanted.min is not None and wanted.max is not None and wanted.min > wanted.max:
        yield f"min {wanted.min:g} is above max {wanted.max:g}"
