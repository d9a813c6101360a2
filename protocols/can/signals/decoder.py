"""Payload bytes to values: for each message, Python of its own that is generated once. Pure.

What is generated is a straight line: each signal is a shift and a mask of a byte, or of a number of up to 8
bytes around it; multiplexed ones stand in branches. Nothing that a file says gets into that text but numbers:
names and labels are bound as objects. Values are those of cantools' `decode`, by value and type.
"""

import math
import struct
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from protocols.base import Quality, Value
from protocols.can.signals.database import Message, Signal

if TYPE_CHECKING:
    from protocols.can.point import CanPoint

FLOATS: Final = {16: ">e", 32: ">f", 64: ">d"}
"""Format of `struct` of a float of so many bits, the most significant first."""
_WINDOW: Final = 8
"""Bytes that are made one number at most: shifting longer ones costs more than making two."""

Decode = Callable[[bytes], dict[Any, Value]]
DecodePoints = Callable[[bytes], tuple[dict[str, Value], dict[str, Quality]]]


def compile_decoder(message: Message, wanted: Mapping[str, Hashable]) -> Decode:
    """A decoder of some signals of a message; `wanted` says under which key each is in its result.

    Equal to `decode(data, allow_truncated=True)` of cantools: integers stay exact where scale and offset are
    integers; a raw value that has a label becomes it. Signals that the payload does not hold whole, or that
    its multiplexers do not select, are not in the result; of a payload that is too long the rest is ignored.
    Where cantools refuses a frame, for a multiplexer value that the file does not know, the rest is decoded.
    What selects is a multiplexer's raw value (cantools takes the scaled one).
    """
    fields = [_Field(key, message.signals[name], "signal") for name, key in wanted.items()]
    decode: Decode = _compile(message, fields)
    return decode


def compile_points(message: Message, points: Sequence["CanPoint"]) -> DecodePoints:
    """A decoder of points that are signals of a message: good values by name, and why others have none.

    Points that are not in the frame, by its multiplexers, are in neither. Bad are: `out-of-range`, a code
    that has no label; `device-error`, a number whose code has a label, such as one for "not available", and
    all that a payload is too short for; `not-a-number`, a float that is none or infinite.
    """
    fields = [_Field(point.name, point.bound[1], _way(point)) for point in points]
    decode: DecodePoints = _compile(message, fields, qualities=True)
    return decode


_Way = Literal["signal", "boolean", "label", "number", "labelled", "float", "cut"]
"""How a raw value becomes a point's: `labelled` is a number of which some codes have labels; for one that is
`cut` the payload is too short."""


class _Field(NamedTuple):
    key: Hashable
    signal: Signal
    way: _Way

    @property
    def always_good(self) -> bool:
        if self.way == "label":
            return len(self.signal.choices) == 1 << self.signal.length and self.signal.choices.keys() == set(
                range(self.signal.raw_range[0], self.signal.raw_range[1] + 1)
            )
        return self.way in ("signal", "boolean", "number")


def _way(point: "CanPoint") -> _Way:
    _, signal = point.bound
    match point.kind:
        case "boolean":
            return "boolean"
        case "enumeration":
            return "label"
        case _ if signal.is_float:
            return "float"
        case _ if signal.choices and point.labels != "no":
            return "labelled"
        case _:
            return "number"


def route(message: Message, signal: Signal) -> Sequence[tuple[Signal, frozenset[int]]] | None:
    """The multiplexers that select a signal, the outermost first, and their raw values that do.

    None: no frame has it, for what the file says of its multiplexers leads nowhere.
    """
    steps: list[tuple[Signal, frozenset[int]]] = []
    while signal.selector is not None:
        selector = message.signals.get(signal.selector)
        if selector is None or not selector.is_multiplexer or not signal.selected_by:
            return None
        if len(steps) > len(message.signals):  # they select one another
            return None
        steps.append((selector, signal.selected_by))
        signal = selector
    return steps[::-1]


def _compile(
    message: Message, fields: Sequence[_Field], *, qualities: bool = False
) -> Callable[[bytes], Any]:
    shorter: dict[int, Callable[[bytes], Any]] = {}

    def other(data: bytes) -> Any:
        if len(data) > message.length:
            return whole(data[: message.length])
        if len(data) not in shorter:
            shorter[len(data)] = _Writer(message, len(data), fields, qualities, other).function()
        return shorter[len(data)](data)

    whole = _Writer(message, message.length, fields, qualities, other).function()
    return whole


class _Branch:
    """What is decoded where some multiplexer values were met."""

    def __init__(self) -> None:
        self.fields: list[_Field] = []
        self.inner: dict[str, dict[frozenset[int], _Branch]] = {}


