"""The `sim:` section of a device: what each of its points does when the device is simulated.

Independent of the protocol: a behaviour gives engineering values, the protocol's simulator encodes them.
"""

import dataclasses
import difflib
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from protocols.base import DeviceConfig, Kind, Name, Point, Refused, Value
from protocols.units import WRITTEN, Duration
from sim import waveforms
from sim.record import read_record


def _plain(raw: Any) -> Any:
    if isinstance(raw, bool | int | str) or (isinstance(raw, float) and math.isfinite(raw)):
        return raw
    if isinstance(raw, Mapping):
        return {str(key): _plain(part) for key, part in raw.items()}
    if isinstance(raw, list):
        return [_plain(part) for part in raw]
    raise ValueError("a value is a finite number, a boolean, a text, or a list or map of such")


_Value = Annotated[Value, BeforeValidator(_plain)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Periodic(_Part):
    """What all periodic waves have."""

    period: Duration = Field(gt=0, description="Time from one beginning to the next.")
    phase: float = Field(0.0, description="Degrees by which the wave is ahead.")


class Ramp(Periodic):
    """A sawtooth."""

    start: float = Field(alias="from")
    end: float = Field(alias="to")


class Sine(Periodic):
    """A sine between two values."""

    min: float
    max: float


class Square(Periodic):
    """Two values in turn."""

    low: _Value = False
    high: _Value = True
    duty: float = Field(0.5, ge=0, le=1, description="Share of the period that is high; it comes first.")


class Walk(_Part):
    """A random walk between two values."""

    min: float
    max: float
    step: float = Field(gt=0, description="Standard deviation of the change in one interval.")
    interval: Duration = Field(0.1, gt=0, description="Time from step to step.")
    start: float | None = Field(None, description="First value; the middle by default.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min < self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        if self.start is not None and not self.min <= self.start <= self.max:
            raise ValueError(f"start {self.start:g} is not between min and max")
        return self


class Playback(_Part):
    """Values from a CSV file with a header line."""

    file: str = Field(min_length=1, description="Path of the file, relative to the profile.")
    column: str = Field(description="Header of the column with the values.")
    time: str | None = Field(None, description="Header of the column with the times, in seconds.")
    interval: Duration | None = Field(None, gt=0, description="Time from row to row, where no column has it.")
    loop: bool = Field(True, description="Start again at the end; else the last value stays.")

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.time is None) == (self.interval is None):
            raise ValueError("give either `time` (a column, in seconds) or `interval` (such as 100ms)")
        return self


_SOURCES = ("constant", "ramp", "sine", "square", "walk", "csv", "follow")


class Spec(_Part):
    """What one point does: one source, and noise on top.

    A bare value is short for `{constant: value}`, except for one that is itself a map.
    """

    constant: _Value | None = Field(None, description="Stays; long for a bare value, where noise is wanted.")
    ramp: Ramp | None = Field(None, description="Rises from one value to another, again and again.")
    sine: Sine | None = Field(None, description="Swings between two values.")
    square: Square | None = Field(None, description="Two values in turn.")
    walk: Walk | None = Field(None, description="Moves at random between two values.")
    csv: Playback | None = Field(None, description="Plays back a recording.")
    follow: Name | None = Field(None, description="Goes to what was written to this point of the device.")
    tau: Duration = Field(0.0, ge=0, description="With follow: time constant of the first-order lag.")
    gain: float = Field(1.0, description="With follow: factor on the followed value.")
    offset: float = Field(0.0, description="With follow: added to the followed value.")
    noise: float = Field(0.0, ge=0, description="Uniform noise within plus or minus this.")
    seed: int | None = Field(None, ge=0, description="Of noise and walk; from the point's name by default.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, raw: Any) -> Any:
        return {"constant": raw} if isinstance(raw, bool | int | float | str | list) else raw

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"; got {' and '.join(given)}" if given else ""
            raise ValueError(f"give a value or one of {', '.join(_SOURCES)}{found}")
        stray = self.model_fields_set & {"tau", "gain", "offset"}
        if self.follow is None and stray:
            raise ValueError(f"{', '.join(sorted(stray))} only goes with follow")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": ["boolean", "number", "string", "array"]}, schema]}


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """One point's behaviour, ready to run; time is in seconds since the simulation began."""

    at: Callable[[float], Value]
    """The value at a time, of the point's kind."""
    steady: bool
    """The value stays the same until it is written."""
    follows: str | None = None
    """The point whose writes this one follows."""
    aim: Callable[[float, float], None] = lambda t, value: None
    """Tells a following point to what value the other one was written, and when."""


class _BehaviourError(ValueError):
    """A behaviour that does not suit its point; `loc` is where in the behaviour."""

    def __init__(self, message: str, *loc: str) -> None:
        super().__init__(message)
        self.loc = loc


def behaviours(device: DeviceConfig) -> dict[str, Behaviour]:
    """The behaviour of every point of the device.

    One that `sim` does not name holds its safe value, else zero or a first label; such a string is left out.
    One that follows another sets out for the value that the other one begins with.

    Raises:
        ValidationError: everything that is wrong with the device's `sim`, with locations relative to it.
    """
    made = {name: start for name, point in device.points.items() if (start := _start(point)) is not None}
    errors: list[InitErrorDetails] = []
    for name, raw in device.sim.items():
        try:
            made[name] = _behaviour(device, name, Spec.model_validate(raw, context=WRITTEN))
        except ValidationError as error:
            errors += (_detail(e["type"], e["msg"], (name, *e["loc"]), e["input"]) for e in error.errors())
        except _BehaviourError as wrong:
            errors.append(_detail("behaviour", str(wrong), (name, *wrong.loc), raw))
    if errors:
        raise ValidationError.from_exception_data("sim", errors)
    for behaviour in made.values():
        if behaviour.follows is not None:
            first = made[behaviour.follows].at(0.0)
            assert isinstance(first, int | float)  # only numbers and booleans are followed
            behaviour.aim(0.0, first)
    return made


def _detail(kind: str, message: str, loc: tuple[int | str, ...], raw: Any) -> InitErrorDetails:
    literal = message.replace("{", "{{").replace("}", "}}")
    return InitErrorDetails(type=PydanticCustomError(kind, literal), loc=loc, input=raw)


def _start(point: Point) -> Behaviour | None:
    value: Value | None = point.safe
    if value is None:
        match point.kind:
            case "boolean":
                value = False
            case "integer" | "number":
                low = 0 if point.min is None else max(point.min, 0)
                value = low if point.max is None else min(point.max, low)
            case "enumeration":
                value = point.choices[0]
            case "array":
                value = []
            case "object":
                value = {}
    if value is None:
        return None
    if point.kind == "integer" and isinstance(value, float):
        value = round(value)
    return Behaviour(waveforms.constant(value), steady=True)


def _behaviour(device: DeviceConfig, name: str, spec: Spec) -> Behaviour:
    point = _point(device, name)
    seed = zlib.crc32(f"{device.name}.{name}".encode()) if spec.seed is None else spec.seed
    if point.writable and (spec.constant is None or spec.noise):
        raise _BehaviourError(
            "a writable point keeps what is written to it; give it a start value only", *_what(spec)
        )
    if spec.noise and point.kind not in ("integer", "number"):
        raise _BehaviourError(f"a point of type {point.kind} has no noise", "noise")
    if spec.follow is not None:
        return _following(device, point, spec, seed)
    wave = _wave(device, point, spec, seed)
    return Behaviour(
        _finish(point.kind, wave, spec, seed), steady=spec.constant is not None and not spec.noise
    )


def _what(spec: Spec) -> tuple[str, ...]:
    return tuple(name for name in (*_SOURCES[1:], "noise") if getattr(spec, name))[:1]


def _point(device: DeviceConfig, name: str, *loc: str) -> Point:
    if name in device.points:
        return device.points[name]
    near = difflib.get_close_matches(name, device.points, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(list(device.points)[:10])}"
    raise _BehaviourError(f"no point is called {name!r}; {hint}", *loc)


def _following(device: DeviceConfig, point: Point, spec: Spec, seed: int) -> Behaviour:
    assert spec.follow is not None
    followed = _point(device, spec.follow, "follow")
    if not followed.writable:
        raise _BehaviourError(
            f"{spec.follow!r} is not writable (access: {followed.access}); follow one that is", "follow"
        )
    for one in (point, followed):
        if one.kind not in ("boolean", "integer", "number"):
            raise _BehaviourError(
                f"follow needs numbers or booleans, and {one.name!r} is a {one.kind}", "follow"
            )
    lag = waveforms.Lag(spec.tau, spec.offset)
    gain, offset = spec.gain, spec.offset
    return Behaviour(
        _finish(point.kind, lag, spec, seed),
        steady=False,
        follows=spec.follow,
        aim=lambda t, value: lag.aim(t, gain * value + offset),
    )


def _wave(device: DeviceConfig, point: Point, spec: Spec, seed: int) -> Callable[[float], Any]:
    """The spec's source, after its extreme values were checked against what the point can hold."""
    if spec.constant is not None:
        return waveforms.constant(_held(point, spec.constant))
    if spec.square is not None:
        low, high = (
            _held(point, spec.square.low, "square", "low"),
            _held(point, spec.square.high, "square", "high"),
        )
        return waveforms.square(low, high, spec.square.period, spec.square.duty, spec.square.phase)
    if spec.csv is not None:
        return _playback(device, point, spec.csv)
    if point.kind not in ("integer", "number"):
        raise _BehaviourError(f"a point of type {point.kind} takes a constant, square or csv", *_what(spec))
    if spec.ramp is not None:
        start, end = _held(point, spec.ramp.start, "ramp", "from"), _held(point, spec.ramp.end, "ramp", "to")
        return waveforms.ramp(start, end, spec.ramp.period, spec.ramp.phase)
    if spec.sine is not None:
        low, high = _held(point, spec.sine.min, "sine", "min"), _held(point, spec.sine.max, "sine", "max")
        return waveforms.sine(low, high, spec.sine.period, spec.sine.phase)
    assert spec.walk is not None
    low, high = _held(point, spec.walk.min, "walk", "min"), _held(point, spec.walk.max, "walk", "max")
    start = (low + high) / 2 if spec.walk.start is None else spec.walk.start
    return waveforms.walk(start, spec.walk.step, spec.walk.interval, low, high, seed + 1)


def _playback(device: DeviceConfig, point: Point, spec: Playback) -> Callable[[float], Any]:
    try:
        record = read_record(device.folder / spec.file, spec.column, spec.time, spec.interval, point.kind)
    except ValueError as error:
        raise _BehaviourError(str(error), "csv") from None
    extremes = (
        {min(record.values), max(record.values)}
        if point.kind in ("integer", "number")
        else set(record.values)
    )
    for value in extremes:
        _held(point, value, "csv", "column")
    return waveforms.playback(record.times, record.values, record.end, spec.loop)


def _held(point: Point, value: Value, *loc: str) -> Any:
    """The value, if the point can hold it; its limits are for commands, so they do not count here."""
    free = point.model_copy(update={"access": "rw", "min": None, "max": None})
    if point.kind == "integer" and isinstance(value, float):
        value = round(value)
    try:
        return free.accept(value)
    except Refused as refused:
        raise _BehaviourError(str(refused), *loc) from None


def _finish(kind: Kind, wave: Callable[[float], Any], spec: Spec, seed: int) -> Callable[[float], Value]:
    """The wave with its noise, as a value of the point's kind."""
    if spec.noise:
        wave = waveforms.total(wave, waveforms.noise(spec.noise, seed))
    if kind == "integer":
        return lambda t: round(wave(t))
    if kind == "boolean":
        return lambda t: wave(t) >= 0.5
    return wave
