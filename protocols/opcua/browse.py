"""What a server has, as points, notifiers and methods of a profile: found by walking its address space.

What the server says is held for possible only: what no profile could say is left out.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaprotocol_auto import Argument  # what is decoded: ua.Argument is a class below it

from protocols.base import DriverError
from protocols.opcua.session import Session
from protocols.opcua.status import words
from protocols.opcua.to_json import node_text, text
from protocols.opcua.types import data_types_of, read_ids
from protocols.opcua.walk import HAS_PROPERTY, Bounds, Node, Walk, held, local, references_of

_MOST_LABELS: Final = 1000
_LONGEST: Final = 200
_BIGGEST: Final = 1e300
_VARIANT: Final = ua.VariantType
_NO_VALUES: Final = (_VARIANT.DataValue, _VARIANT.Variant, _VARIANT.DiagnosticInfo, _VARIANT.Null)
_USUAL: Final = {
    "boolean": _VARIANT.Boolean,
    "integer": _VARIANT.Int64,
    "number": _VARIANT.Double,
    "string": _VARIANT.String,
    "enumeration": _VARIANT.Int32,
    "object": _VARIANT.ExtensionObject,
    "array": _VARIANT.Double,
}
"""The type on the wire that goes without saying, by the kind of point."""
_INT32: Final = ua.NodeId(ua.Int32(6))
_PROPERTIES: Final = (
    "EngineeringUnits",
    "EURange",
    "EnumStrings",
    "EnumValues",
    "InputArguments",
    "OutputArguments",
)
_READ, _WRITE, _HISTORY = 0x01, 0x02, 0x04
"""Bits of AccessLevel (OPC 10000-3, AccessLevelType)."""
_EVENTS: Final = 0x01
"""The bit SubscribeToEvents of EventNotifier (OPC 10000-3, EventNotifierType)."""


class Found(NamedTuple):
    """A point or a method: `fields` as the profile has them, `path` the browse names that lead to it."""

    path: tuple[str, ...]
    fields: Mapping[str, Any]
    notes: Sequence[str] = ()
    method: bool = False


class Browsed(NamedTuple):
    """What a walk found, nearest to its root first."""

    found: Sequence[Found]
    nodes: int
    """How many nodes were looked at."""
    complete: bool
    """False: there is more, beyond the bounds."""


class _Attributes(NamedTuple):
    data_type: ua.NodeId
    rank: int
    access: int
    description: str


async def browse(
    session: Session, root: str | Sequence[str], bounds: Bounds, progress: Callable[[int], None]
) -> Browsed:
    """Walks the address space from `root`; `progress` hears how many nodes were found so far.

    Raises:
        DriverError: the server did not answer, has no such root or no such namespace.
    """
    (start,) = await session.resolve([root])
    if isinstance(start, ua.StatusCode):
        shown = root if isinstance(root, str) else "/" + "/".join(root)
        raise DriverError("device-error", f"the server has no {shown}: {words(start.value)}")
    namespaces = session.namespaces
    if bounds.namespace is not None and bounds.namespace not in namespaces:
        raise DriverError(
            "device-error", f"the server has no namespace {bounds.namespace}; it has {', '.join(namespaces)}"
        )
    with session.errors("browse its address space"):
        walk = Walk(session, bounds, progress)
        await walk.go(start)
        wanted = [one for one in walk.nodes if _in(one, bounds.namespace, namespaces)]
        described = await _Describer(session).describe(wanted)
    return Browsed(described, len(walk.nodes), walk.complete)


def _in(one: Node, namespace: str | None, namespaces: Sequence[str]) -> bool:
    if namespace is None:
        return True
    index = one.node.NamespaceIndex
    return index < len(namespaces) and namespaces[index] == namespace


class _Describer:
    """Says of nodes what a profile would."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._values: dict[ua.NodeId, Any] = {}
        self._variants: dict[ua.NodeId, ua.Variant] = {}
        self._types: dict[ua.NodeId, ua.VariantType] = {}
        self._labels: dict[ua.NodeId, Mapping[int, str]] = {}

    async def describe(self, nodes: Sequence[Node]) -> list[Found]:
        await self._read_values(
            [one.properties[name] for one in nodes for name in _PROPERTIES if name in one.properties]
        )
        attributes = await self._attributes([one for one in nodes if one.kind == ua.NodeClass.Variable])
        arguments = [
            argument.DataType
            for one in nodes
            for name in ("InputArguments", "OutputArguments")
            for argument in self._arguments(one, name)
        ]
        await self._read_types([*(one.data_type for one in attributes.values()), *arguments])
        await self._read_values([one.node for one, said in attributes.items() if self._is_open(said)])
        notifiers = await self._notifiers([one for one in nodes if one.kind == ua.NodeClass.Object])
        found = []
        for one in nodes:
            if one in attributes:
                found.append(self._variable(one, attributes[one]))
            elif one.kind == ua.NodeClass.Method:
                found.append(self._method(one))
            elif one in notifiers:
                fields = {"node": self._text(one.node), "type": "object", "events": "alarms"}
                found.append(Found((*one.path, "events"), fields))
        return [one for one in found if one is not None]

    def _text(self, node: ua.NodeId) -> str:
        return node_text(node, self._session.namespaces)

    async def _attributes(self, variables: Sequence[Node]) -> "dict[Node, _Attributes]":
        ids = (
            AttributeIds.DataType,
            AttributeIds.ValueRank,
            AttributeIds.UserAccessLevel,
            AttributeIds.AccessLevel,
            AttributeIds.Description,
        )
        answers = [
            held(one) for one in await self._session.read(read_ids([one.node for one in variables], *ids))
        ]
        found = {}
        for place, one in enumerate(variables):
            data_type, rank, user, access, description = answers[place * len(ids) : (place + 1) * len(ids)]
            level = user if isinstance(user, int) else access
            found[one] = _Attributes(
                data_type if isinstance(data_type, ua.NodeId) else ua.NodeId(),
                rank if isinstance(rank, int) else -2,
                level if isinstance(level, int) else _READ,
                _line(description),
            )
        return found

    async def _read_values(self, nodes: Sequence[ua.NodeId]) -> None:
        answers = await self._session.read(read_ids(nodes, AttributeIds.Value))
        for node, answer in zip(nodes, answers, strict=True):
            if (value := held(answer)) is not None and answer.Value is not None:
                self._values[node], self._variants[node] = value, answer.Value

    async def _read_types(self, types: Iterable[ua.NodeId]) -> None:
        asked = [one for one in dict.fromkeys(types) if not one.is_null()]
        kinds = await data_types_of(self._session, asked)
        self._types = {one: kind.built_in for one, kind in zip(asked, kinds, strict=True)}
        enumerations = [one for one in asked if self._types[one] is _VARIANT.Int32 and one != _INT32]
        definitions = await self._session.read(read_ids(enumerations, AttributeIds.DataTypeDefinition))
        older = []
        for one, answer in zip(enumerations, definitions, strict=True):
            labels = _labels(held(answer))
            if labels:
                self._labels[one] = labels
            else:
                older.append(one)
        for one, references in zip(
            older, await references_of(self._session, older, HAS_PROPERTY), strict=True
        ):
            properties = [local(reference.NodeId) for reference in references]
            wanted = read_ids([target for target in properties if target], AttributeIds.Value)
            said = [_labels(held(answer)) for answer in await self._session.read(wanted)]
            self._labels[one] = next(filter(None, said), {})

    def _is_open(self, attributes: "_Attributes") -> bool:
        """Whether only the value says what it is."""
        kind = self._types.get(attributes.data_type, _VARIANT.Variant)
        return kind is _VARIANT.Variant or attributes.rank in (0, -2, -3)

    async def _notifiers(self, objects: Sequence[Node]) -> set[Node]:
        answers = await self._session.read(
            read_ids([one.node for one in objects], AttributeIds.EventNotifier)
        )
        said = ((one, held(answer)) for one, answer in zip(objects, answers, strict=True))
        return {one for one, bits in said if isinstance(bits, int) and bits & _EVENTS}

    def _property(self, one: Node, name: str) -> Any:
        return self._values.get(one.properties[name]) if name in one.properties else None

    def _variable(self, one: Node, said: _Attributes) -> Found | None:
        kind, array = self._types.get(said.data_type, _VARIANT.Variant), said.rank >= 1
        if self._is_open(said):
            value = self._variants.get(one.node)
            if value is None:
                return None
            kind, array = value.VariantType, bool(value.is_array)
        if kind in _NO_VALUES or not isinstance(kind, ua.VariantType) or not said.access & (_READ | _WRITE):
            return None
        fields: dict[str, Any] = {"node": self._text(one.node)}
        labels = None if array else self._labels_of(one, said, kind)
        fields["type"] = "array" if array else "enumeration" if labels else _kind_of(kind)
        if labels:
            fields["labels"] = labels
        if kind is not _USUAL[fields["type"]]:
            fields["data_type"] = kind.name
        if unit := _unit(self._property(one, "EngineeringUnits")):
            fields["unit"] = unit
        if fields["type"] in ("number", "integer"):
            fields |= _limits(self._property(one, "EURange"))
        notes = []
        if not said.access & _READ:
            fields["access"] = "wo"
        elif said.access & _WRITE:
            notes.append("may be written: access: rw")
        if said.access & _HISTORY:
            notes.append("has a history")
        if said.description:
            fields["description"] = said.description
        return Found(one.path, fields, notes)

    def _labels_of(self, one: Node, said: _Attributes, kind: ua.VariantType) -> Mapping[int, str] | None:
        if _kind_of(kind) != "integer":
            return None
        own = (self._property(one, name) for name in ("EnumValues", "EnumStrings"))
        return next(filter(None, map(_labels, own)), None) or self._labels.get(said.data_type)

    def _method(self, one: Node) -> Found:
        fields: dict[str, Any] = {"object": self._text(one.parent), "method": self._text(one.node)}
        for name, field in (("InputArguments", "inputs"), ("OutputArguments", "outputs")):
            arguments = self._arguments(one, name)
            if arguments:
                fields[field] = {
                    _line(argument.Name) or f"argument-{place}": self._type_name(argument.DataType)
                    for place, argument in enumerate(arguments)
                }
        return Found(one.path, fields, method=True)

    def _arguments(self, one: Node, name: str) -> list[Argument]:
        said = self._property(one, name)
        return [argument for argument in said if isinstance(argument, Argument)] if _is_list(said) else []

    def _type_name(self, data_type: ua.NodeId) -> str:
        kind = self._types.get(data_type, _VARIANT.Variant)
        return kind.name if isinstance(kind, ua.VariantType) and kind is not _VARIANT.Null else "Variant"