class _Writer:
    """Writes the function that decodes payloads of one length."""

    def __init__(
        self,
        message: Message,
        length: int,
        fields: Iterable[_Field],
        qualities: bool,
        other: Callable[[bytes], Any],
    ) -> None:
        self._message = message
        self._length = length
        self._qualities = qualities
        self._lines = ["def decode(data):", f" if len(data) != {length}: return other(data)"]
        self._bound: dict[str, Any] = {
            "other": other,
            "number": int.from_bytes,
            "isfinite": math.isfinite,
            **{f"bad_{quality.name}": quality for quality in Quality},
        }
        self._root = _Branch()
        present = [field for field in fields if self._place(field)]
        parts = [field.signal for field in present]
        parts += [selector for part in parts for selector, _ in route(message, part) or ()]
        self._windows = _windows(filter(self._present, parts), length)
        self._may_be_bad = qualities and not all(field.always_good for field in present)

    def _place(self, field: _Field) -> bool:
        """Puts a field where its multiplexers want it; False: a payload of this length has it never."""
        steps = route(self._message, field.signal)
        if steps is None or not self._message.holds(field.signal):
            return False
        if not all(map(self._present, (field.signal, *(selector for selector, _ in steps)))):
            if not self._qualities:
                return False
            field = field._replace(way="cut")
        branch = self._root
        for selector, values in steps:
            if not self._present(selector):
                break
            branch = branch.inner.setdefault(selector.name, {}).setdefault(values, _Branch())
        branch.fields.append(field)
        return True

    def _present(self, signal: Signal) -> bool:
        return signal.end_bit <= 8 * self._length

    def function(self) -> Callable[[bytes], Any]:
        self._branch(self._root, 1, frozenset(), root=True)
        self._line(1, "return values, bad" if self._qualities else "return values")
        namespace = self._bound
        exec("\n".join(self._lines), namespace)
        decode: Callable[[bytes], Any] = namespace["decode"]
        return decode

    def _line(self, depth: int, text: str) -> None:
        self._lines.append(" " * depth + text)

    def _bind(self, thing: Any) -> str:
        name = f"o{len(self._bound)}"
        self._bound[name] = thing
        return name

    def _branch(self, branch: _Branch, depth: int, made: frozenset[str], *, root: bool = False) -> None:
        selectors = [self._message.signals[name] for name in branch.inner]
        made = self._make_windows([field.signal for field in branch.fields] + selectors, depth, made)
        good = [field for field in branch.fields if field.always_good]
        pairs = ", ".join(f"{self._bind(field.key)}: {self._good(field)}" for field in good)
        if root:
            self._line(depth, f"values = {{{pairs}}}")
            if self._qualities:
                self._line(depth, "bad = {}" if self._may_be_bad else f"bad = {self._bind({})}")
        else:
            for field in good:
                self._line(depth, f"values[{self._bind(field.key)}] = {self._good(field)}")
        for field in branch.fields:
            if not field.always_good:
                self._judge(field, depth)
        for selector in selectors:
            raw = f"m{depth}"
            self._line(depth, f"{raw} = {self._raw(selector)}")
            for values, inner in branch.inner[selector.name].items():
                one = f"== {next(iter(values))}" if len(values) == 1 else f"in {self._bind(values)}"
                self._line(depth, f"if {raw} {one}:")
                self._branch(inner, depth + 1, made)

    def _judge(self, field: _Field, depth: int) -> None:
        """Lines that put a field among the good or the bad ones."""
        signal, key = field.signal, self._bind(field.key)
        if field.way == "cut":
            self._line(depth, f"bad[{key}] = bad_DEVICE_ERROR")
            return
        if field.way == "label":
            self._line(depth, f"x = {self._bind(dict(signal.choices).get)}({self._raw(signal)})")
            bad, quality, value = "x is None", "OUT_OF_RANGE", "x"
        elif field.way == "labelled":
            self._line(depth, f"x = {self._raw(signal)}")
            bad, quality = f"x in {self._bind(frozenset(signal.choices))}", "DEVICE_ERROR"
            value = _scaled(signal, "x")
        else:
            self._line(depth, f"x = {_scaled(signal, self._raw(signal))}")
            bad, quality, value = "not isfinite(x)", "NOT_A_NUMBER", "x"
        self._line(depth, f"if {bad}: bad[{key}] = bad_{quality}")
        self._line(depth, f"else: values[{key}] = {value}")

    def _good(self, field: _Field) -> str:
        """The value of a field that has one whatever the bits are."""
        signal, raw = field.signal, self._raw(field.signal)
        if field.way == "boolean":
            return f"{raw} != 0"
        if field.way == "label":
            return f"{self._bind(dict(signal.choices))}[{raw}]"
        if field.way == "number" or not signal.choices:
            return _scaled(signal, raw)
        label = self._bind(_float_label(signal) if signal.is_float else dict(signal.choices).get)
        return f"x if (x := {label}(r := {raw})) is not None else {_scaled(signal, 'r')}"

    def _raw(self, signal: Signal) -> str:
        """The raw value, in parentheses where it is more than a name or a call."""
        if signal.is_float:
            layout = FLOATS[signal.length]
            if signal.first_bit % 8 == 0:
                layout = layout.replace(">", "<") if signal.little else layout
                return f"{self._bind(struct.Struct(layout).unpack_from)}(data, {signal.first_bit // 8})[0]"
            unpack = self._bind(struct.Struct(layout).unpack)
            return f"{unpack}({self._bits(signal)}.to_bytes({signal.length // 8}))[0]"
        if signal.signed:
            sign = 1 << (signal.length - 1)
            return f"(({self._bits(signal)} ^ {sign}) - {sign})"
        return self._bits(signal)

    def _bits(self, signal: Signal) -> str:
        """The signal's bits as a number."""
        if _in_one_byte(signal):
            name, first, size = f"data[{signal.first_bit // 8}]", signal.first_bit // 8 * 8, 8
        else:
            window = self._windows[signal.name]
            name, first, size = window.name, 8 * window.first, 8 * (window.end - window.first)
        shift = signal.start - first if signal.little else first + size - signal.end_bit
        shifted = f"{name} >> {shift}" if shift else name
        masked = f"{shifted} & {(1 << signal.length) - 1}" if shift + signal.length < size else shifted
        return masked if masked == name else f"({masked})"

    def _make_windows(self, signals: Iterable[Signal], depth: int, made: frozenset[str]) -> frozenset[str]:
        for signal in signals:
            window = self._windows.get(signal.name)
            if window is None or window.name in made:
                continue
            whole = (window.first, window.end) == (0, self._length)
            part = "data" if whole else f"data[{window.first}:{window.end}]"
            self._line(depth, f"{window.name} = number({part}, '{'little' if window.little else 'big'}')")
            made |= {window.name}
        return made


