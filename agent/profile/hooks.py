"""Hooks in a profile: what is done before a lease begins and after it ended, and what is wrong with them."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.document import Node
from agent.problems import Problem, did_you_mean
from agent.validation import locate
from protocols.base import DeviceConfig, DeviceProtocol, Refused, Value
from protocols.units import Duration

SERIES = ("before_lease", "after_lease")
_KINDS = ("write", "call", "run")


class WriteHook(BaseModel):
    """Values that are written to a device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    values: Mapping[str, Value] = Field(min_length=1)


class CallHook(BaseModel):
    """One of a protocol's own operations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str
    method: str
    args: Mapping[str, Any] = Field(default_factory=dict)


class Hook(BaseModel):
    """One thing that is done: `write`, `call` or `run`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"oneOf": [{"required": [kind]} for kind in _KINDS]},
    )

    write: WriteHook | None = Field(None, description="Values that are written to a device.")
    call: CallHook | None = Field(None, description="One of a protocol's own operations.")
    run: list[str] | None = Field(
        None, min_length=1, description="A program and its arguments; no shell is asked."
    )
    timeout: Duration = Field(10.0, gt=0, le=600, description="How long it may take.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len([kind for kind in _KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"should have exactly one of {', '.join(_KINDS)}")
        return self

    @property
    def device(self) -> str | None:
        """The device that it is about; None: it is about no device."""
        action = self.write or self.call
        return None if action is None else action.device


class LeaseHooks(BaseModel):
    """What is done around every lease, in order; the first failure ends a series."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before_lease: list[Hook] = Field(
        default_factory=list, description="Before a lease begins; where one fails, there is no lease."
    )
    after_lease: list[Hook] = Field(
        default_factory=list, description="After a lease ended and its devices were made safe."
    )


def check_hooks(
    hooks: LeaseHooks,
    tree: Node,
    names: Mapping[str, Any],
    devices: Mapping[str, DeviceConfig],
    installed: Mapping[str, DeviceProtocol],
) -> Iterator[Problem]:
    """What is wrong with hooks in view of the devices.

    Args:
        hooks: The hooks.
        tree: How they were written.
        names: All devices of the profile by name, also those that are wrong themselves.
        devices: The devices that are good.
        installed: The protocols by name.
    """
    for series in SERIES:
        for number, hook in enumerate(getattr(hooks, series)):
            for loc, message, hint in _mistakes(hook, names, devices, installed):
                spot = locate(tree, (series, number, *loc), "hooks")
                yield Problem.at(spot.place, spot.field, message, hint)


def _mistakes(
    hook: Hook,
    names: Mapping[str, Any],
    devices: Mapping[str, DeviceConfig],
    installed: Mapping[str, DeviceProtocol],
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Where, what, and what may have been meant."""
    action = hook.write or hook.call
    if action is None:
        return
    kind = "write" if hook.write else "call"
    device = devices.get(action.device)
    if action.device not in names:
        yield (kind, "device"), "is no device of this profile", did_you_mean(action.device, names)
    if device is None:
        return  # what is wrong with the device itself was said
    if isinstance(action, CallHook):
        methods = installed[device.protocol].methods
        if action.method not in methods:
            text = f"is no method of {device.protocol} devices"
            yield (kind, "method"), text, did_you_mean(action.method, methods)
        return
    for name, value in action.values.items():
        if (point := device.points.get(name)) is None:
            text = f"device {device.name} has no such point"
            yield (kind, "values", name), text, did_you_mean(name, device.points)
            continue
        try:
            point.accept(value)
        except Refused as refused:
            yield (kind, "values", name), str(refused), ""
