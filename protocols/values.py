"""Points whose type the profile states, since the protocol's own values are JSON's or a text's. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

from pydantic import Field, model_validator

from protocols.base import Kind, Point, Quality, Refused, Scalar, Value
from protocols.mistakes import Wrong, raise_all

_TRUE = (True, 1, "1", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = (False, 0, "0", "false", "False", "FALSE", "off", "Off", "OFF")
_BIG = 1e30  # keeps every scaled value far inside what a float can hold
_DIGITS = 4000  # Python refuses to read longer integers


class TypedPoint(Point):
    """A point that says what its values are: `engineering` takes the device's, `raw` gives them back."""

    type: Kind = Field("number", description="What the point's values are.")
    labels: Mapping[str, str] | Mapping[int, str] | None = Field(
        None, description="Of an enumeration: what the device says, and the label that consumers see."
    )
    scale: float = Field(1.0, description="value = raw * scale + offset")
    offset: float = Field(0.0, ge=-_BIG, le=_BIG, description="value = raw * scale + offset")
    true_as: Scalar | None = Field(
        None, description="Of a boolean: what the device says for true; by default true, 1 or ON in any case."
    )
    false_as: Scalar | None = Field(None, description="Of a boolean: what the device says for false.")

    @model_validator(mode="after")
    def _well_typed(self) -> Self:
        raise_all(type(self).__name__, self.mistakes())
        return self

    def mistakes(self) -> Iterator[Wrong]:
        """What is wrong with the point by itself; a protocol's point adds to it."""
        if (self.type == "enumeration") != (self.labels is not None):
            yield ("labels",), "an enumeration needs labels, and nothing else has them"
        if self.labels is not None and (not self.labels or len(set(self.labels.values())) < len(self.labels)):
            yield ("labels",), "give at least one label, each of them once"
        if self.type not in ("number", "integer") and (self.scale, self.offset) != (1, 0):
            yield ("scale" if self.scale != 1 else "offset",), f"a {self.type} is not scaled"
        if not 1 / _BIG <= abs(self.scale) <= _BIG:
            yield ("scale",), f"the size of scale must be from {1 / _BIG:g} to {_BIG:g}"
        if self.type != "boolean" and (self.true_as is not None or self.false_as is not None):
            yield ("true_as" if self.true_as is not None else "false_as",), f"a {self.type} is not a boolean"
        if (self.true_as is None) != (self.false_as is None):
            yield ("true_as",), "give true_as and false_as together"

    @property
    def kind(self) -> Kind:
        """The JSON type of the point's values."""
        return self.type

    @property
    def choices(self) -> Sequence[str]:
        """The labels of an enumeration, else empty."""
        return tuple((self.labels or {}).values())

    @cached_property
    def _by_raw(self) -> Mapping[str, str]:
        return {str(raw): label for raw, label in (self.labels or {}).items()}

    @cached_property
    def _by_label(self) -> Mapping[str, str | int]:
        return {label: raw for raw, label in (self.labels or {}).items()}

    @cached_property
    def _exact(self) -> tuple[Fraction, Fraction] | None:
        """Scale and offset as they are written in decimal, where they change anything."""
        if (self.scale, self.offset) == (1, 0):
            return None
        return Fraction(repr(self.scale)), Fraction(repr(self.offset))

    def engineering(self, raw: Any) -> Value | Quality:
        """The point's value of what the device said: a value as JSON has them, or a text.

        What is not of the point's type is `bad-config`, an unknown label `out-of-range`, NaN or infinity
        `not-a-number`. Never raises.
        """
        match self.type:
            case "number":
                return self._number(raw)
            case "integer":
                return self._integer(raw)
            case "boolean":
                return self._boolean(raw)
            case "enumeration" if isinstance(raw, str | int):
                text = str(int(raw)) if isinstance(raw, bool) else str(raw)
                return self._by_raw.get(text, Quality.OUT_OF_RANGE)
            case "string" if isinstance(raw, str):
                return raw
            case "array" if isinstance(raw, list):
                return raw
            case "object" if isinstance(raw, dict):
                return raw
        return Quality.BAD_CONFIG

    def raw(self, value: Value) -> Any:
        """What the device is told for a value that `accept` has passed.

        Raises:
            Refused: `out-of-range`: no raw value means it.
        """
        match self.type:
            case "number" | "integer" if self._exact is not None and isinstance(value, int | float):
                scale, offset = self._exact
                exact = (Fraction(value if isinstance(value, int) else repr(value)) - offset) / scale
                try:
                    nearest = float(exact)
                except OverflowError:
                    raise Refused("out-of-range", f"{self.name} = {value:g} is beyond any number") from None
                return int(exact) if exact.denominator == 1 else nearest
            case "boolean" if self.true_as is not None:
                return self.true_as if value else self.false_as
            case "enumeration":
                return self._by_label[str(value)]
        return value

    def _number(self, raw: Any) -> Value | Quality:
        if isinstance(raw, str):
            raw = _parsed(raw)
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            return Quality.BAD_CONFIG
        return self._scaled(raw)

    def _integer(self, raw: Any) -> Value | Quality:
        value = self._number(raw)
        if isinstance(value, float):
            return int(value) if value.is_integer() else Quality.BAD_CONFIG
        return value

    def _scaled(self, raw: int | float) -> int | float | Quality:
        if isinstance(raw, float) and not math.isfinite(raw):
            return Quality.NOT_A_NUMBER
        if self._exact is None:
            return raw
        if isinstance(raw, float):
            value = raw * self.scale + self.offset
            return value if math.isfinite(value) else Quality.NOT_A_NUMBER
        scale, offset = self._exact
        exact = raw * scale + offset
        try:
            return int(exact) if exact.denominator == 1 and self.type == "integer" else float(exact)
        except OverflowError:
            return Quality.NOT_A_NUMBER

    def _boolean(self, raw: Any) -> bool | Quality:
        if self.true_as is not None:
            said = str(raw) if isinstance(raw, str) else raw
            for meant, value in ((self.true_as, True), (self.false_as, False)):
                if said == meant or (isinstance(said, str) and said == str(meant)):
                    return value
            return Quality.OUT_OF_RANGE
        if isinstance(raw, str | int) and raw in _TRUE:
            return True
        return False if isinstance(raw, str | int) and raw in _FALSE else Quality.BAD_CONFIG


def _parsed(text: str) -> int | float | None:
    """A number written in decimal, as instruments write them; None if it is none."""
    text = text.strip()
    if "_" in text or len(text) > _DIGITS:
        return None  # Python reads 1_000, nothing else does
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None
