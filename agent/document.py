"""YAML files as trees that remember where each value was written.

The scalars are those of YAML 1.2's core schema: `yes`, `on` and `12:30` are strings. Input is hostile
until it is read: size, depth and what aliases expand to are bounded, and a key stands once.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from agent.problems import Place, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 24
MAX_NODES = 200_000
_MAX_DIGITS = 40

Scalar = bool | int | float | str | None


@dataclass(slots=True)
class ScalarNode:
    """A scalar; `plain` is false for a quoted one, which is always a string."""

    place: Place
    value: Scalar
    plain: bool = True


@dataclass(slots=True)
class MappingNode:
    """A mapping, in the order of the file; keys are texts, with the place of each."""

    place: Place
    entries: dict[str, "Entry"]


@dataclass(slots=True)
class SequenceNode:
    """A sequence."""

    place: Place
    items: list["Node"]


Node = ScalarNode | MappingNode | SequenceNode


@dataclass(slots=True)
class Entry:
    """A key's place and its value."""

    place: Place
    node: Node


@dataclass(slots=True)
class Document:
    """A file that was read: its tree (None if there is none) and what was wrong with it."""

    root: Node | None
    problems: list[Problem]


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars."""
    match node:
        case ScalarNode():
            return node.value
        case MappingNode():
            return {key: plain(entry.node) for key, entry in node.entries.items()}
        case SequenceNode():
            return [plain(item) for item in node.items]


def read_document(path: Path, shown: str) -> Document:
    """Reads a YAML file; `shown` names it in messages. What goes wrong is in `problems`."""
    try:
        if path.exists() and not path.is_file():
            return _broken(Place(shown), "is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _broken(Place(shown), f"cannot be read: {reason}")
    return parse_document(data, shown)


def parse_document(data: bytes, file: str) -> Document:
    """Reads YAML; `file` names it in messages."""
    if len(data) > MAX_BYTES:
        return _broken(Place(file), f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _broken(Place(file, data[: error.start].count(b"\n") + 1, 1), "is not UTF-8 text")
    composer = _Composer(text, file)
    try:
        return Document(composer.compose(), composer.problems)
    except _StopError as stop:
        return Document(None, [*composer.problems, stop.problem])
    except yaml.YAMLError as error:
        return Document(None, [*composer.problems, _syntax_problem(error, text, file)])


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar by YAML 1.2's core schema (section 10.3.2).

    Raises:
        ValueError: a number that readers disagree about, or that is not finite or too long.
    """
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if text[0] not in "+-.0123456789":
        return text
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        raise ValueError("is not a finite number")
    based = re.fullmatch(r"0(?:o[0-7]+|x[0-9a-fA-F]+)", text)
    if not based and not re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return text
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"is a number of more than {_MAX_DIGITS} digits")
    if based:
        return int(text, 0)
    if re.fullmatch(r"[-+]?0[0-9]+", text):
        decimal = text.lstrip("-+0") or "0"
        raise ValueError(f"{text} is octal to some readers; write {decimal}, 0o{decimal} or '{text}'")
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("is too large a number")
    return number


_NodeStart = yaml.ScalarEvent | yaml.CollectionStartEvent


