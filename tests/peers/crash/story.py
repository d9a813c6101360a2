"""What happened in a session, and how a failed one explains itself: what is wrong, and what led to it."""

import contextlib
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from crash import proof

_LAST = 25
"""Steps that a failure shows; all of them are in the captured output."""
_MOST = 20
"""Lines of any other kind that it shows."""
_NAME = re.compile(r"\br\d+-(?:\d+|after)\b")
"""A message-id of the plan."""


class Story:
    """What was done and when, and what was heard."""

    def __init__(self, agent_log: Path) -> None:
        self._agent_log = agent_log
        self._began = time.monotonic()
        self.steps: list[str] = []
        self.heard: list[proof.Heard] = []
        self.said: Sequence[Mapping[str, Any]] = ()
        """What the consumer said."""

    def note(self, text: str) -> None:
        """Something was done just now."""
        self.steps.append(f"{time.monotonic() - self._began:8.3f} s  {text}")

    def summary(self) -> str:
        """What was heard, in numbers."""
        results = proof.results_of(self.heard)
        statuses = Counter(one.data["status"] for found in results.values() for one in found)
        copies = len(self.heard) - len(proof.first_appearances(self.heard))
        parts = [
            f"results {dict(statuses)}",
            f"{len(self.heard)} messages of {len({one.epoch for one in self.heard})} agents",
            f"{copies} of them copies",
            f"{time.monotonic() - self._began:.0f} s",
        ]
        return "; ".join(parts)

    def explain(self, error: Exception) -> str:
        """What is wrong, where it was found, what it is about, and what came before."""
        reason = _shortened(traceback.format_exception_only(error)[-1].splitlines())
        names = dict.fromkeys(_NAME.findall("\n".join(reason)))
        log = self._agent_log.read_text(errors="replace").splitlines() if self._agent_log.exists() else []
        told = [line for line in log if any(re.search(rf"\b{name}\b", line) for name in names)]
        heard = [
            f"{one.correlation_id}: {one.event_id}, epoch {one.epoch}, {one.data}"
            for one in self.heard
            if one.correlation_id in names
        ]
        parts = {
            "": reason,
            "found": [f"{one.name}, line {one.lineno}: {one.line}" for one in _places(error)],
            "numbers": [self.summary()],
            f"the last of {len(self.steps)} steps": self.steps[-_LAST:],
            "heard of the commands named above": _shortened(heard),
            "the agent's log of them": _shortened(told),
            "the agent said last": log[-_MOST:],
            "the consumer said last, beside messages and outcomes": [
                str(one)
                for one in self.said
                if one["event"] != "message" and one.get("outcome") != "accepted"
            ][-_MOST:],
        }
        lines = (
            line[:300]
            for title, found in parts.items()
            if found
            for line in ([f"-- {title}"] if title else []) + found
        )
        return "\n".join(lines)


@contextlib.contextmanager
def explained(story: Story) -> Iterator[None]:
    """An error inside becomes a failure that tells the story; all of it is in the captured output."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever it is, it becomes a failure
        print(*story.steps, *traceback.format_exception(error), sep="\n")
        raise pytest.fail.Exception(story.explain(innermost(error)), pytrace=False) from None


def innermost(error: Exception) -> Exception:
    """What groups of one error each are made of: a reader wants to see that."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _places(error: Exception) -> list[traceback.FrameSummary]:
    """Where in this package an error passed, outermost first."""
    here = str(Path(__file__).parents[1])
    return [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(here)]


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST
    return lines if more <= 0 else [*lines[:_MOST], f"... and {more} more"]
