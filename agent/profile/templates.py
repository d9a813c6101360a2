"""Point templates and repeated points, so that forty equal registers are not forty copies.

templates:
  cell: {table: input, type: uint16, scale: 0.001, unit: V}
devices:
  pack:
    points:
      cell-{n}: {template: cell, address: 100, repeat: {count: 40, step: {address: 1}}}
    sim:
      cell-{n}: {sine: {min: 3.2, max: 3.9, period: 60s}}
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.document import MAX_NODES, Entry, MappingNode, Node, ScalarNode, SequenceNode, plain
from agent.problems import ConfigErrors, Place, Problem, did_you_mean
from agent.validation import problems_of

NUMBER = "{n}"
"""Stands for the number of a repeated point, in its name and in its texts."""


_OF_EXPANSION = ("template", "repeat")


class Repeat(BaseModel):
    """How often a point is repeated, and what differs from one to the next."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=1, le=10_000, description="How many points.")
    first: int = Field(1, alias="from", ge=0, le=1_000_000, description="The number {n} of the first.")
    step: Mapping[str, Annotated[int, Field(ge=-1_000_000, le=1_000_000)]] = Field(
        default_factory=dict,
        description="Fields, and what is added to each from point to point.",
    )


Repeats = dict[str, Repeat | None]
"""The repeated points of a device by name; None for a point that is left out because it is wrong."""


