"""Paths into JSON: `motor.speed`, `axes[0].pos`, `"line 1".state`. Pure."""

import functools
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator

Step = str | int

MISSING: Final = object()
"""What `follow` gives where the path leads nowhere."""

_STEP = re.compile(r'\[(\d{1,9})\]|(\.?)(?:"((?:[^"\\]|\\["\\])*)"|([^."\[\]\\]+))')
_ESCAPE = re.compile(r"\\(.)")


@functools.lru_cache(maxsize=4096)
def steps_of(text: str) -> tuple[Step, ...]:
    """The keys and indices of a path: keys with a dot between, indices in brackets.

    A key with dots, brackets, quotes or backslashes is quoted; inside, quotes and backslashes are escaped.

    Raises:
        ValueError: it is no path.
    """
    steps: list[Step] = []
    at = 0
    while at < len(text) or not steps:
        found = _STEP.match(text, at)
        # A dot stands before each key but the first, and before no index.
        if found is None or (found[1] is None and bool(found[2]) != bool(steps)):
            raise ValueError(
                f'should be a path such as motor.speed, axes[0].pos or "a key".x; got {text!r:.80}'
            )
        if found[1] is not None:
            steps.append(int(found[1]))
        else:
            steps.append(found[4] if found[4] is not None else _ESCAPE.sub(r"\1", found[3]))
        at = found.end()
    return tuple(steps)


def follow(document: Any, steps: tuple[Step, ...]) -> Any:
    """What stands at the end of a path, or `MISSING`."""
    for step in steps:
        if isinstance(step, str):
            if not isinstance(document, dict) or step not in document:
                return MISSING
        elif not isinstance(document, list) or step >= len(document):
            return MISSING
        document = document[step]
    return document


def _checked(text: str) -> str:
    steps_of(text)
    return text


JsonPath = Annotated[str, AfterValidator(_checked)]
"""A path, as a profile has it."""
