"""What a profile says of a point of an outstation, and how its values are turned into raw ones and back."""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.base import Kind, Name, Point, Quality, Refused, Value, number
from protocols.dnp3.objects import (
    DOUBLE_BIT,
    INDICES,
    LAYOUTS,
    STATIC_GROUP,
    VARIATIONS,
    AnalogOutput,
    PointType,
)
from protocols.mistakes import Wrong, raise_all
from protocols.units import Duration

_BIG = 1e30  # keeps every scaled value far inside what a float can hold
_NUMBERS: Final = ("counter", "frozen_counter", "analog_input", "analog_output")
_OUTPUTS: Final = ("binary_output", "analog_output")
_RANGES: Final[Mapping[AnalogOutput, int]] = {"int16": 2**15, "int32": 2**31}

Operation = Literal["latch", "pulse", "pulse-on", "trip-close"]
Mode = Literal["select", "direct", "direct-no-ack"]


class Linear:
    """value = raw * scale + offset; of whole numbers by the decimal text of both, so that 3 at 0.1 is 0.3."""

    def __init__(self, scale: float, offset: float) -> None:
        self.scale, self.offset = scale, offset
        self._factor, self._shift = Fraction(repr(scale)), Fraction(repr(offset))
        q = math.lcm(self._factor.denominator, self._shift.denominator)
        self.whole = int(self._factor * q), int(self._shift * q), q
        """p, o and q of value = (raw * p + o) / q, where raw is whole."""

    def raw(self, value: int | float) -> Fraction:
        """The number, rounded nowhere, whose value this is."""
        exact = Fraction(value) if isinstance(value, int) else Fraction(repr(value))
        return (exact - self._shift) / self._factor


def scaled(scales: Sequence[Linear], raws: Sequence[int] | Sequence[float]) -> list[float]:
    """The values of as many raw numbers of one type; of huge floats they may be infinite."""
    if isinstance(raws[0], float):
        return [raw * one.scale + one.offset for raw, one in zip(raws, scales, strict=False)]
    return [(raw * p + o) / q for raw, (p, o, q) in zip(raws, [one.whole for one in scales], strict=False)]


