"""A protocol small enough to test profiles with: its words stay as they are whatever real ones do."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.base import DeviceConfig, Driver, Kind, Name, PlannedRequest, Point, Shared


class ToyPoint(Point):
    address: int = Field(ge=0, le=1_000_000)

    @property
    def kind(self) -> Kind:
        return "number"


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["line"]
    host: str
    port: int = Field(502, ge=1, le=65535)


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["wire"]
    path: str


class ToyDevice(DeviceConfig):
    protocol: Literal["toy"]
    connection: Annotated[Line | Wire, Field(discriminator="kind")]
    points: Mapping[Name, ToyPoint]

    @model_validator(mode="after")
    def _something_to_read(self) -> Self:
        if not self.points:
            raise ValueError("has no points")
        return self


class Toy:
    name = "toy"
    methods: Mapping[str, str] = {}
    writing: Collection[str] = ()

    def config(self) -> type[DeviceConfig]:
        return ToyDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        return [
            PlannedRequest(f"read {point.address}", (name,), 2, "bytes", point.poll or device.poll)
            for name, point in device.points.items()
        ]

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def driver(self, device: Any, shared: Shared) -> Driver:
        raise NotImplementedError


INSTALLED = {"toy": Toy()}
