"""A profile of KubeEdge devices, line by line; what no profile expresses is a comment with the reason."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from agent.cli.signals import comment, dashed, scalar
from agent.kubeedge.documents import Device, Property
from agent.kubeedge.mapping import MAPPINGS, Fields, Inexpressible, PointMaker, Said, common
from agent.profile.model import RESERVED
from protocols.base import DeviceConfig
from protocols.units import WRITTEN

Warn = Callable[[str], None]
_TWIN = "its twin can be had by protocol: mqtt with payload: kubeedge"


def profile_lines(
    title: str,
    devices: Sequence[Device],
    left: Sequence[str],
    config_of: Callable[[str], type[DeviceConfig]],
    warn: Warn,
) -> Iterator[str]:
    """The profile. Each comment on what is not expressed is a warning too.

    Raises:
        Inexpressible: not one device could be expressed.
    """

    def note(where: str, text: str, indent: int) -> str:
        warn(f"{where}: {text}")
        return " " * indent + f"# {comment(text)}"

    yield "# Made from KubeEdge's Device and DeviceModel. Comments say what was left out, or is assumed."
    yield "# Where a bench may write say safe, too."
    for sentence in left:
        yield note("files", sentence, 0)
    yield f"profile: {scalar(dashed(title) or 'kubeedge')}"
    yield "devices:"
    taken: set[str] = {RESERVED}
    made = 0
    for device in devices:
        name = _free(device.name, taken)
        try:
            lines = list(_device_lines(name, device, config_of, note))
        except Inexpressible as error:
            yield note(f"device {device.name}", f"{device.name} is left out: {error}", 2)
        else:
            made += 1
            yield from lines
    if not made:
        raise Inexpressible("there is no device that a profile can express")


def _device_lines(
    name: str,
    device: Device,
    config_of: Callable[[str], type[DeviceConfig]],
    note: Callable[[str, str, int], str],
) -> Iterator[str]:
    if device.protocol not in MAPPINGS:
        raise Inexpressible(f"there is no protocol {device.protocol!r:.40} here; {_TWIN}")
    protocol, make, make_point = MAPPINGS[device.protocol]
    notes: list[str] = []
    said = Said(device.config)
    fields: Fields = {"protocol": protocol, **make(device, said, notes)}
    if device.description:
        fields["description"] = device.description
    config = config_of(protocol)
    _check(config, {**fields, "points": {}})
    notes += [*device.left, *(f"{key} of its configuration has no counterpart" for key in said.unused())]
    where = f"device {device.name}"
    yield f"  {name}:"
    for text in notes:
        yield note(where, text, 4)
    for key, value in fields.items():
        yield f"    {key}: {flow(value)}"
    yield "    points:"
    taken: set[str] = set()
    for prop in device.properties:
        yield from _point_lines(prop, make_point, config, fields, taken, where, note)
    if not taken:
        yield "      {}"


def _point_lines(
    prop: Property,
    make: PointMaker,
    config: type[DeviceConfig],
    fields: Fields,
    taken: set[str],
    where: str,
    note: Callable[[str, str, int], str],
) -> Iterator[str]:
    notes: list[str] = []
    said = Said(prop.visitor)
    try:
        if not prop.visitor:
            raise Inexpressible("the device does not say how it is had")
        point = common(prop, make(prop, said, notes), notes)
        name = _free(prop.name, set(taken))
        _check(config, {**fields, "points": {name: point}})
    except Inexpressible as error:
        yield note(where, f"property {prop.name} is left out: {error}", 6)
        return
    taken.add(name)
    left = [*said.unused(), *prop.left]
    if left:
        notes.append(f"{', '.join(left)}: no counterpart")
    for text in notes:
        yield note(where, f"property {prop.name}: {text}", 6)
    yield f"      {name}: {flow(point)}"


def _check(config: type[DeviceConfig], device: Mapping[str, Any]) -> None:
    """Holds what is written against the profile's own rules.

    Raises:
        Inexpressible: it breaks one.
    """
    try:
        config.model_validate(device, context=WRITTEN)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("points", "tcp", "rtu", "tls"))
        raise Inexpressible(f"{place}: {first['msg']}") from None


def _free(name: str, taken: set[str]) -> str:
    """A name as profiles have them, which nobody has yet."""
    plain = dashed(name) or "unnamed"
    free, number = plain, 1
    while free in taken:
        number += 1
        free = f"{plain[:55]}-{number}"
    taken.add(free)
    return free


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    match value:
        case Mapping():
            return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.items()) + "}"
        case str():
            return scalar(value)
        case list():
            return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value)
