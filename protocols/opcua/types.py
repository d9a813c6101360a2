"""What types the nodes of a server have: asked in bulk, with the structures that lie in them."""

import asyncio
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError

from protocols.opcua.limits import pieces
from protocols.opcua.session import Session
from protocols.opcua.structures import DataType, Dictionary, Field, Structure
from protocols.opcua.to_json import node_text, text

_MOST_TYPES: Final = 10_000
_MOST_LEVELS: Final = 32
_ANY_RANK: Final = -2
_ENUMERATION: Final = 29
_OPEN: Final = frozenset({24, 26, 27, 28})  # BaseDataType, Number, Integer, UInteger: the value says its type
_STRUCTURE: Final = ua.NodeId(ua.Int32(22))
_ROOTS: Final = (
    _STRUCTURE,
    ua.NodeId(ua.Int32(12756)),
    ua.NodeId(ua.Int32(12755)),
)  # with Union and OptionSet
_INT32: Final = ua.VariantType.Int32
_UNIONS: Final = (ua.StructureType.Union, ua.StructureType.UnionWithSubtypedValues)
_SUBTYPED: Final = (ua.StructureType.StructureWithSubtypedValues, ua.StructureType.UnionWithSubtypedValues)
_HAS_SUBTYPE: Final = ua.NodeId(ua.Int32(45))


@dataclass(frozen=True, slots=True)
class NodeType:
    """What a variable holds: `built_in` Variant is a type that only the value says."""

    type: DataType
    rank: int
    """ValueRank: -1 of a single value, else the number of dimensions; 0, -2 and -3 leave it open."""
    dictionary: Dictionary


async def types_of(session: Session, nodes: Sequence[ua.NodeId]) -> "Sequence[NodeType | ua.StatusCode]":
    """The types of variables, in their order; of a node that has none why not.

    What was asked once is known until the session is opened again: the server may have others then.

    Raises:
        DriverError: the server did not answer.
    """
    known = _known(session)
    async with known.lock:
        with session.errors("read the types of its nodes"):
            return await known.of(nodes)


async def data_types_of(session: Session, types: Sequence[ua.NodeId]) -> Sequence[DataType]:
    """Data types by their own node ids, as the arguments of methods name them.

    Raises:
        DriverError: the server did not answer.
    """
    known = _known(session)
    async with known.lock:
        with session.errors("read its data types"):
            return await known.data_types(types)


def dictionary_of(session: Session) -> Dictionary:
    """The server's namespaces, and its structures as far as they were asked for."""
    return _known(session).dictionary


def read_ids(nodes: Iterable[ua.NodeId], *attributes: AttributeIds) -> list[ua.ReadValueId]:
    """What to read: these attributes of each node."""
    return [
        ua.ReadValueId(NodeId=node, AttributeId=ua.IntegerId(attribute))
        for node in nodes
        for attribute in attributes
    ]


