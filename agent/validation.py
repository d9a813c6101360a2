"""pydantic's errors as problems: place, field, what is wrong, what would be right."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.document import Entry, MappingNode, Node, ScalarNode, SequenceNode
from agent.problems import Place, Problem, did_you_mean
from protocols.base import NAME_PATTERN

Loc = Sequence[int | str]

MISSING = "is missing"
NAME_HINT = "names are up to 63 of a-z, 0-9, _ and -, and do not begin with -"
_SHOULD = {
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}


def not_a_name(text: str) -> str:
    """What is wrong with a text that is no device's or point's name."""
    return f"{text!r:.80} cannot be a name"


@dataclass(slots=True)
class Spot:
    """What an error's location means in the file."""

    place: Place
    field: str
    node: Node
    key: str
    """The location's last name that the file itself does not hold: a missing field, or a union's tag."""


def locate(root: Node, loc: Loc, prefix: str = "") -> Spot:
    """The nearest written value on the way to `loc`; `prefix` is the dotted path of the root itself.

    Names that the file does not hold, such as the tags of unions, are stepped over.
    """
    place, node, path, missed = root.place, root, [prefix] if prefix else [], ""
    for step in loc:
        missed = ""
        if isinstance(node, MappingNode) and str(step) in node.entries:
            entry = node.entries[str(step)]
            # A container is pointed at by its key: where a block mapping begins is its first key.
            node, place = entry.node, _best(entry)
            path.append(str(step))
        elif isinstance(node, SequenceNode) and isinstance(step, int) and 0 <= step < len(node.items):
            node = node.items[step]
            place = node.place
            path.append(str(step))
        elif step != "[key]":
            missed = str(step)
    return Spot(place, ".".join(path), node, missed)


def _best(entry: Entry) -> Place:
    return entry.node.place if isinstance(entry.node, ScalarNode) else entry.place


