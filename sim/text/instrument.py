"""One simulated instrument: what it answers to each line. Pure, but for the clock it is given."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from protocols.base import Quality, Refused, Value
from protocols.mistakes import Wrong, raise_all
from protocols.text.blocks import Block
from protocols.text.config import TextDevice
from protocols.text.plan import queries_of
from protocols.text.point import TextPoint, compiled
from protocols.text.templates import Template
from sim.behaviour import behaviours

_MOST_ERRORS = 20
_UNDEFINED = '-113,"Undefined header"'
_WRONG_TYPE = '-104,"Data type error"'
_OUT_OF_RANGE = '-222,"Data out of range"'
_OVERFLOW = '-350,"Queue overflow"'
_COMMON = ("*CLS", "*RST", "*WAI", "*OPC")
_PLACE = re.compile(r"\{([a-z0-9_-]+)(?::([^{}]*))?\}")
_SIGNS = re.compile(r"\\([^a-zA-Z0-9])|\\s\*|\\s\+|\\s|([^\\.^$*+?{}\[\]|()])")
"""What of a pattern stands for itself, or for space."""

Answer = str | bytes
"""A line, or the data of a block."""


class SimulatedInstrument:
    """Answers what the points' queries ask, keeps what is written to them, and has an error queue."""

    def __init__(self, device: TextDevice, now: Callable[[], float]) -> None:
        """Makes it of a device.

        Raises:
            pydantic.ValidationError: a `sim` section is wrong, or an answer does not follow from its pattern.
        """
        self._device = device
        self._now = now
        self._behaviours = behaviours(device)
        self._written: dict[str, Value] = {}
        self._errors: deque[str] = deque()
        self._queries = {query.command: query for query in queries_of(device, device.points.values())}
        identify = device.identify
        simulation = device.simulation
        self._fixed: dict[str, str] = {}
        if identify is not None:
            self._fixed[identify.query] = simulation.identity or f"hilgate,{device.name},0,sim"
        self._said: dict[str, str | None] = {}
        raise_all(type(device).__name__, self._mistakes())

    def _mistakes(self) -> Iterator[Wrong]:
        """Answers that the driver would not take."""
        device, simulation = self._device, self._device.simulation
        identify = device.identify
        expect = ".*" if identify is None or identify.expect is None else identify.expect
        if identify is not None and not compiled(expect).fullmatch(self._fixed[identify.query]):
            yield ("simulation", "identity"), "give one that identify: expect takes"
        if device.errors is not None and not compiled(device.errors.ok).fullmatch(simulation.no_error):
            yield ("simulation", "no_error"), "give one that errors: ok takes"
        for asked, template in simulation.answers.items():
            for match in _PLACE.finditer(template):
                if match[1] not in device.points:
                    yield ("simulation", "answers", asked), f"no point is called {match[1]!r}"
        for command, query in self._queries.items():
            if query.block_limit is not None or command in simulation.answers:
                continue
            text = self._line(query.points)
            wrong = [point.name for point in query.points if point.take(text) is Quality.DEVICE_ERROR]
            if wrong:
                why = f"an answer to {command!r} does not follow from the pattern of {wrong[0]!r}: give it"
                yield ("simulation", "answers"), why

    def answer(self, command: str, block: bytes | None = None) -> Answer | None:
        """What is said to a command; None: nothing. A block stands for the NUL in the command."""
        device = self._device
        if command in self._fixed:
            return self._fixed[command]
        if device.errors is not None and command == device.errors.query:
            return self._errors.popleft() if self._errors else device.simulation.no_error
        if command in device.simulation.answers:
            return _PLACE.sub(self._placed, device.simulation.answers[command])
        if command in self._queries:
            points = self._queries[command].points
            for point in points:
                if point.block is not None:
                    return _data(point.block, self.value(point))
            return self._line(points)
        if command == "*CLS":
            self._errors.clear()
        elif command not in _COMMON and command not in device.init:
            return self._write(command, block)
        return None

    def value(self, point: TextPoint) -> Value:
        """The point's value now."""
        if point.name in self._written:
            return self._written[point.name]
        behaviour = self._behaviours.get(point.name)
        return "" if behaviour is None else behaviour.at(self._now())

    def reports(self) -> list[str]:
        """The lines of points that report by themselves and have changed since they were last said."""
        lines = []
        for name, point in self._device.points.items():
            if point.report is None:
                continue
            line = _filled(point.report, self._text(point))
            if line is not None and line != self._said.get(name):
                self._said[name] = line
                lines.append(line)
        return lines

    def _placed(self, match: re.Match[str]) -> str:
        value = self.value(self._device.points[match[1]])
        if match[2] is None:
            return self._text(self._device.points[match[1]])
        return format(value, match[2])

    def _line(self, points: Sequence[TextPoint]) -> str:
        """One answer in which all these points find themselves, where their fields or patterns say how."""
        fields = {point.field: self._text(point) for point in points if point.field is not None}
        if fields:
            separator = next(point.separator for point in points if point.field is not None)
            return separator.join(fields.get(place, "0") for place in range(1, max(fields) + 1))
        for point in points:
            if point.pattern is not None and (line := _filled(point.pattern, self._text(point))) is not None:
                return line
        return self._text(points[0])

    def _text(self, point: TextPoint) -> str:
        """A point's value as the instrument says it."""
        value = self.value(point)
        if isinstance(value, list):
            return point.separator.join(str(item) for item in value)
        raw = point.raw(value)
        if isinstance(raw, bool):
            return "1" if raw else "0"
        text = f"{raw:.9g}" if isinstance(raw, float) else str(raw)
        if isinstance(raw, int) and point.base != 10:
            text = format(raw, {2: "b", 8: "o", 16: "X"}[point.base])
        if point.decimal_comma:
            text = text.replace(".", ",")
        if point.suffix is None or point.pattern is not None:
            return text
        if isinstance(point.suffix, str):
            return f"{text} {point.suffix}"
        unit, factor = next(iter(point.suffix.items()))
        return f"{float(raw) / factor:.9g} {unit}".rstrip()

    def _write(self, command: str, block: bytes | None) -> str | None:
        for point in self._device.points.values():
            if point.write is None:
                continue
            text = _found(point.template, command)
            if text is not None:
                return self._put(point, text, block)
        self._error(_UNDEFINED)
        return None

    def _put(self, point: TextPoint, text: str, block: bytes | None) -> str | None:
        if block is not None:
            value = point.take_block(block)
        else:
            quote = point.template.quote
            text = text.replace(quote * 2, quote) if quote else text
            value = _told(point, text)
        if isinstance(value, Quality):
            self._error(_WRONG_TYPE)
            return None
        try:
            point.accept(value)
        except Refused:
            self._error(_OUT_OF_RANGE)
            return None
        self._written[point.name] = value
        for behaviour in self._behaviours.values():
            if behaviour.follows == point.name and isinstance(value, int | float):
                behaviour.aim(self._now(), value)
        return None if point.answer is None else _filled(point.answer, "") or "OK"

    def _error(self, error: str) -> None:
        if len(self._errors) == _MOST_ERRORS:
            self._errors[-1] = _OVERFLOW
        else:
            self._errors.append(error)