def _kind_of(kind: ua.VariantType) -> str:
    if kind is _VARIANT.Boolean:
        return "boolean"
    if _VARIANT.SByte <= kind <= _VARIANT.UInt64:
        return "integer"
    if kind in (_VARIANT.Float, _VARIANT.Double):
        return "number"
    return "object" if kind is _VARIANT.ExtensionObject else "string"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _labels(said: object) -> Mapping[int, str] | None:
    """Labels of an EnumDefinition, EnumValues or EnumStrings; None where they are none, or not each once."""
    entries: Sequence[object] = said.Fields if isinstance(said, ua.EnumDefinition) else said  # type: ignore[assignment]  # what it is turns out below
    if not _is_list(entries) or not 0 < len(entries) <= _MOST_LABELS:
        return None
    labels: dict[int, str] = {}
    for place, entry in enumerate(entries):
        match entry:
            case ua.EnumField() | ua.EnumValueType():
                name = getattr(entry, "Name", None) or _line(entry.DisplayName)
                labels[int(entry.Value)] = _line(name)
            case ua.LocalizedText():
                labels[place] = _line(entry)
            case _:
                return None
    return labels if all(labels.values()) and len(set(labels.values())) == len(labels) else None


def _unit(said: object) -> str:
    return _line(said.DisplayName) if isinstance(said, ua.EUInformation) else ""


def _limits(said: object) -> Mapping[str, float]:
    if not isinstance(said, ua.Range):
        return {}
    low, high = said.Low, said.High
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (low, high)) or low >= high:
        return {}
    return {"min": low, "max": high} if max(-low, high) < _BIGGEST else {}


def _line(said: object) -> str:
    """A text, or a localized one, in a line of characters that can be printed."""
    if isinstance(said, ua.LocalizedText):
        said = said.Text
    if not isinstance(said, str):
        return ""
    plain = "".join(char if char.isprintable() else " " for char in text(said))
    return " ".join(plain.split())[:_LONGEST]
