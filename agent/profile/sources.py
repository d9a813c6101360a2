"""The files of a profile, put together: what it includes, its templates and its devices."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.document import Entry, MappingNode, Node, ScalarNode, SequenceNode, read_document
from agent.problems import Place, Problem, did_you_mean

MAX_FILES = 64
_SHARED = ("include", "templates", "devices")
HEADER = ("profile", "description", "labels", "hooks")


@dataclass(slots=True)
class Sources:
    """All files as one: sections by name, in order, each value still with its place."""

    header: MappingNode
    templates: dict[str, Entry] = field(default_factory=dict)
    devices: dict[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def assemble(path: Path) -> Sources:
    """Reads a profile and all that it includes; what is wrong is in `problems`."""
    sources = Sources(MappingNode(Place(str(path), 1, 1), {}))
    _Reader(sources).read(path, str(path), None)
    return sources


class _Reader:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._seen: dict[Path, Place | None] = {}

    def read(self, path: Path, shown: str, included_at: Place | None) -> None:
        """Reads one file, after those that it includes."""
        problems = self._sources.problems
        self._seen[path.resolve()] = included_at
        document = read_document(path, shown)
        problems += document.problems
        root = document.root
        if not isinstance(root, MappingNode):
            if root is not None:
                problems.append(Problem.at(root.place, "", "should be a mapping with profile, devices ..."))
            return
        known = _SHARED if included_at is not None else (*HEADER, *_SHARED)
        for key, entry in root.entries.items():
            if key not in known:
                self._unknown(key, entry, known)
        if included_at is None:
            header = {key: entry for key, entry in root.entries.items() if key in HEADER}
            self._sources.header = MappingNode(root.place, header)
        if "include" in root.entries:
            self._include(root.entries["include"].node, path, shown)
        self._add("templates", root, self._sources.templates)
        self._add("devices", root, self._sources.devices)

    def _unknown(self, key: str, entry: Entry, known: tuple[str, ...]) -> None:
        message = "belongs in the profile itself, not in a file that it includes"
        problem = (
            Problem.at(entry.place, key, message)
            if key in HEADER
            else Problem.at(entry.place, key, "unknown field", did_you_mean(key, known))
        )
        self._sources.problems.append(problem)

    def _include(self, node: Node, path: Path, shown: str) -> None:
        if not isinstance(node, SequenceNode):
            self._sources.problems.append(Problem.at(node.place, "include", "should be a list of files"))
            return
        for number, item in enumerate(node.items):
            name = f"include.{number}"
            if not isinstance(item, ScalarNode) or not isinstance(item.value, str) or not item.value:
                self._sources.problems.append(Problem.at(item.place, name, "should be the path of a file"))
                continue
            self._include_file(item.place, name, path.parent / item.value, _beside(shown, item.value))

    def _include_file(self, place: Place, name: str, path: Path, shown: str) -> None:
        problems = self._sources.problems
        try:
            resolved = path.resolve()
            missing = not resolved.is_file()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            problems.append(Problem.at(place, name, f"cannot be read: {error}"))
            return
        if missing:
            problems.append(Problem.at(place, name, f"there is no file {shown}"))
        elif resolved in self._seen:
            first = self._seen[resolved] or "the top"
            problems.append(Problem.at(place, name, f"{shown} is included already; first at {first}"))
        elif len(self._seen) >= MAX_FILES:
            problems.append(Problem.at(place, name, f"is one file too many; at most {MAX_FILES}"))
        else:
            self.read(path, shown, place)

    def _add(self, section: str, root: MappingNode, to: dict[str, Entry]) -> None:
        if section not in root.entries:
            return
        node = root.entries[section].node
        if not isinstance(node, MappingNode):
            self._sources.problems.append(Problem.at(node.place, section, "should be a mapping of names"))
            return
        self._merge(section, node.entries, to)

    def _merge(self, section: str, entries: Mapping[str, Entry], to: dict[str, Entry]) -> None:
        for name, entry in entries.items():
            if name in to:
                message = f"stands twice; first at {to[name].place}"
                self._sources.problems.append(Problem.at(entry.place, f"{section}.{name}", message))
            else:
                to[name] = entry


def _beside(shown: str, name: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(shown), name))