class Feedback(BaseModel):
    """The point that shows whether a control did what it should."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    point: Name = Field(description="A readable point of the same device.")
    within: Duration = Field(gt=0, le=3600, description="How long the field may take to follow.")
    tolerance: float = Field(0.0, ge=0, description="Of numbers: by how much they may differ.")


class Dnp3Point(Point):
    """One point of an outstation: a kind and an index."""

    type: PointType = Field(
        description="Kind of point. Outputs read as their status and are written by controls."
    )
    index: int = Field(ge=0, lt=INDICES, description="As the outstation's point list has it; from 0.")
    field: Literal["value", "flags"] = Field(
        "value",
        description="flags: the names of its quality flags that are set, such as `online local-forced`.",
    )
    variation: int | None = Field(
        None, ge=1, le=255, description="Static variation to ask for; default: what the outstation gives."
    )
    scale: float = Field(1.0, description="value = raw * scale + offset")
    offset: float = Field(0.0, ge=-_BIG, le=_BIG, description="value = raw * scale + offset")
    encoding: Literal["utf-8", "latin-1", "hex"] = Field(
        "utf-8", description="Of octet strings: text (zeros at its end are dropped), or hex."
    )
    mode: Mode = Field("select", description="select: select before operate; direct-no-ack is not answered.")
    operation: Operation = Field(
        "latch",
        description="What true and false are: latch on/off, pulse on/off, close/trip; pulse-on takes true.",
    )
    on_time: Duration = Field(0.1, ge=0, le=4294967, description="How long a pulse is on.")
    off_time: Duration = Field(0.0, ge=0, le=4294967, description="How long it is off before the next.")
    count: int = Field(1, ge=1, le=255, description="How often the control is repeated.")
    clear: bool = Field(False, description="Cancel what is queued at the point first.")
    output: AnalogOutput = Field("float32", description="What an analog output is sent as.")
    feedback: Feedback | None = Field(None, description="Verify each write by another point.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.type not in _OUTPUTS and self.access != "ro":
            yield (
                ("access",),
                f"{self.type} can only be read; controls go to binary_output or analog_output",
            )
        if self.field == "flags" and (self.access != "ro" or self.type == "octet_string"):
            yield ("field",), "flags can only be read, and octet strings have none"
        known = VARIATIONS[self.type]
        if self.variation is not None and known and self.variation not in known:
            yield ("variation",), f"{self.type} is read as variation {', '.join(map(str, known))}"
        elif self.field == "flags" and self.variation is not None and not self._has_flags(self.variation):
            with_flags = ", ".join(str(one) for one in known if self._has_flags(one))
            yield ("variation",), f"variation {self.variation} has no flags; those with flags: {with_flags}"
        if not 1 / _BIG <= abs(self.scale) <= _BIG:
            yield ("scale",), f"the size of scale must be from {1 / _BIG:g} to {_BIG:g}"
        yield from self._stray_mistakes()

    def _has_flags(self, variation: int) -> bool:
        layout = LAYOUTS.get((STATIC_GROUP[self.type], variation))
        return layout is not None and layout.flags

    def _stray_mistakes(self) -> Iterator[Wrong]:
        """Fields that mean nothing for this kind of point."""
        number = self.type in _NUMBERS and self.field == "value"
        control = self.type == "binary_output" and self.writable
        suits = {
            **dict.fromkeys(("scale", "offset", "min", "max"), (number, "only numbers have {}")),
            **dict.fromkeys(
                ("operation", "on_time", "off_time", "count", "clear"),
                (control, "{} is for a binary_output that may be written"),
            ),
            "output": (self.type == "analog_output" and self.writable, "{} is for a written analog_output"),
            **dict.fromkeys(("mode", "feedback"), (self.writable, "{} is for points that may be written")),
            "encoding": (self.type == "octet_string", "{} is for octet strings"),
        }
        for field, (fits, text) in suits.items():
            if not fits and field in self.model_fields_set and getattr(self, field) is not None:
                yield (field,), text.format(field)

    @property
    def kind(self) -> Kind:
        """The JSON type of the point's values."""
        if self.field == "flags" or self.type == "octet_string":
            return "string"
        if self.type == "double_bit_input":
            return "enumeration"
        if self.type in ("binary_input", "binary_output"):
            return "boolean"
        whole = self.type in ("counter", "frozen_counter") and self.scale == 1 and self.offset == 0
        return "integer" if whole else "number"

    @property
    def choices(self) -> Sequence[str]:
        """The states of a double-bit input, else empty."""
        return DOUBLE_BIT if self.kind == "enumeration" else ()

    # Values.

    def value_of(self, raw: Any) -> Value | Quality:
        """The engineering value of what the outstation sent, or why it is none. Never raises."""
        match self.type:
            case "binary_input" | "binary_output":
                return bool(raw)
            case "double_bit_input":
                return DOUBLE_BIT[raw]
            case "octet_string":
                return self._text(raw)
        if self.linear is not None:
            (raw,) = scaled((self.linear,), (raw,))
        return raw if isinstance(raw, int) or math.isfinite(raw) else Quality.NOT_A_NUMBER

    def _text(self, raw: bytes) -> str | Quality:
        if self.encoding == "hex":
            return raw.hex()
        try:
            return raw.rstrip(b"\0").decode(self.encoding)
        except UnicodeDecodeError:
            return Quality.DEVICE_ERROR

    @cached_property
    def linear(self) -> Linear | None:
        """How raw numbers become values; None where they are the values."""
        return None if self.scale == 1 and self.offset == 0 else Linear(self.scale, self.offset)

    def raw_of(self, value: Value) -> int | float:
        """What is sent for a value of an analog output, as its `output` holds it, were it of any size.

        Raises:
            OverflowError: no float of that size holds it.
        """
        wanted = value if isinstance(value, int | float) else number(value)
        raw = wanted if self.linear is None else self.linear.raw(wanted)
        if self.output in _RANGES:
            return round(raw)
        held = float(raw)
        return float(struct.unpack("<f", struct.pack("<f", held))[0]) if self.output == "float32" else held

    def meaning(self, value: Value) -> Value:
        """The value that is written when `value` is asked for: rounded as its `output` rounds."""
        if self.type != "analog_output":
            return value
        back = self.value_of(self.raw_of(value))
        return value if isinstance(back, Quality) else back

    def accept(self, value: Any) -> Value:
        """Extends `Point.accept` by what a control can carry.

        A number that rounding to a whole one would carry over a limit is refused, so that `min` and `max`
        hold for what the outstation gets.

        Raises:
            Refused: `read-only`, `bad-type` or `out-of-range`.
        """
        good = super().accept(value)
        if self.type == "binary_output":
            if self.operation == "pulse-on" and good is False:
                raise Refused(
                    "out-of-range", f"{self.name} is a pulse (operation: pulse-on): it takes true only"
                )
            return good
        if self.type != "analog_output":  # a simulated input: what it may be is the simulation's matter
            return good
        limit = _RANGES.get(self.output)
        try:
            raw = self.raw_of(good)
        except OverflowError:
            raise Refused("out-of-range", f"{self.name} = {good} does not fit {self.output}") from None
        if limit is not None and not -limit <= raw < limit:
            low, high = sorted(edge * self.scale + self.offset for edge in (-limit, limit - 1))
            text = f"{self.name} = {good} does not fit {self.output}: {low:g} to {high:g}"
            raise Refused("out-of-range", text)
        if limit is not None and (meant := self.meaning(good)) != good:
            super().accept(meant)
        return good