class Expansion:
    """Expands the devices of one profile; what goes wrong is added to `problems`.

    Raises (from `device`):
        ConfigErrors: the profile grew too large.
    """

    def __init__(self, templates: Mapping[str, Entry], problems: list[Problem]) -> None:
        self._problems = problems
        self._left = MAX_NODES
        self._templates = {name: self._template(name, entry) for name, entry in templates.items()}

    def _template(self, name: str, entry: Entry) -> MappingNode:
        field = f"templates.{name}"
        if not isinstance(entry.node, MappingNode):
            self._problems.append(Problem.at(entry.node.place, field, "should be a mapping"))
            return MappingNode(entry.place, {})
        for key in _OF_EXPANSION:
            if key in entry.node.entries:
                place = entry.node.entries[key].place
                message = "belongs in a point, not in a template"
                self._problems.append(Problem.at(place, f"{field}.{key}", message))
        return entry.node

    def device(self, node: MappingNode, field: str) -> MappingNode:
        """A copy of the device with plain points, and its `sim` to match."""
        entries = dict(node.entries)
        repeats: Repeats = {}
        points, sim = entries.get("points"), entries.get("sim")
        if points and isinstance(points.node, MappingNode):
            expanded = self._points(points.node, f"{field}.points", repeats)
            entries["points"] = Entry(points.place, expanded)
        if sim and isinstance(sim.node, MappingNode):
            entries["sim"] = Entry(sim.place, self._sim(sim.node, f"{field}.sim", repeats))
        return MappingNode(node.place, entries)

    def _points(self, points: MappingNode, field: str, repeats: Repeats) -> MappingNode:
        made: dict[str, Entry] = {}
        for name, entry in points.entries.items():
            self._add(made, name, entry, f"{field}.{name}", repeats)
        return MappingNode(points.place, made)

    def _add(self, made: dict[str, Entry], name: str, entry: Entry, field: str, repeats: Repeats) -> None:
        """Adds the point, or all points that it stands for, to those made so far."""
        if not isinstance(entry.node, MappingNode):
            self._put(made, name, entry, field)
            return
        point, repeat = self._merged(entry.node, field), entry.node.entries.get("repeat")
        if point is None:
            repeats[name] = None
            return
        entry = Entry(entry.place, point)
        if repeat is None and NUMBER not in name:
            self._put(made, name, entry, field)
            return
        repeats[name] = None
        if repeat is None:
            self._wrong(entry.place, field, f"has {NUMBER} in its name, so it needs a repeat")
        elif NUMBER not in name:
            self._wrong(entry.place, field, f"is repeated, so its name needs {NUMBER}")
        elif (good := self._repeat(repeat.node, f"{field}.repeat")) is not None:
            repeats[name] = good
            self._repeated(made, name, entry, good, field)

    def _merged(self, node: MappingNode, field: str) -> MappingNode | None:
        """The point with its template's fields under its own; None if there is no such template."""
        own = {key: entry for key, entry in node.entries.items() if key not in _OF_EXPANSION}
        if "template" in node.entries:
            shared = self._shared(node.entries["template"].node, f"{field}.template")
            if shared is None:
                return None
            own = shared | own
        point = MappingNode(node.place, own)
        self._take(_size(point), node.place, field)
        return point

    def _shared(self, node: Node, field: str) -> dict[str, Entry] | None:
        name = node.value if isinstance(node, ScalarNode) else None
        if isinstance(name, str) and name in self._templates:
            fields = self._templates[name].entries
            return {key: entry for key, entry in fields.items() if key not in _OF_EXPANSION}
        hint = did_you_mean(str(name), self._templates) or "there are no templates"
        self._wrong(node.place, field, "is not the name of a template", hint)
        return None

    def _repeated(self, made: dict[str, Entry], name: str, entry: Entry, repeat: Repeat, field: str) -> None:
        self._take(_size(entry.node) * repeat.count, entry.place, field)
        for turn in range(repeat.count):
            number = repeat.first + turn
            point = _numbered(self._stepped(entry.node, repeat, turn, field), number)
            self._put(made, name.replace(NUMBER, str(number)), Entry(entry.place, point), field)

    def _repeat(self, node: Node, field: str) -> Repeat | None:
        try:
            return Repeat.model_validate(plain(node))
        except ValidationError as error:
            self._problems += problems_of(error, node, field, Repeat.model_json_schema())
            return None

    def _stepped(self, point: Node, repeat: Repeat, turn: int, field: str) -> Node:
        if not isinstance(point, MappingNode):
            return point
        entries = dict(point.entries)
        for key, step in repeat.step.items():
            entry = entries.get(key)
            start = entry.node.value if entry and isinstance(entry.node, ScalarNode) else None
            if entry is None or not isinstance(start, int) or isinstance(start, bool):
                place = entry.node.place if entry else point.place
                message = f"needs a point whose {key} is a whole number"
                self._wrong(place, f"{field}.repeat.step.{key}", message)
            else:
                entries[key] = Entry(entry.place, ScalarNode(entry.node.place, start + turn * step))
        return MappingNode(point.place, entries)

    def _sim(self, sim: MappingNode, field: str, repeats: Repeats) -> MappingNode:
        made: dict[str, Entry] = {}
        for name, entry in sim.entries.items():
            where = f"{field}.{name}"
            if name in repeats:
                if (repeat := repeats[name]) is not None:
                    self._repeated(made, name, entry, repeat.model_copy(update={"step": {}}), where)
            elif NUMBER in name:
                hint = did_you_mean(name, repeats)
                self._wrong(entry.place, where, "no repeated point is called so", hint)
            else:
                self._put(made, name, entry, where)
        return MappingNode(sim.place, made)

    def _put(self, made: dict[str, Entry], name: str, entry: Entry, field: str) -> None:
        if name in made:
            self._wrong(entry.place, field, f"makes {name!r} a second time; first at {made[name].place}")
        made[name] = entry

    def _take(self, nodes: int, place: Place, field: str) -> None:
        self._left -= nodes
        if self._left < 0:
            message = f"the profile expands to more than {MAX_NODES} values"
            raise ConfigErrors([*self._problems, Problem.at(place, field, message)])

    def _wrong(self, place: Place, field: str, message: str, hint: str = "") -> None:
        self._problems.append(Problem.at(place, field, message, hint))


def _numbered(node: Node, number: int) -> Node:
    match node:
        case MappingNode():
            # Keys too: those of `requires` are names of points.
            entries = {
                key.replace(NUMBER, str(number)): Entry(entry.place, _numbered(entry.node, number))
                for key, entry in node.entries.items()
            }
            return MappingNode(node.place, entries)
        case SequenceNode():
            return SequenceNode(node.place, [_numbered(item, number) for item in node.items])
        case ScalarNode(value=str() as text) if NUMBER in text:
            return ScalarNode(node.place, text.replace(NUMBER, str(number)), node.plain)
    return node


def _size(node: Node) -> int:
    match node:
        case MappingNode():
            return 1 + sum(_size(entry.node) for entry in node.entries.values())
        case SequenceNode():
            return 1 + sum(map(_size, node.items))
    return 1
