"""Write templates such as `VOLT {value:.3f}`: read once, without what Python's formats would reach. Pure."""

import re
from string import Formatter
from typing import Any

_SPEC = re.compile(r"[+\- ]?#?0?[0-9]{0,2}(?:\.[0-9]{1,2})?([bdeEfgGosxX]?)")
"""Width and precision of two digits at most; no nested fields, no attributes, no conversions."""


class TemplateError(ValueError):
    """A template that cannot be used; the text is one sentence."""


class Template:
    """A command with at most one place for a value."""

    def __init__(self, text: str) -> None:
        """Reads a template.

        Raises:
            TemplateError: it has other fields than {value}, several of them, or another format.
        """
        self.before = self.after = ""
        self.spec: str | None = None
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise TemplateError(f"{error}; a brace that is sent as such is written twice") from None
        for literal, field, spec, conversion in parts:
            if self.spec is None:
                self.before += literal
            else:
                self.after += literal
            if field is None:
                continue
            if field != "value" or conversion:
                given = f"{field}!{conversion}" if conversion else field
                raise TemplateError(f"the only field is {{value}}, such as {{value:.3f}}; got {{{given}}}")
            if self.spec is not None:
                raise TemplateError("give {value} once")
            if not _SPEC.fullmatch(spec or ""):
                raise TemplateError(f"{spec!r} is no format: write such as .3f, 03d, g or X")
            self.spec = spec or ""

    @property
    def letter(self) -> str:
        """The last letter of the format, or nothing."""
        return self.spec[-1] if self.spec and self.spec[-1].isalpha() else ""

    @property
    def quote(self) -> str:
        """The quotation mark that the value stands in, or nothing."""
        mark = self.before[-1:]
        return mark if mark in ("'", '"') and mark == self.after[:1] else ""

    def value(self, raw: Any) -> str:
        """The value as it stands in the command.

        Raises:
            ValueError: the format is not for such a value.
        """
        if isinstance(raw, float) and raw.is_integer() and self.letter in tuple("bdoxX"):
            raw = int(raw)
        try:
            return format(raw, self.spec or "")
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None

    def around(self, value: str) -> str:
        """The command with a value that `value` has made."""
        return self.before + ("" if self.spec is None else value) + self.after
