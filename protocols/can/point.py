"""One signal of a message, or one figure of the bus itself, as a point."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PrivateAttr

from protocols.base import Kind, Point, Value
from protocols.can.database import Message, Signal

BusFigure = Literal["state", "load", "tx-errors", "rx-errors", "restarts", "dropped"]


class CanPoint(Point):
    """A signal of the database (`signal`, and `message` where several have one of that name), or `bus`."""

    message: str | None = Field(None, description="Its name in the database.")
    signal: str | None = Field(None, description="Its name in the database.")
    bus: BusFigure | None = Field(None, description="A figure of the bus itself instead of a signal.")
    labels: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Whether the value table makes an enumeration; auto: where it is all there is.",
    )
    initial: Value | None = Field(
        None, description="Value in frames that are sent before it is written; default: the database's."
    )
    _bound: "tuple[Message, Signal] | None" = PrivateAttr(None)

    @property
    def bound(self) -> "tuple[Message, Signal]":
        """The signal and its message; set when the device is validated."""
        assert self._bound is not None
        return self._bound

    @property
    def kind(self) -> Kind:
        """The JSON type of the point's values."""
        raise NotImplementedError

    @property
    def choices(self) -> Sequence[str]:
        """The labels of an enumeration, else empty."""
        raise NotImplementedError