class _Window(NamedTuple):
    """Bytes from `first` to before `end`, as one number."""

    name: str
    little: bool
    first: int
    end: int


def _windows(signals: Iterable[Signal], length: int) -> Mapping[str, _Window]:
    """The window of each signal that is not in one byte; few of them serve all."""
    windows: dict[str, _Window] = {}
    in_order = sorted(signals, key=lambda signal: signal.first_bit)
    for little in (True, False):
        group: list[Signal] = []
        for signal in in_order:
            if signal.little == little and not _in_one_byte(signal):
                if group and length > _WINDOW and _bytes_of([*group, signal])[1] > _WINDOW:
                    windows |= _window(group, length)
                    group = []
                group.append(signal)
        windows |= _window(group, length)
    return windows


def _bytes_of(signals: Sequence[Signal]) -> tuple[int, int]:
    """The first byte of signals, and how many from there on hold them."""
    first = min(signal.first_bit for signal in signals) // 8
    return first, (max(signal.end_bit for signal in signals) + 7) // 8 - first


def _window(group: Sequence[Signal], length: int) -> Mapping[str, _Window]:
    if not group:
        return {}
    first, size = _bytes_of(group) if length > _WINDOW else (0, length)
    little, end = group[0].little, first + size
    # Two windows may begin at one byte: where a signal of 64 bits lies across nine.
    window = _Window(f"{'n' if little else 'b'}{first}_{end}", little, first, end)
    return {signal.name: window for signal in group}


def _in_one_byte(signal: Signal) -> bool:
    return signal.first_bit // 8 == (signal.end_bit - 1) // 8


def _scaled(signal: Signal, raw: str) -> str:
    """What cantools makes of a raw value that has no label."""
    if signal.scale == 1 and signal.offset == 0:
        return raw
    product = raw if signal.scale == 1 else f"{raw} * {_literal(signal.scale)}"
    # Adding nothing makes 0.0 of -0.0, which an integer times a positive scale never is.
    if signal.offset == 0 and not signal.is_float and signal.scale > 0:
        return product
    return f"{product} + {_literal(signal.offset)}"


def _literal(number: float | int) -> str:
    """A number as it is written in Python.

    Raises:
        ValueError: it is none.
    """
    if type(number) not in (int, float) or not math.isfinite(number):
        raise ValueError(f"{number!r} is no factor or offset of a signal")
    return f"({number!r})" if number < 0 else repr(number)


def _float_label(signal: Signal) -> Callable[[float], str | None]:
    """Looks a float up among labels: by what is before its point, as cantools does."""
    choices = dict(signal.choices)

    def label(raw: float) -> str | None:
        return choices.get(int(raw)) if math.isfinite(raw) else None

    return label