def _told(point: TextPoint, text: str) -> Value | Quality:
    """The value of a written text, which has no unit and the base of its format."""
    bases: Mapping[str, object] = {"x": 16, "o": 8, "b": 2}
    base = bases.get(point.template.letter.lower(), 10)
    return point.model_copy(update={"base": base, "suffix": None}).meant(text)


def _data(block: Block, value: Value) -> bytes:
    if isinstance(value, list):
        return block.encode(value)
    return block.encode(value if isinstance(value, str) else [])


def _found(template: Template, command: str) -> str | None:
    """What stands in the place of the value; None: the command is not of the template."""
    before, after = template.before, template.after
    fits = command.startswith(before) and command.endswith(after) and len(command) >= len(before + after)
    return command[len(before) : len(command) - len(after)] if fits else None


def _filled(pattern: str, text: str) -> str | None:
    """A line of the pattern with the text in its first group; None where the pattern says too little."""
    start = pattern.find("(")
    if start < 0:
        literal = _literal(pattern)
        return literal if literal is not None and re.fullmatch(pattern, literal) else None
    depth, end = 0, len(pattern)
    for place in range(start, len(pattern)):
        if pattern[place - 1 : place] != "\\":
            depth += {"(": 1, ")": -1}.get(pattern[place], 0)
        if not depth:
            end = place
            break
    before, after = _literal(pattern[:start].lstrip("^")), _literal(pattern[end + 1 :].rstrip("$"))
    if before is None or after is None:
        return None
    line = before + text + after
    return line if re.fullmatch(pattern, line) else None


def _literal(pattern: str) -> str | None:
    """The text that a piece of a pattern stands for; None if it may stand for several."""
    text, place = "", 0
    while place < len(pattern):
        match = _SIGNS.match(pattern, place)
        if match is None:
            return None
        text += match[1] or match[2] or ("" if match[0] == r"\s*" else " ")
        place = match.end()
    return text
