"""What a good profile would have the agent do: which requests, how large, how often."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.plugins import protocols
from agent.profile.model import Profile
from protocols.base import DeviceProtocol, PlannedRequest
from protocols.units import format_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_POINTS = 4


class DevicePlan(msgspec.Struct, frozen=True):
    """How one device would be polled; rates are per second."""

    device: str
    protocol: str
    enabled: bool
    points: int
    writable: int
    without_safe: tuple[str, ...]
    """Writable points that a safe state would leave as they are."""
    requests: tuple[PlannedRequest, ...]
    requests_per_s: float
    sizes_per_s: Mapping[str, float]
    """What crosses the bus each second, by unit: registers, bits, bytes."""


def survey(profile: Profile, installed: Mapping[str, DeviceProtocol] | None = None) -> list[DevicePlan]:
    """The plan of each device, in the profile's order."""
    known = protocols() if installed is None else installed
    return [_plan(profile, name, known) for name in profile.devices]


def _plan(profile: Profile, name: str, installed: Mapping[str, DeviceProtocol]) -> DevicePlan:
    device = profile.devices[name]
    requests = tuple(installed[device.protocol].plan(device)) if device.enabled else ()
    sizes: dict[str, float] = {}
    for request in requests:
        if request.period is not None:
            sizes[request.size_unit] = sizes.get(request.size_unit, 0.0) + request.size / request.period
    writable = [point for point in device.points.values() if point.writable]
    return DevicePlan(
        device=name,
        protocol=device.protocol,
        enabled=device.enabled,
        points=len(device.points),
        writable=len(writable),
        without_safe=tuple(point.name for point in writable if point.safe is None),
        requests=requests,
        requests_per_s=sum(1 / request.period for request in requests if request.period is not None),
        sizes_per_s=sizes,
    )


def as_data(profile: Profile, plans: Sequence[DevicePlan]) -> dict[str, Any]:
    """The report for scripts."""
    return {
        "profile": profile.profile,
        "path": str(profile.path),
        "digest": profile.digest,
        "valid": True,
        "devices": msgspec.to_builtins(plans),
    }


def as_text(profile: Profile, plans: Sequence[DevicePlan]) -> "RenderableType":
    """The report for people."""
    from rich.console import Group
    from rich.text import Text

    title = Text.assemble((profile.profile, "bold"), f"  {profile.path}\n{profile.digest}", style="dim")
    return Group(title, *(part for plan in plans for part in (Text(), *_device(plan))))


def _device(plan: DevicePlan) -> "list[RenderableType]":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rates = [f"{plan.requests_per_s:.4g} requests/s" if plan.requests_per_s else "nothing is polled"]
    rates += [f"{rate:.4g} {unit}/s" for unit, rate in plan.sizes_per_s.items()]
    what = ", ".join(rates) if plan.enabled else "disabled: left alone"
    head = Text.assemble((plan.device, "bold cyan"), f" ({plan.protocol}): {plan.points} points, {what}")
    parts: list[RenderableType] = [head]
    if plan.requests:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in ("every", "request", "size", "points"):
            table.add_column(column, justify="right" if column in ("every", "size") else "left")
        for request in plan.requests:
            unit = request.size_unit.removesuffix("s") if request.size == 1 else request.size_unit
            size = f"{request.size} {unit}"
            every = "once" if request.period is None else format_duration(request.period)
            table.add_row(every, request.what, size, _some(request.points))
        parts.append(table)
    if plan.without_safe:
        note = f"no safe value: {_some(plan.without_safe)}"
        parts.append(Text(note, style="yellow"))
    return parts


def _some(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN_POINTS:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN_POINTS - 1])} ... {names[-1]} ({len(names)})"