class _Types:
    """The types of one server in one session."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.proxy(session)  # which this lives as long as
        self.dictionary = Dictionary(session.namespaces)
        self.lock = asyncio.Lock()  # two at once would each make structures, and fill in those of one
        self._nodes: dict[ua.NodeId, NodeType] = {}
        self._types: dict[ua.NodeId, DataType] = {}
        self._parents: dict[ua.NodeId, ua.NodeId | None] = {}
        self._definitions: dict[ua.NodeId, ua.StructureDefinition] = {}
        self._structures: dict[ua.NodeId, Structure] = {}

    async def of(self, nodes: Sequence[ua.NodeId]) -> list[NodeType | ua.StatusCode]:
        known: dict[ua.NodeId, NodeType | ua.StatusCode] = {}
        asked = [node for node in dict.fromkeys(nodes) if node not in self._nodes]
        attributes = read_ids(asked, AttributeIds.DataType, AttributeIds.ValueRank)
        answers = await self._session.read(attributes)
        found: dict[ua.NodeId, tuple[ua.NodeId, int]] = {}
        for node, data_type, value_rank in zip(asked, answers[::2], answers[1::2], strict=True):
            held, dimensions = _held(data_type), _held(value_rank)
            if isinstance(held, ua.NodeId):
                found[node] = held, dimensions if isinstance(dimensions, int) else _ANY_RANK
            else:
                known[node] = _refusal(data_type)
        kinds = await self.data_types([data_type for data_type, _ in found.values()])
        for (node, (_, rank)), kind in zip(found.items(), kinds, strict=True):
            self._nodes[node] = NodeType(kind, rank, self.dictionary)
        return [self._nodes.get(node) or known[node] for node in nodes]

    async def data_types(self, types: Sequence[ua.NodeId]) -> list[DataType]:
        await self._learn({one for one in types if one not in self._types})
        return [self._types[one] for one in types]

    async def _learn(self, wanted: Collection[ua.NodeId]) -> None:
        """Makes the types known, and all that lie in their fields or are their subtypes."""
        new: dict[ua.NodeId, None] = {}
        todo = set(wanted)
        while todo:
            new |= dict.fromkeys(todo)
            if len(new) > _MOST_TYPES:
                raise UaError(f"it has more than {_MOST_TYPES} types in one")
            await self._read_parents(todo)
            structured = [one for one in todo if self._built_in(one) is ua.VariantType.ExtensionObject]
            await self._read_definitions([one for one in structured if one not in _ROOTS])
            more = await self._read_subtypes(structured)
            for one in structured:
                if one in self._definitions:
                    more |= {self._definitions[one].BaseDataType}
                    more |= {inner.DataType for inner in self._definitions[one].Fields}
            todo = {one for one in more if one not in new and one not in self._types}
        for one in new:
            self._types[one] = DataType(self._built_in(one), self._structures.get(one))
        for one in new:
            if one in self._definitions:
                self._structures[one].fields = tuple(self._fields(one))

    def _built_in(self, one: ua.NodeId) -> ua.VariantType:
        """The built-in type that a type comes from, Variant where any may stand."""
        at: ua.NodeId | None = one
        for _ in range(_MOST_LEVELS):
            if at is None:
                break
            if (
                at.NamespaceIndex == 0
                and isinstance(at.Identifier, int)
                and 1 <= at.Identifier <= _ENUMERATION
            ):
                if at.Identifier in _OPEN:
                    break
                return _INT32 if at.Identifier == _ENUMERATION else ua.VariantType(at.Identifier)
            at = self._parents.get(at)
        return ua.VariantType.Variant

    async def _read_parents(self, types: Iterable[ua.NodeId]) -> None:
        todo = {one for one in types if not _is_base(one) and one not in self._parents}
        for _ in range(_MOST_LEVELS):
            if not todo:
                return
            asked = list(todo)
            for one, found in zip(asked, await self._related(asked, ua.BrowseDirection.Inverse), strict=True):
                self._parents[one] = found[0] if found else None
            parents = {self._parents[one] for one in asked}
            todo = {
                one for one in parents if one is not None and not _is_base(one) and one not in self._parents
            }

    async def _read_subtypes(self, types: Sequence[ua.NodeId]) -> set[ua.NodeId]:
        """Those that a server has of its own; what the standard has asyncua knows."""
        if _STRUCTURE in types:
            types = [*types, *_ROOTS[1:]]
        related = await self._related(types, ua.BrowseDirection.Forward)
        return {one for found in related for one in found if one.NamespaceIndex}

    async def _related(
        self, types: Sequence[ua.NodeId], direction: ua.BrowseDirection
    ) -> list[list[ua.NodeId]]:
        found: list[list[ua.NodeId]] = []
        for some in pieces(types, self._session.limits.browse):
            piece = [
                ua.BrowseDescription(
                    NodeId=one,
                    BrowseDirection=direction,
                    ReferenceTypeId=_HAS_SUBTYPE,
                    IncludeSubtypes=False,
                    NodeClassMask=ua.UInt32(0),
                    ResultMask=ua.UInt32(0),
                )
                for one in some
            ]
            results = await self._session.services.browse(
                ua.BrowseParameters(RequestedMaxReferencesPerNode=ua.UInt32(0), NodesToBrowse=piece)
            )
            if len(results) != len(piece):
                raise UaError(f"it gave {len(results)} answers of {len(piece)} nodes")
            found += [await self._all(one) for one in results]
        return found

    async def _all(self, result: ua.BrowseResult) -> list[ua.NodeId]:
        """The nodes of an answer, and of those that follow it."""
        found = [one.NodeId for one in result.References or ()]
        while result.ContinuationPoint and len(found) < _MOST_TYPES:
            more = ua.BrowseNextParameters(
                ReleaseContinuationPoints=False, ContinuationPoints=[result.ContinuationPoint]
            )
            (result,) = await self._session.services.browse_next(more)
            if not result.References:
                break
            found += [one.NodeId for one in result.References]
        return found

    async def _read_definitions(self, types: Sequence[ua.NodeId]) -> None:
        wanted = read_ids(types, AttributeIds.DataTypeDefinition, AttributeIds.IsAbstract)
        answers = await self._session.read(wanted)
        for one, definition, abstract in zip(types, answers[::2], answers[1::2], strict=True):
            if _held(abstract) is True:
                continue  # what has it holds one of its subtypes, as an extension object
            structure = self._structures[one] = Structure(node_text(one, self.dictionary.namespaces))
            held = _held(definition)
            if isinstance(held, ua.StructureDefinition):
                self._definitions[one] = held
                structure.encoding = held.DefaultEncodingId
                structure.union = held.StructureType in _UNIONS
                structure.masked = held.StructureType is ua.StructureType.StructureWithOptionalFields
                if not structure.encoding.is_null():
                    self.dictionary.structures[structure.encoding] = structure

    def _fields(self, one: ua.NodeId, levels: int = _MOST_LEVELS) -> Iterator[Field]:
        """The fields of a structure, each name once; some servers leave out those of its base."""
        definition = self._definitions[one]
        names = {inner.Name for inner in definition.Fields}
        if definition.BaseDataType in self._definitions and levels > 0:
            inherited = self._fields(definition.BaseDataType, levels - 1)
            yield from (inner for inner in inherited if inner.name not in names)
        seen: set[str] = set()
        subtyped = definition.StructureType in _SUBTYPED
        for place, inner in enumerate(definition.Fields):
            name = text(inner.Name or "")
            if not name or name in seen:
                name = f"{name}_{place}"
            seen.add(name)
            rank = inner.ValueRank if inner.ValueRank >= 1 else (1 if inner.ArrayDimensions else 0)
            kind = self._types[inner.DataType]
            masked = definition.StructureType is ua.StructureType.StructureWithOptionalFields
            yield Field(name, kind, rank, masked and inner.IsOptional, subtyped and inner.IsOptional)


def _is_base(one: ua.NodeId) -> bool:
    return one.NamespaceIndex == 0 and isinstance(one.Identifier, int) and one.Identifier <= _ENUMERATION


def _held(data: ua.DataValue) -> Any:
    """What an attribute holds; None where it could not be read."""
    if data.StatusCode is not None and not data.StatusCode.is_good():
        return None
    return data.Value.Value if data.Value is not None else None


def _refusal(data: ua.DataValue) -> ua.StatusCode:
    """Why an attribute could not be read, or is not what it should be."""
    if data.StatusCode is not None and not data.StatusCode.is_good():
        return data.StatusCode
    return ua.StatusCode(ua.UInt32(StatusCodes.BadAttributeIdInvalid))


_KNOWN: weakref.WeakKeyDictionary[Session, _Types] = weakref.WeakKeyDictionary()


def _known(session: Session) -> _Types:
    known = _KNOWN.get(session)
    if known is None or known.dictionary.namespaces is not session.namespaces:  # it was opened again
        known = _KNOWN[session] = _Types(session)
    return known
