"""One signal of a message, or one figure of the bus itself, as a point."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, PrivateAttr

from protocols.base import Kind, Point, Refused, Scalar, Value
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.encoder import exact_value, raw_of, scaled_value

BusFigure = Literal["state", "load", "tx-errors", "rx-errors", "restarts", "dropped"]

FIGURE_KINDS: Final[Mapping[BusFigure, Kind]] = {
    "state": "enumeration",
    "load": "number",
    "tx-errors": "integer",
    "rx-errors": "integer",
    "restarts": "integer",
    "dropped": "integer",
}
_TOLERANCE: Final = 1e-6
"""Steps by which a value may be over a limit of the database, which is rounded decimal text (as cantools)."""


class CanPoint(Point):
    """A signal of the database (`signal`, and `message` where several have one of that name), or `bus`."""

    message: str | None = Field(None, description="Its name in the database.")
    signal: str | None = Field(None, description="Its name in the database.")
    bus: BusFigure | None = Field(None, description="A figure of the bus itself instead of a signal.")
    labels: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Whether the value table makes an enumeration; auto: where it is all there is.",
    )
    initial: Scalar | None = Field(
        None, description="Value in frames that are sent before it is written; default: the database's."
    )
    _bound: "tuple[Message, Signal] | None" = PrivateAttr(None)

    @property
    def bound(self) -> "tuple[Message, Signal]":
        """The signal and its message; set when the device is validated."""
        assert self._bound is not None
        return self._bound

    @property
    def is_bound(self) -> bool:
        """Whether its signal is known; never that of a figure of the bus."""
        return self._bound is not None

    def bind(self, message: Message, signal: Signal) -> None:
        """Says which signal it is, once, when the device is validated.

        Unit and description are the database's where the profile has none; they do not count as said.
        """
        self._bound = (message, signal)
        self.__dict__.update(unit=self.unit or signal.unit, description=self.description or signal.comment)

    @property
    def kind(self) -> Kind:
        """The JSON type of the point's values."""
        if self.bus is not None:
            return FIGURE_KINDS[self.bus]
        if self._bound is None:
            return "number"
        _, signal = self._bound
        if self._is_enumeration(signal):
            return "enumeration"
        if not signal.integral:
            return "number"
        plain = (signal.length, signal.signed, signal.scale, signal.offset) == (1, False, 1, 0)
        return "boolean" if plain and (self.labels == "no" or not signal.choices) else "integer"

    def _is_enumeration(self, signal: Signal) -> bool:
        if self.labels == "yes":
            return True
        alone = signal.scale == 1 and signal.offset == 0 and not signal.is_float and not self.unit
        return self.labels == "auto" and bool(signal.choices) and alone

    @property
    def choices(self) -> Sequence[str]:
        """The labels of an enumeration, else empty."""
        if self.kind != "enumeration":
            return ()
        if self.bus is not None:
            from protocols.can.bus import BusState

            return tuple(map(str, BusState))
        return tuple(dict.fromkeys(self.bound[1].choices.values()))

    def typed(self, value: Any) -> Value:
        """Extends `Point.typed`: of a signal that is not known yet no value is wrong.

        Raises:
            Refused: `bad-type`, or `out-of-range` for a label that an enumeration does not have.
        """
        if self.bus is None and not self.is_bound and isinstance(value, bool | int | float | str):
            return value
        return super().typed(value)

    def accept(self, value: Any) -> Value:
        """Extends `Point.accept` by what the signal can hold and by the limits of the database.

        A number that rounding would carry over a limit is refused, so that `min` and `max` hold for what
        is sent.

        Raises:
            Refused: `read-only`, `bad-type` or `out-of-range`.
        """
        good = super().accept(value)
        if not self.is_bound:
            return good
        _, signal = self.bound
        raw = self._raw(good)
        if self.kind in ("integer", "number"):
            self._check_limits(good)
            if not signal.is_float:
                rounded = exact_value(signal, int(raw))
                if rounded != good:
                    super().accept(rounded)
        return good

    def _raw(self, value: Value) -> int | float:
        _, signal = self.bound
        try:
            raw = raw_of(signal, value)
        except ValueError as error:
            raise Refused("out-of-range", f"{self.name} = {value!r:.60} does not fit: {error}") from None
        if self.kind in ("integer", "number") and self.labels != "no" and not signal.is_float:
            label = signal.choices.get(int(raw))
            if label is not None:
                text = f"{self.name} = {value!r:.60} is no value: its code means {label!r}"
                raise Refused("out-of-range", text)
        return raw

    def _check_limits(self, good: Value) -> None:
        _, signal = self.bound
        assert isinstance(good, int | float)
        slack = abs(signal.scale) * _TOLERANCE
        low, high = signal.minimum, signal.maximum
        if low is not None and good < low - slack:
            beyond = f"below the database's minimum {low:g}"
        elif high is not None and good > high + slack:
            beyond = f"above the database's maximum {high:g}"
        else:
            return
        raise Refused("out-of-range", f"{self.name} = {good} is {beyond} {self.unit}".rstrip())

    def meaning(self, value: Value) -> Value:
        """The value that is read back after this one was written: rounded as its bits round it.

        Raises:
            Refused: `out-of-range`: the signal cannot hold it.
        """
        raw = self._raw(value)
        match self.kind:
            case "enumeration":
                return value
            case "boolean":
                return bool(raw)
            case _:
                return scaled_value(self.bound[1], raw)
