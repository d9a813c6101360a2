"""The variables of a simulated server: what they hold, and which points that is. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from asyncua import ua

from protocols.base import Value
from protocols.opcua.point import OpcuaPoint
from sim.opcua.services import bounds
from sim.opcua.values import raw_of, to_server, zero


@dataclasses.dataclass(slots=True)
class Variable:
    """A node with a value, and the points that are its value or parts of it."""

    node_id: ua.NodeId
    kind: str
    """The built-in type of the value or its elements."""
    points: Sequence[OpcuaPoint]
    raw: Any
    """The value as the server holds it."""
    structure: type | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """Whether any of the points is."""
        return any(point.readable for point in self.points)

    @property
    def writable(self) -> bool:
        """Whether any of the points is."""
        return any(point.writable for point in self.points)

    def put(self, point: OpcuaPoint, value: Value) -> None:
        """Gives a point a value, in engineering units."""
        raw = raw_of(point, value)
        if self.structure is not None:
            parts = raw if isinstance(raw, dict) else {}
            self.raw = self.structure(
                *(
                    to_server(parts[name], kind) if name in parts else zero(kind)
                    for name, kind in self.fields.items()
                )
            )
            return
        made = to_server(raw, self.kind)
        part = bounds(point.index_range) if is_simple(point.index_range) else None
        if part is None:
            self.raw = made
        else:
            elements = made if isinstance(made, list) else [made]
            whole = [*self.raw]
            whole[part[0] : part[0] + len(elements)] = elements
            self.raw = whole

    def variant(self) -> ua.Variant:
        """The value as it is written and sent."""
        if self.raw is None:
            return ua.Variant(None, ua.VariantType.Null)
        return ua.Variant(self.raw, ua.VariantType[self.kind], is_array=isinstance(self.raw, list))


def is_simple(index_range: str | None) -> bool:
    """Whether it is an index range of one dimension."""
    return index_range is not None and "," not in index_range
