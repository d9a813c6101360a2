"""`${VAR}` and `${VAR:-default}`, so that one profile serves benches whose addresses differ."""

import re
from collections.abc import Mapping

from agent.document import Entry, MappingNode, Node, ScalarNode, SequenceNode, resolve
from agent.problems import Place, Problem

SECTIONS = ("connection", "labels")
"""The sections, of a device and of the profile, whose values may hold variables."""
_VARIABLE = re.compile(r"\$(\$\{)|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^${}]*))?\})?")


class Substitution:
    """Puts variables into trees; what goes wrong is added to `problems`."""

    def __init__(self, variables: Mapping[str, str], problems: list[Problem]) -> None:
        self._variables = variables
        self._problems = problems

    def section(self, node: MappingNode, field: str) -> MappingNode:
        """A copy of a device (or the profile's header) with the variables of its sections filled in."""
        entries = {
            key: Entry(entry.place, self._fill(entry.node, f"{field}.{key}".lstrip("."), key in SECTIONS))
            for key, entry in node.entries.items()
        }
        return MappingNode(node.place, entries)

    def text(self, text: str, place: Place, field: str) -> str:
        """A text with its variables filled in."""
        return _VARIABLE.sub(lambda match: self._value(match, place, field, True), text)

    def _fill(self, node: Node, field: str, allowed: bool) -> Node:
        match node:
            case MappingNode():
                entries = {
                    key: Entry(entry.place, self._fill(entry.node, f"{field}.{key}", allowed))
                    for key, entry in node.entries.items()
                }
                return MappingNode(node.place, entries)
            case SequenceNode():
                items = [self._fill(item, f"{field}.{i}", allowed) for i, item in enumerate(node.items)]
                return SequenceNode(node.place, items)
            case ScalarNode(value=str() as text) if "${" in text:
                return self._scalar(node, text, field, allowed)
        return node

    def _scalar(self, node: ScalarNode, text: str, field: str, allowed: bool) -> Node:
        filled = _VARIABLE.sub(lambda match: self._value(match, node.place, field, allowed), text)
        if not node.plain or not filled:
            return ScalarNode(node.place, filled, plain=False)
        try:
            return ScalarNode(node.place, resolve(filled))
        except ValueError:  # no number that all readers agree about: then it is a text
            return ScalarNode(node.place, filled)

    def _value(self, match: re.Match[str], place: Place, field: str, allowed: bool) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return "${"
        if not name:
            hint = "write ${NAME} or ${NAME:-default}, and $${ for the two characters themselves"
            self._problems.append(Problem.at(place, field, "is no variable", hint))
        elif not allowed:
            message = f"variables may only stand in {' and '.join(SECTIONS)}"
            self._problems.append(Problem.at(place, field, message))
        elif value := self._variables.get(name) or default:
            return value
        elif default is None:
            hint = f"set it, or write ${{{name}:-default}}"
            self._problems.append(Problem.at(place, field, f"the variable {name} is not set", hint))
        return ""