def problems_of(
    error: ValidationError, root: Node, prefix: str = "", schema: Mapping[str, Any] | None = None
) -> list[Problem]:
    """Every error of `error` as a problem in the tree that was validated.

    `schema` is the JSON Schema of the model: it knows the fields that a misspelt one may have meant.
    """
    grouped: dict[tuple[Place, str], list[Problem]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "default_factory_not_called":
            continue  # the error that kept it from being called is in the list too
        problem = _problem(details, root, prefix, schema or {})
        place = Place(problem.file, problem.line, problem.column)
        grouped.setdefault((place, problem.field), []).append(problem)
    return [_joined(problems) for problems in grouped.values()]


def news(problems: Iterable[Problem], said: Iterable[Problem]) -> list[Problem]:
    """Without those of values that cannot be read: what is wrong with these was said."""
    places = {(problem.file, problem.line, problem.column) for problem in said}
    return [
        problem
        for problem in problems
        if problem.message == MISSING or (problem.file, problem.line, problem.column) not in places
    ]


def _joined(problems: Sequence[Problem]) -> Problem:
    """The branches of one union say what they wanted each: together that is one problem."""
    first = problems[0]
    wanted = [problem.message.removeprefix("should be ") for problem in problems]
    if len(problems) == 1 or not all(problem.message.startswith("should be ") for problem in problems):
        return first
    message = f"should be {' or '.join(dict.fromkeys(wanted))}"
    return Problem(first.file, first.line, first.column, first.field, message, first.hint)


def _problem(details: ErrorDetails, root: Node, prefix: str, schema: Mapping[str, Any]) -> Problem:
    kind, loc, context = details["type"], details["loc"], details.get("ctx", {})
    spot = locate(root, loc, prefix)
    if kind == "missing":
        field = f"{spot.field}.{spot.key}".lstrip(".")
        return Problem.at(spot.place, field, MISSING)
    if kind == "extra_forbidden":
        known = set(fields_at(schema, loc[:-1])) - _written(root, loc[:-1])
        hint = did_you_mean(str(loc[-1]), sorted(known))
        return Problem.at(_key_place(root, loc), spot.field, "unknown field", hint)
    if kind == "union_tag_not_found":
        field = f"{spot.field}.{_tag_field(context)}".lstrip(".")
        tags = [
            tag
            for branch in schemas_at(schema, loc)
            for tag in branch.get("discriminator", {}).get("mapping", ())
        ]
        return Problem.at(spot.place, field, MISSING, f"one of {', '.join(tags)}" if tags else "")
    if kind == "union_tag_invalid":
        return _wrong_tag(root, loc, prefix, context)
    if loc and loc[-1] == "[key]":
        hint = NAME_HINT if details["type"] == "string_pattern_mismatch" else _words(details, spot.node)[0]
        return Problem.at(_key_place(root, loc[:-1]), spot.field, not_a_name(str(loc[-2])), hint)
    message, hint = _words(details, spot.node)
    return Problem.at(spot.place, spot.field, message, hint)


def _wrong_tag(root: Node, loc: Loc, prefix: str, context: Mapping[str, Any]) -> Problem:
    spot = locate(root, (*loc, _tag_field(context)), prefix)
    return Problem.at(spot.place, spot.field, *_choice(spot.node, str(context.get("expected_tags", ""))))


def _tag_field(context: Mapping[str, Any]) -> str:
    return str(context.get("discriminator", "")).strip("'")


def _choice(node: Node, expected: str) -> tuple[str, str]:
    """The message and the hint of a value that is none of those expected, as pydantic lists them."""
    tokens = re.findall(r"'([^']*)'|([^\s,']+)", expected)
    choices = [quoted or bare for quoted, bare in tokens if bare != "or"]
    given = node.value if isinstance(node, ScalarNode) else None
    hint = did_you_mean(given, choices) if isinstance(given, str) else ""
    *others, last = choices or [""]
    message = f"should be {', '.join(others)}{' or ' if others else ''}{last}"
    return message, hint if hint.startswith("did you") else ""


def _words(details: ErrorDetails, node: Node) -> tuple[str, str]:
    """The message and the hint of an error about a value."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("literal_error", "enum") and "expected" in context:
        return _choice(node, str(context["expected"]))
    if context.get("pattern") == NAME_PATTERN and isinstance(node, ScalarNode):
        return not_a_name(str(node.value)), NAME_HINT
    if kind == "string_pattern_mismatch":
        return f"does not match {context.get('pattern')}", ""
    if kind == "string_type" and isinstance(node, ScalarNode) and isinstance(node.value, int | float):
        return "should be a text", "put it in quotes"
    if kind in _SHOULD:
        return f"should be {_SHOULD[kind]}", ""
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if message.startswith("should be a valid "):
        return message.split(",")[0], ""
    return message, ""


def _key_place(root: Node, loc: Loc) -> Place:
    parent = locate(root, loc[:-1])
    if isinstance(parent.node, MappingNode) and str(loc[-1]) in parent.node.entries:
        return parent.node.entries[str(loc[-1])].place
    return parent.place


def _written(root: Node, loc: Loc) -> set[str]:
    node = locate(root, loc).node
    return set(node.entries) if isinstance(node, MappingNode) else set()


def fields_at(schema: Mapping[str, Any], loc: Loc) -> Iterable[str]:
    """The fields that a JSON Schema knows for the object at `loc`, over all branches of unions."""
    return [name for branch in schemas_at(schema, loc) for name in branch.get("properties", {})]


def schemas_at(schema: Mapping[str, Any], loc: Loc) -> list[Mapping[str, Any]]:
    """The parts of a JSON Schema that speak of the value at `loc`."""
    defs = schema.get("$defs", {})
    found = _branches(schema, defs)
    for step in loc:
        below = [child for branch in found for child in _children(branch, step, defs)]
        tagged = [branch for branch in found if _is_tagged(branch, step)]
        found = below or tagged or found
    return found


def _branches(schema: Any, defs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schema itself, or what its reference or its alternatives lead to."""
    if not isinstance(schema, Mapping):
        return []
    if "$ref" in schema:
        return _branches(defs.get(str(schema["$ref"]).rpartition("/")[2]), defs)
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    return [schema, *(branch for option in options for branch in _branches(option, defs))]


def _children(branch: Mapping[str, Any], step: int | str, defs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if isinstance(step, int):
        return _branches(branch.get("items"), defs)
    if step in branch.get("properties", {}):
        return _branches(branch["properties"][step], defs)
    for pattern, schema in branch.get("patternProperties", {}).items():
        if re.search(pattern, step):
            return _branches(schema, defs)
    return _branches(branch.get("additionalProperties"), defs)


def _is_tagged(branch: Mapping[str, Any], step: int | str) -> bool:
    """Whether the branch is the one that a union's tag in an error's location names."""
    options = branch.get("properties", {}).values()
    tags = [tag for option in options for tag in (option.get("const"), *option.get("enum", ()))]
    return step == branch.get("title") or step in tags
