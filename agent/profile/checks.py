"""What can only be seen when a device is known as a whole: limits, safe values and simulated behaviour."""

from collections.abc import Iterator

from pydantic import TypeAdapter, ValidationError

from agent.document import MappingNode
from agent.problems import Problem
from agent.validation import locate, problems_of
from protocols.base import DeviceConfig, Point, Refused
from sim.behaviour import Spec, behaviours


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