class _StopError(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class _Anchor:
    node: Node
    nodes: int
    height: int


class _Composer:
    """Builds the tree from the parser's events, so that every bound is checked before it is passed."""

    def __init__(self, text: str, file: str) -> None:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=loader)
        self._file = file
        self._anchors: dict[str, _Anchor | None] = {}
        self._nodes = 0
        self._highest = 0
        self.problems: list[Problem] = []

    def compose(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _StopError(self._problem(event, "", "holds more than one document (`---`)"))
                root = self._node(next(self._events), "", 1)
        if root is None:
            self.problems.append(Problem.at(Place(self._file, 1, 1), "", "is empty"))
        return root

    def _node(self, start: yaml.Event, path: str, depth: int) -> Node:
        event = cast(_NodeStart | yaml.AliasEvent, start)  # what the parser gives where a value starts
        if depth > MAX_DEPTH:
            raise _StopError(
                self._problem(event, path.partition(".")[0], f"is nested more than {MAX_DEPTH} levels deep")
            )
        self._grow(event, path, 1)
        self._highest = max(self._highest, depth)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        if event.tag is not None:
            self.problems.append(self._problem(event, path, "has a YAML tag; tags are not used here"))
        if event.anchor is None:
            return self._content(event, path, depth)
        return self._anchored(event, event.anchor, path, depth)

    def _anchored(self, event: _NodeStart, anchor: str, path: str, depth: int) -> Node:
        self._anchors[anchor] = None
        before, outer = self._nodes, self._highest
        self._highest = depth
        node = self._content(event, path, depth)
        self._anchors[anchor] = _Anchor(node, self._nodes - before, self._highest - depth)
        self._highest = max(outer, self._highest)
        return node

    def _alias(self, event: yaml.AliasEvent, path: str, depth: int) -> Node:
        anchor = self._anchors.get(event.anchor or "")
        if anchor is None:
            inside = event.anchor in self._anchors
            why = "contains itself" if inside else "has no anchor of that name before it"
            raise _StopError(self._problem(event, path, f"alias *{event.anchor} {why}"))
        self._grow(event, path, anchor.nodes)
        if depth + anchor.height > MAX_DEPTH:
            raise _StopError(
                self._problem(event, path.partition(".")[0], f"is nested more than {MAX_DEPTH} levels deep")
            )
        self._highest = max(self._highest, depth + anchor.height)
        return anchor.node

    def _content(self, event: _NodeStart, path: str, depth: int) -> Node:
        place = self._place(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place, path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(start := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(start, f"{path}.{len(items)}".lstrip("."), depth + 1))
            return SequenceNode(place, items)
        return self._mapping(place, path, depth)

    def _mapping(self, place: Place, path: str, depth: int) -> MappingNode:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _StopError(
                    self._problem(event, path, "a key must be a plain word", "quote a key that has braces")
                )
            key, key_place = event.value, self._place(event)
            field = f"{path}.{key}".lstrip(".")
            entry = Entry(key_place, self._node(next(self._events), field, depth + 1))
            if key == "<<" and event.implicit[0]:
                hint = "share the fields of points by `templates:`"
                self.problems.append(Problem.at(key_place, field, "merge keys are not used here", hint))
            elif key in entries:
                first = entries[key].place.line
                self.problems.append(Problem.at(key_place, field, f"stands twice; first on line {first}"))
            else:
                entries[key] = entry
        return MappingNode(place, entries)

    def _scalar(self, event: yaml.ScalarEvent, place: Place, path: str) -> ScalarNode:
        if not event.implicit[0]:
            return ScalarNode(place, event.value, plain=False)
        if not event.value:
            # It would count as left out, which for `max`, `safe` or a rule allows more than was meant.
            hint = "give it one, or leave the field out"
            self.problems.append(Problem.at(place, path, "has no value", hint))
        try:
            return ScalarNode(place, resolve(event.value))
        except ValueError as error:
            self.problems.append(Problem.at(place, path, str(error)))
            return ScalarNode(place, event.value)

    def _grow(self, event: yaml.Event, path: str, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _StopError(self._problem(event, path, f"the file expands to more than {MAX_NODES} values"))

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file)

    def _problem(self, event: yaml.Event, path: str, message: str, hint: str = "") -> Problem:
        return Problem.at(self._place(event), path, message, hint)


def _broken(place: Place, message: str) -> Document:
    return Document(None, [Problem.at(place, "", message)])


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        place = Place(file, mark.line + 1, mark.column + 1)
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        hint = "indent with spaces, not tabs" if "\t" in line else ""
        if "${" in line or "{n}" in line:
            hint = 'within {...} put quotes around a text with braces, such as "${HOST}"'
        context = f" {error.context}" if error.context else ""
        return Problem.at(place, "", f"is not YAML: {error.problem}{context}", hint)
    position = getattr(error, "position", 0)
    place = Place(file, text[:position].count("\n") + 1, 1)
    return Problem.at(place, "", f"is not YAML: {getattr(error, 'reason', 'it cannot be read')}")
