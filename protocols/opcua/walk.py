"""A walk of a server's address space, from a node down along its hierarchical references.

Bounded in depth and nodes; a node that is reached again, as in a loop, is walked once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError

from protocols.opcua.limits import pieces
from protocols.opcua.session import Session
from protocols.opcua.to_json import text
from protocols.opcua.types import read_ids

HAS_PROPERTY: Final = ua.NodeId(ua.Int32(46))
_AT_ONCE: Final = 50
"""Nodes of one Browse request: each may hold a continuation point, of which servers have few."""
_MOST_REFERENCES: Final = 100_000
"""Of one node: a server that goes on giving more is not followed."""
_HIERARCHICAL: Final = ua.NodeId(ua.Int32(33))
_HAS_SUBTYPE: Final = ua.NodeId(ua.Int32(45))
_CONDITIONS: Final = ua.NodeId(ua.Int32(2782))
_SERVER: Final = ua.NodeId(ua.Int32(2253))
_STANDARD: Final = frozenset(ua.NodeId(ua.Int32(one)) for one in (86, 87, 2253, 14443, 23470, 24226, 31915))
"""Types, Views and the standard's own objects: Server, PublishSubscribe, Aliases, Quantities, Locations."""
_KINDS: Final = (ua.NodeClass.Object, ua.NodeClass.Variable, ua.NodeClass.Method)


class Bounds(NamedTuple):
    """How far a walk goes."""

    depth: int = 16
    nodes: int = 20_000
    namespace: str | None = None
    """Only nodes of this namespace, by URI, become points; through others it goes on."""


@dataclass(eq=False, slots=True)
class Node:
    """A node that was found; `path` has the browse names that lead to it, `properties` those it has."""

    node: ua.NodeId
    kind: ua.NodeClass
    path: tuple[str, ...]
    parent: ua.NodeId
    properties: dict[str, ua.NodeId] = field(default_factory=dict)


class Walk:
    """Breadth first, so that what bounds cut off is what lies deepest."""

    def __init__(self, session: Session, bounds: Bounds, progress: Callable[[int], None]) -> None:
        self._session = session
        self._bounds = bounds
        self._progress = progress
        self._conditions: set[ua.NodeId] = set()
        self._seen: set[ua.NodeId] = set()
        self.nodes: list[Node] = []
        self.complete = True

    async def go(self, start: ua.NodeId) -> None:
        """Fills `nodes`, from `start` on.

        Raises:
            UaError: the server refused to, or answered something else than was asked.
        """
        self._conditions = await self._subtypes(_CONDITIONS)
        (answer,) = await self._session.read(read_ids([start], AttributeIds.NodeClass))
        kind = next((one for one in _KINDS if one == held(answer)), ua.NodeClass.Object)
        first = Node(start, kind, (), start)
        self._seen.add(start)
        self._add(first)
        level = [first]
        for depth in range(self._bounds.depth + 1):
            children = await self._below(level, deeper=depth < self._bounds.depth)
            self._progress(len(self.nodes))
            level = children
            if not level:
                return

    def _add(self, one: Node) -> bool:
        if len(self.nodes) >= self._bounds.nodes:
            self.complete = False
            return False
        self.nodes.append(one)
        return True

    async def _below(self, level: Sequence[Node], *, deeper: bool) -> list[Node]:
        children: list[Node] = []
        answers = await references_of(self._session, [one.node for one in level], _HIERARCHICAL)
        for parent, references in zip(level, answers, strict=True):
            for reference in references:
                child = self._child(parent, reference)
                if child is None:
                    continue
                if not deeper:
                    self.complete = False
                elif self._add(child):
                    children.append(child)
        return children

    def _child(self, parent: Node, reference: ua.ReferenceDescription) -> Node | None:
        target = local(reference.NodeId)
        name = text(reference.BrowseName.Name or "") if reference.BrowseName is not None else ""
        if target is None:
            return None
        if reference.ReferenceTypeId == HAS_PROPERTY:
            parent.properties.setdefault(name, target)
            return None
        if reference.NodeClass not in _KINDS:
            return None
        if target in self._seen or parent.kind == ua.NodeClass.Method:
            return None
        self._seen.add(target)
        kind = local(reference.TypeDefinition) if reference.TypeDefinition is not None else None
        if kind in self._conditions:
            return None  # alarms are told by their notifier
        child = Node(target, ua.NodeClass(reference.NodeClass), (*parent.path, name), parent.node)
        if target in _STANDARD:
            if target == _SERVER:
                self._add(child)  # the notifier of all events; what lies below is of the server itself
            return None
        return child

    async def _subtypes(self, top: ua.NodeId) -> set[ua.NodeId]:
        found, level = {top}, [top]
        while level and len(found) < self._bounds.nodes:
            answers = await references_of(self._session, level, _HAS_SUBTYPE)
            targets = {local(one.NodeId) for references in answers for one in references}
            level = [one for one in targets if one is not None and one not in found]
            found.update(level)
        return found


async def references_of(
    session: Session, nodes: Sequence[ua.NodeId], kind: ua.NodeId
) -> list[list[ua.ReferenceDescription]]:
    """Forward references of each node; a node that cannot be browsed has none.

    Raises:
        UaError: the server refused to, or answered something else than was asked.
    """
    found: list[list[ua.ReferenceDescription]] = []
    for piece in pieces(nodes, min(session.limits.browse or _AT_ONCE, _AT_ONCE)):
        results = await session.services.browse(_parameters(piece, kind))
        if len(results) != len(piece):
            raise UaError(f"it gave {len(results)} answers of {len(piece)} nodes")
        for one, result in zip(piece, results, strict=True):
            if result.StatusCode.value == StatusCodes.BadNoContinuationPoints:
                (result,) = await session.services.browse(_parameters([one], kind))
            found.append(await _rest(session, result))
    return found


def _parameters(nodes: Sequence[ua.NodeId], kind: ua.NodeId) -> ua.BrowseParameters:
    wanted = [
        ua.BrowseDescription(
            NodeId=one,
            BrowseDirection=ua.BrowseDirection.Forward,
            ReferenceTypeId=kind,
            IncludeSubtypes=True,
            NodeClassMask=ua.UInt32(0),
            ResultMask=ua.UInt32(ua.BrowseResultMask.All),
        )
        for one in nodes
    ]
    return ua.BrowseParameters(RequestedMaxReferencesPerNode=ua.UInt32(0), NodesToBrowse=wanted)


async def _rest(session: Session, result: ua.BrowseResult) -> list[ua.ReferenceDescription]:
    found = list(result.References or ())
    while result.ContinuationPoint:
        release = len(found) >= _MOST_REFERENCES
        parameters = ua.BrowseNextParameters(
            ReleaseContinuationPoints=release, ContinuationPoints=[result.ContinuationPoint]
        )
        (result,) = await session.services.browse_next(parameters)
        if release or not result.References:
            break
        found += result.References
    return found


def held(data: ua.DataValue) -> object:
    """What an attribute holds; None where it could not be read."""
    if data.StatusCode is not None and not data.StatusCode.is_good():
        return None
    return data.Value.Value if data.Value is not None else None


def local(node: ua.NodeId | None) -> ua.NodeId | None:
    """The node of this server that a reference leads to; None of one of another server, or of none."""
    if node is None or node.is_null():
        return None
    if isinstance(node, ua.ExpandedNodeId):
        if node.ServerIndex or node.NamespaceUri:
            return None
        return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
    return node
