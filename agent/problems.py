"""What is wrong in a configuration, said so that a person can put it right."""

import difflib
from collections.abc import Iterable, Sequence

import msgspec

_LISTED = 16


class Place(msgspec.Struct, frozen=True):
    """Where a value was written; `line` and `column` count from 1, and are 0 where there is no line.

    `file` is a path as the user gave it, or the name of another source, such as
    `environment variable HILGATE_BENCH`.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Problem(msgspec.Struct, frozen=True):
    """One mistake: `field` is the dotted path of the value, `hint` says what would be right."""

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str = ""

    @classmethod
    def at(cls, place: Place, field: str, message: str, hint: str = "") -> "Problem":
        """A problem with the value that was written at `place`."""
        return cls(place.file, place.line, place.column, field, message, hint)

    def __str__(self) -> str:
        place = str(Place(self.file, self.line))
        text = ": ".join(part for part in (place, self.field, self.message) if part)
        text = f"{text}; {self.hint}" if self.hint else text
        # Keys and values of a hostile file must not steer the terminal.
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class ConfigErrors(Exception):  # several errors, as its name says
    """All that is wrong in a profile or in settings, in the order of files and lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = in_order(problems)
        super().__init__("\n".join(map(str, self.problems)))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems by file (as first met) and line; what was said of one place already is left out.

    A wrong template would otherwise be reported once for every point that was made from it.
    """
    problems = list(problems)
    files = {file: rank for rank, file in enumerate(dict.fromkeys(problem.file for problem in problems))}
    seen: dict[tuple[object, ...], Problem] = {}
    for problem in problems:
        said = (problem.file, problem.line, problem.column, problem.message)
        seen.setdefault(said if problem.line else (*said, problem.field), problem)
    return sorted(seen.values(), key=lambda problem: (files[problem.file], problem.line, problem.column))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a word that is not known: the nearest known one, else all of them if they are few."""
    known = list(known)
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    if near:
        return f"did you mean {by_folded[near[0]]!r}?"
    if known and len(known) <= _LISTED:
        return f"known here: {', '.join(known)}"
    return ""
