"""From nodes as profiles write them to node ids, with the namespaces that the server has. Pure."""

from collections.abc import Sequence
from typing import Final

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError

_ROOT: Final = ua.NodeId(ua.Int32(ObjectIds.RootFolder))
_HIERARCHICAL: Final = ua.NodeId(ua.Int32(ObjectIds.HierarchicalReferences))
_WHOLE: Final = 0xFFFF_FFFF
"""RemainingPathIndex of a target that the whole path leads to (TranslateBrowsePathsToNodeIds)."""


def resolved(
    node: str | Sequence[str], namespaces: Sequence[str]
) -> ua.NodeId | ua.BrowsePath | ua.StatusCode:
    """A node id, or the browse path to ask the server for; else why there is none."""
    if not isinstance(node, str):
        return _browse_path(node, namespaces)
    index = 0
    text = node
    if node.startswith(("nsu=", "ns=")):
        space, text = node.split(";", 1)
        found = _index(space, namespaces)
        if found is None:
            return _status(StatusCodes.BadNodeIdUnknown)
        index = found
    try:
        parsed = ua.NodeId.from_string(f"ns={index};{text}")
    except (UaError, ValueError):
        return _status(StatusCodes.BadNodeIdInvalid)
    return ua.NodeId(parsed.Identifier, parsed.NamespaceIndex, parsed.NodeIdType)


def target(result: ua.BrowsePathResult, namespaces: Sequence[str]) -> ua.NodeId | ua.StatusCode:
    """Where a browse path leads on this server, or why nowhere."""
    if result.StatusCode.is_bad():
        return ua.StatusCode(result.StatusCode.value)
    for one in result.Targets or ():
        node = one.TargetId
        if one.RemainingPathIndex != _WHOLE or getattr(node, "ServerIndex", None):
            continue
        index = node.NamespaceIndex
        if uri := getattr(node, "NamespaceUri", None):
            if uri not in namespaces:
                continue
            index = ua.Int16(list(namespaces).index(uri))
        return ua.NodeId(node.Identifier, index, node.NodeIdType)
    return _status(StatusCodes.BadNoMatch)


def _browse_path(names: Sequence[str], namespaces: Sequence[str]) -> ua.BrowsePath | ua.StatusCode:
    elements = []
    for name in names:
        index: int | None = 0
        if name.startswith("nsu=") and ";" in name:
            space, name = name.split(";", 1)
            index = _index(space, namespaces)
        elif ":" in name and name.split(":", 1)[0].isdecimal():
            number, name = name.split(":", 1)
            index = int(number)
        if index is None or index > 0xFFFF:
            return _status(StatusCodes.BadNoMatch)
        element = ua.RelativePathElement(
            ReferenceTypeId=_HIERARCHICAL,
            IsInverse=False,  # type: ignore[arg-type]  # a bool it is
            IncludeSubtypes=True,  # type: ignore[arg-type]  # a bool it is
            TargetName=ua.QualifiedName(name, ua.UInt16(index)),
        )
        elements.append(element)
    return ua.BrowsePath(_ROOT, ua.RelativePath(elements))


def _index(space: str, namespaces: Sequence[str]) -> int | None:
    """The index that `ns=2` or `nsu=URI` means."""
    kind, _, text = space.partition("=")
    if kind == "ns":
        return int(text) if int(text) <= 0xFFFF else None
    return list(namespaces).index(text) if text in namespaces else None


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))
