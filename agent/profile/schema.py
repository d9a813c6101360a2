"""The JSON Schema of profiles, for editors: what the installed protocols take, and what is filled in."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agent.plugins import protocols
from agent.profile.model import RESERVED, Header
from agent.profile.templates import Repeat
from protocols.base import NAME_PATTERN, DeviceConfig, DeviceProtocol
from sim.behaviour import Spec

_DEFS = "#/$defs/"
_REPEATED_NAME = r"^([a-z0-9_]|\{n\})([a-z0-9_-]|\{n\}){0,62}$"
_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^${}]*)?\}"}

Schema = dict[str, Any]


def json_schema(installed: Mapping[str, DeviceProtocol] | None = None) -> Schema:
    """The JSON Schema (draft 2020-12) of profiles; `installed` defaults to all protocols.

    Raises:
        PluginError: an installed protocol cannot be imported.
    """
    known = protocols() if installed is None else installed
    models = {word: known[word].config() for word in known}
    refs, defs = _definitions(models.values())
    by_protocol = [
        {
            "if": {"properties": {"protocol": {"const": word}}, "required": ["protocol"]},
            "then": {"$ref": refs[model]},
        }
        for word, model in models.items()
    ]
    device = {
        "type": "object",
        "properties": {"protocol": {"enum": list(models)}},
        "required": ["protocol"],
        "allOf": by_protocol,
    }
    templates = [{"$ref": _DEFS + name} for name in defs if name.endswith("Template")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hilgate bench profile",
        "type": "object",
        "additionalProperties": False,
        "required": ["profile"],
        "properties": {
            **defs.pop(Header.__name__)["properties"],
            "include": {
                "description": "Files with templates and devices, relative to this one.",
                "type": "array",
                "items": {"type": "string", "minLength": 1},
            },
            "templates": {
                "description": "Fields that points share, by name.",
                "type": "object",
                "additionalProperties": {"anyOf": templates},
            },
            "devices": {
                "description": "The bench's devices, in the order in which they are made safe.",
                "type": "object",
                "propertyNames": {"pattern": NAME_PATTERN, "not": {"const": RESERVED}},
                "additionalProperties": device,
            },
        },
        "$defs": defs,
    }


def schema_text() -> str:
    """The schema as `hilgate schema` prints it and `bench_profiles/profile.schema.json` holds it."""
    return json.dumps(json_schema(), indent=2)


def device_schema(model: type[DeviceConfig]) -> Schema:
    """The JSON Schema of one protocol's devices as they are written in a profile."""
    refs, defs = _definitions([model])
    return {"$ref": refs[model], "$defs": defs}


def _definitions(models: Iterable[type[DeviceConfig]]) -> tuple[dict[type[BaseModel], str], Schema]:
    """Each model's reference, and all definitions, with what profiles add to them."""
    models = list(models)
    every: list[type[BaseModel]] = [*models, Header, Repeat, Spec]
    made, top = models_json_schema([(model, "validation") for model in every], ref_template=_DEFS + "{model}")
    refs = {model: str(made[model, "validation"]["$ref"]) for model in every}
    defs: Schema = top["$defs"]
    # Bounds of durations stand in the definitions though they are strings there: they would bind nothing.
    for schema in list(_walk(defs, set())):
        if schema.get("type") == "string":
            for bound in ("gt", "ge", "lt", "le"):
                schema.pop(bound, None)
    for model in models:
        _extend(defs, refs[model], refs[Repeat], refs[Spec])
    return refs, defs


def _extend(defs: Schema, device: str, repeat: str, spec: str) -> None:
    """Lets a device's points use templates and repeats, and its connection variables."""
    fields = _target(defs, device)["properties"]
    points = next(iter(fields["points"].get("patternProperties", {}).values()))
    fields["points"] = {**fields["points"], **_named(points)}
    fields["sim"] = {
        "description": fields["sim"].get("description", ""),
        "type": "object",
        **_named({"$ref": spec}),
    }
    for name in sorted(set(_object_names(points, defs))):
        point = defs[name]
        template = copy.deepcopy(point)
        template.pop("required", None)
        defs[name + "Template"] = template
        point["properties"]["template"] = {
            "type": "string",
            "description": "The template with its other fields.",
        }
        point["properties"]["repeat"] = {"$ref": repeat}
        point["anyOf"] = [{"required": ["template"]}, {"required": point.pop("required", [])}]
    if "connection" in fields:
        for schema in list(_walk(fields["connection"], set(), defs)):
            _allow_variable(schema)


def _named(values: Schema) -> Schema:
    return {"patternProperties": {_REPEATED_NAME: values}, "additionalProperties": False}


def _target(defs: Schema, ref: str) -> Schema:
    found: Schema = defs[ref.removeprefix(_DEFS)]
    return found


def _object_names(schema: Schema, defs: Schema) -> Iterator[str]:
    """The definitions of objects that a reference, or a union of references, leads to."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_DEFS)
        if "properties" in defs[name]:
            yield name
        schema = defs[name]
    for option in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from _object_names(option, defs)


def _walk(schema: Any, seen: set[int], defs: Schema | None = None) -> Iterator[Schema]:
    """Every schema inside a schema, once; behind references too where `defs` is given."""
    if isinstance(schema, list):
        for item in schema:
            yield from _walk(item, seen, defs)
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    seen.add(id(schema))
    yield schema
    if defs is not None and "$ref" in schema:
        yield from _walk(_target(defs, schema["$ref"]), seen, defs)
    for value in schema.values():
        yield from _walk(value, seen, defs)


def _allow_variable(schema: Schema) -> None:
    """A value that is no free text may be a variable; a constant tells the kinds of connections apart."""
    narrow = schema.get("type") in ("integer", "number", "boolean") or "enum" in schema or "pattern" in schema
    if "const" in schema or not narrow or schema == _VARIABLE:
        return
    narrowed = {
        key: schema.pop(key) for key in list(schema) if key not in ("title", "description", "default")
    }
    schema["anyOf"] = [narrowed, dict(_VARIABLE)]
