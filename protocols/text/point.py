"""What a profile says of a value that an instrument gives when it is asked, or takes. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal

from pydantic import Field

from protocols.base import Quality, Refused, Value
from protocols.mistakes import Wrong
from protocols.text import patterns
from protocols.text.blocks import Block, BlockError, definite
from protocols.text.numbers import number
from protocols.text.templates import Template, TemplateError
from protocols.units import Duration
from protocols.values import TypedPoint

MOST_TEXT = 4096
"""Characters of a command, and of a pattern."""

_LETTERS = {"f": "number", "e": "number", "g": "number", "d": "integer", "x": "integer", "o": "integer"}
_BASES = {"x": 16, "o": 8, "b": 2}


@lru_cache(1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of a profile.

    Raises:
        ValueError: it is none, or an answer could keep it busy for ever; the text is one sentence.
    """
    if len(pattern) > MOST_TEXT:
        raise ValueError(f"a pattern has at most {MOST_TEXT} characters")
    try:
        patterns.check(pattern)
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None


def is_line(text: str) -> bool:
    """Whether a text can be sent as one line: nothing in it is a control character."""
    return all(ord(sign) >= 0x20 and ord(sign) != 0x7F for sign in text)


class TextPoint(TypedPoint):
    """A value in what an instrument says."""

    query: str | None = Field(
        None,
        min_length=1,
        max_length=MOST_TEXT,
        description="What is sent to read it, once for all points of it.",
    )
    pattern: str | None = Field(
        None,
        description="Regular expression that the whole answer is of; the value is its group `value`, else "
        "its first group, else all of it.",
    )
    field: int | None = Field(
        None, ge=1, le=10_000, description="Which of the fields of the answer it is; 1 is the first."
    )
    separator: str = Field(
        ",", min_length=1, max_length=8, description="Between fields or items of an array."
    )
    report: str | None = Field(
        None, description="Pattern of lines that come unasked and hold the value, as with `pattern`."
    )
    block: Block | None = Field(None, description="The answer is a binary block of these items.")
    suffix: str | Mapping[str, float] | None = Field(
        None, description="Unit after the number, such as V; or units and their factors: {V: 1, mV: 0.001}."
    )
    base: Literal[2, 8, 10, 16] = Field(10, description="Of numbers; 0x, #H, #Q and #B are known without it.")
    decimal_comma: bool = Field(False, description="true: a comma stands before the fraction.")
    write: str | None = Field(
        None,
        max_length=MOST_TEXT,
        description="What is sent to write it: {value}, {value:.3f}, {value:03d}",
    )
    answer: str | None = Field(
        None, description="Pattern of what the instrument answers to a write, such as OK; default: nothing."
    )
    check_errors: bool = Field(True, description="false: the device's `errors` are not asked after a write.")
    timeout: Duration | None = Field(
        None, gt=0, le=300, description="How long its answer may take, instead of the device's timeout."
    )

    def mistakes(self) -> Iterator[Wrong]:
        """What is wrong with the point by itself."""
        yield from super().mistakes()
        for name in ("pattern", "report", "answer"):
            if (text := getattr(self, name)) is not None:
                try:
                    compiled(text)
                except ValueError as error:
                    yield (name,), str(error)
        if self.readable and self.query is None and self.report is None:
            yield ("query",), "say what is sent to read it, or the report it comes with; or access: wo"
        for name in ("query", "write"):
            if not is_line(getattr(self, name) or ""):
                yield (name,), "is one line without control characters: the terminator is the device's"
        if self.pattern is not None and self.field is not None:
            yield ("field",), "give either pattern or field"
        for name in ("pattern", "field", "separator"):
            if self.block is not None and name in self.model_fields_set:
                yield (name,), "means nothing with a block"
        if self.type == "object":
            yield ("type",), "a text has no objects"
        if self.block is not None and self.type not in ("array", "string"):
            yield ("block",), "a block is of type array, or string with items: hex"
        elif self.block is not None and (self.type == "string") != (self.block.items == "hex"):
            yield ("block", "items"), "hex is for type string, numbers are for type array"
        if self.separator.strip() == "," and self.decimal_comma and self.type == "array":
            yield ("decimal_comma",), "then another separator has to stand between the items"
        numeric = self.type in ("number", "integer", "array")
        for name in ("suffix", "base", "decimal_comma"):
            if not numeric and name in self.model_fields_set:
                yield (name,), f"only numbers have it, and the type is {self.type}"
        if isinstance(self.suffix, Mapping) and not all(
            math.isfinite(factor) and factor for factor in self.suffix.values()
        ):
            yield ("suffix",), "a factor is a number other than 0"
        yield from self._write_mistakes()

    def _write_mistakes(self) -> Iterator[Wrong]:
        if self.writable != (self.write is not None):
            yield ("write",), "access: rw and wo need a write, and ro has none"
        if self.answer is not None and self.write is None:
            yield ("answer",), "is that to a write, and the point has none"
        if self.write is None:
            return
        try:
            template = Template(self.write)
        except TemplateError as error:
            yield ("write",), str(error)
            return
        if template.spec is None:
            yield ("write",), "has no {value}: every value would be the same command"
        wanted = _LETTERS.get(template.letter.lower(), self.type)
        if template.letter == "b":
            wanted = "integer"
        if template.letter == "s" and self.type in ("number", "integer", "array"):
            yield ("write",), f"the format s is for texts, and the type is {self.type}"
        elif wanted != self.type and (self.type, wanted) not in (
            ("integer", "number"),
            ("enumeration", "integer"),
        ):
            yield ("write",), f"the format {template.letter} is for type {wanted}, not {self.type}"
        if self.type == "array" and self.block is None:
            yield ("block",), "an array is written as a binary block"

    # Reading.

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return None if self.pattern is None else compiled(self.pattern)

    @cached_property
    def _report(self) -> re.Pattern[str] | None:
        return None if self.report is None else compiled(self.report)

    @cached_property
    def _units(self) -> Mapping[str, float] | None:
        return {self.suffix: 1.0, "": 1.0} if isinstance(self.suffix, str) else self.suffix

    def matches(self, line: str) -> bool:
        """Whether this is an answer of the point's pattern, which it has."""
        return self._pattern is not None and self._pattern.fullmatch(line) is not None

    def take(self, answer: str) -> Value | Quality:
        """The point's value of the answer to its query; what is not of its form is `device-error`."""
        if self._pattern is not None:
            return self._matched(self._pattern, answer)
        if self.field is not None:
            fields = answer.split(self.separator)
            if len(fields) < self.field:
                return Quality.DEVICE_ERROR
            answer = fields[self.field - 1]
        return self.meant(answer)

    def reported(self, line: str) -> Value | Quality | None:
        """The point's value of a line that came unasked; None: it is not of the point's report."""
        if self._report is None or not self._report.fullmatch(line):
            return None
        return self._matched(self._report, line)

    def _matched(self, pattern: re.Pattern[str], text: str) -> Value | Quality:
        match = pattern.fullmatch(text)
        if match is None:
            return Quality.DEVICE_ERROR
        group = "value" if "value" in pattern.groupindex else min(pattern.groups, 1)
        found = match[group]
        return Quality.DEVICE_ERROR if found is None else self.meant(found)

    def take_block(self, data: bytes) -> Value | Quality:
        """The point's value of the data of a block."""
        assert self.block is not None
        try:
            return self.engineering(self.block.decode(data))
        except BlockError:
            return Quality.DEVICE_ERROR

    def meant(self, text: str) -> Value | Quality:
        """The value that a text means. Never raises."""
        text = text.strip()
        if self.type in ("number", "integer"):
            raw = number(text, self.base, self.decimal_comma, self._units)
            return raw if isinstance(raw, Quality) else self.engineering(raw)
        if self.type == "array":
            items = [
                number(item, self.base, self.decimal_comma, self._units)
                for item in text.split(self.separator)
                if text
            ]
            if Quality.DEVICE_ERROR in items:
                return Quality.DEVICE_ERROR
            return [None if isinstance(item, Quality) else item for item in items]
        value = self.engineering(text)
        return Quality.DEVICE_ERROR if value is Quality.BAD_CONFIG else value

    # Writing.

    @cached_property
    def template(self) -> Template:
        """The write template; only a writable point has one."""
        assert self.write is not None
        return Template(self.write)

    def accept(self, value: Any) -> Value:
        """Extends `Point.accept` by what the template can say: limits hold for the number that is sent.

        Raises:
            Refused: `read-only`, `bad-type` or `out-of-range`.
        """
        good = super().accept(value)
        meaning = good if self.write is None else self.meaning(good)
        if meaning != good:
            super().accept(meaning)
        return good

    def command(self, value: Value) -> tuple[str, bytes | None]:
        """What is sent for a value: a line, and the block that takes the place of its NUL, if it has one.

        Raises:
            Refused: `bad-type` or `out-of-range`: the template cannot say the value.
        """
        if self.block is not None:
            try:
                block = definite(self.block.encode(value))  # type: ignore[arg-type]  # refused by what encodes it
            except BlockError as error:
                raise Refused("out-of-range", f"{self.name}: {error}") from None
            return self.template.around("\0"), block
        return self.template.around(self._written(value)), None

    def meaning(self, value: Value) -> Value:
        """What the instrument is told by the command for a value, after rounding to its format.

        Raises:
            Refused: `bad-type` or `out-of-range`: the template cannot say the value.
        """
        if self.type not in ("number", "integer"):
            self.command(value)
            return value
        text = self._written(value)
        letter = self.template.letter.lower()
        raw = number(text.strip(), _BASES.get(letter, 10), self.decimal_comma)
        told = raw if isinstance(raw, Quality) else self.engineering(raw)
        if isinstance(told, Quality):
            raise Refused("out-of-range", f"{self.name} = {value} cannot be written as {text!r:.60}")
        return told

    def _written(self, value: Value) -> str:
        raw = self.raw(value)
        if isinstance(raw, bool):
            raw = "ON" if raw else "OFF"
        try:
            text = self.template.value(raw)
        except ValueError as error:
            text = f"{self.name} = {value!r:.60} does not fit the format {self.template.spec!r}: {error}"
            raise Refused("out-of-range", text) from None
        if self.type == "string":
            return self._quoted(text)
        return text.replace(".", ",") if self.decimal_comma else text

    def _quoted(self, text: str) -> str:
        """A text that stays one datum of its command: it ends no line, command or quotation."""
        quote = self.template.quote
        if not is_line(text) or len(text) > MOST_TEXT:
            raise Refused("out-of-range", f"{self.name} takes one line without control characters")
        if quote:
            return text.replace(quote, quote * 2)  # IEEE 488.2, 7.7.5: a quote within is written twice
        if set(text) & set(";\"'"):
            raise Refused("out-of-range", f"{self.name} takes no ; and no quotation marks")
        return text
