"""Patterns of profiles that no answer can keep busy: how often Python's `re` may try is judged before use.

`re` goes back and tries again wherever a text could be taken in several ways, and nothing can stop it. Lines
have 1 KiB at most, so what makes the difference is the pattern: repetitions in repetitions are exponential,
and several repetitions that take the same characters a power of the length. What is not clear is refused: a
pattern that says which characters end a repetition, such as `[^,]*,` for `.*,`, is taken.
"""

import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

_LINE: Final = 1024
"""Characters of a line."""
_MOST_WAYS: Final = 2_000_000
"""Ways to divide a line among repetitions; a try takes some ten nanoseconds."""
_SIGNS: Final = [chr(code) for code in range(256)] + ["\u03a9"]
"""What sets of characters are judged by; the last stands for all others."""
_EVERY: Final = frozenset(_SIGNS)

# The parser of `re` is no public interface; it gives a list of (operation, argument).
_parser: Any = importlib.import_module("re._parser")
_compiler: Any = importlib.import_module("re._compiler")
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}
_SINGLE = {"LITERAL", "NOT_LITERAL", "ANY", "IN"}


class _Part(NamedTuple):
    """Something that takes characters, one after the other."""

    signs: frozenset[str]
    least: int
    ways: int
    """How many lengths it may have; 1: it takes exactly `least`."""


def check(pattern: str) -> None:
    """Holds that a line of 1 KiB is matched soon, whatever is in it.

    Raises:
        ValueError: it may not be; the text is one sentence.
        re.error: it is no pattern.
    """
    tree = _parser.parse(pattern)
    ways = _ways(list(_parts(tree, tree.state)))
    if ways > _MOST_WAYS:
        raise ValueError(
            "an answer could keep this pattern busy for ever: too many repetitions take the same characters; "
            "say what ends each, such as [^,]* for .*"
        )


def _parts(items: Iterable[Any], state: Any) -> Iterator[_Part]:
    """What a pattern is made of; alternatives as if each could come, behind one another."""
    for item in items:
        operation, argument = item
        name = str(operation)
        if name in _SINGLE:
            yield _Part(_signs(item, state), 1, 1)
        elif name in _REPEATS:
            least, most, body = argument
            yield from _repeated(least, most, body, state)
        elif name == "SUBPATTERN":
            yield from _parts(argument[3], state)
        elif name == "ATOMIC_GROUP":
            yield from _parts(argument, state)
        elif name == "BRANCH":
            if sum(not len(branch) for branch in argument[1]) > 1:
                yield _Part(
                    _EVERY, 0, 2
                )  # alternatives that are the same: `re` has put them before the choice
            for branch in argument[1]:
                yield from (part._replace(least=0, ways=part.ways + 1) for part in _parts(branch, state))
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from (part._replace(least=0) for part in _parts(argument[1], state))
        elif name != "AT":  # a group that comes again, or what a later Python has
            yield _Part(_EVERY, 0, _LINE)


def _repeated(least: int, most: int, body: Any, state: Any) -> Iterator[_Part]:
    parts = list(_parts(body, state))
    if most == 1:
        yield from (part._replace(least=0, ways=part.ways + 1) for part in parts)
        return
    if least == most and all(part.ways == 1 for part in parts):
        yield from parts
        return
    ways = min(most, _LINE) - min(least, _LINE) + 1
    if len(parts) != 1 or parts[0].ways != 1:
        if not _is_delimited(parts):
            raise ValueError(
                "an answer could keep this pattern busy for ever: a repetition within a repetition needs a "
                "character at its begin or end that nothing else in it takes"
            )
        ways = max(ways, _LINE)
    signs = frozenset[str]().union(*(part.signs for part in parts))
    yield _Part(signs, least, ways)


def _is_delimited(parts: list[_Part]) -> bool:
    """Whether each round of a repetition has a begin or an end that only it can be."""
    if all(part.ways == 1 for part in parts):
        return True  # rounds of one length
    for end, rest in ((parts[0], parts[1:]), (parts[-1], parts[:-1])):
        if end.ways == 1 and end.least and not any(end.signs & part.signs for part in rest):
            return _ways(parts) <= _LINE
    return False


def _ways(parts: list[_Part]) -> int:
    """In how many ways a line may be divided among parts that can take each other's characters, at most."""
    best: list[tuple[int, int]] = []
    """Of each part that is the last: the product of the ways up to it, and the largest factor."""
    worst = 1
    for place, part in enumerate(parts):
        product, largest = part.ways, part.ways
        if part.ways > 1:
            between: list[frozenset[str]] = []
            for before in range(place - 1, -1, -1):
                other = parts[before]
                if other.ways == 1:
                    between.append(other.signs)
                elif _share(other.signs, part.signs, between):
                    ways, factor = best[before]
                    if ways * part.ways > product:
                        product, largest = ways * part.ways, max(factor, part.ways)
                if other.ways > 1 and other.least:
                    between.append(other.signs)
        best.append((product, largest))
        worst = max(worst, product // largest)
    return worst


def _share(one: frozenset[str], other: frozenset[str], between: list[frozenset[str]]) -> bool:
    """Whether what stands between two repetitions, and they themselves, can be taken by either."""
    return bool(one & other) and all(signs & one and signs & other for signs in between)


def _signs(item: Any, state: Any) -> frozenset[str]:
    one: re.Pattern[str] = _compiler.compile(_parser.SubPattern(state, [item]), state.flags)
    return frozenset(sign for sign in _SIGNS if one.fullmatch(sign))
