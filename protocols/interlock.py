"""What has to be so before a point may be written."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, model_validator

Scalar = bool | int | float | str
Value = Scalar | list[Any] | dict[str, Any]
"""A value in engineering units: what the wire carries. An enumeration is its label, raw bytes are hex;
arrays and structures are what JSON has for them."""


class Band(BaseModel):
    """The values that an interlock lets pass, limits included, in engineering units."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("should give a min or a max")
        return self

    def __str__(self) -> str:
        if self.max is None:
            return f"at least {self.min:g}"
        return f"at most {self.max:g}" if self.min is None else f"from {self.min:g} to {self.max:g}"


def _requirement(written: Any) -> str:
    return "band" if isinstance(written, Mapping | Band) else "value"


Requirement = Annotated[
    Annotated[Scalar, Tag("value")] | Annotated[Band, Tag("band")], Discriminator(_requirement)
]
"""What an interlock wants: a value, or a band that the value lies in."""


class Interlock(NamedTuple):
    """One condition for writing a point: what a point, of this or another device, has to be."""

    key: str
    device: str
    point: str
    wanted: Requirement
