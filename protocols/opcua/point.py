"""What a profile says of a node whose value, or whose events, are a point."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from protocols.mistakes import Wrong
from protocols.units import Duration
from protocols.values import TypedPoint

BuiltIn = Literal[
    "Boolean",
    "SByte",
    "Byte",
    "Int16",
    "UInt16",
    "Int32",
    "UInt32",
    "Int64",
    "UInt64",
    "Float",
    "Double",
    "String",
    "DateTime",
    "Guid",
    "ByteString",
    "XmlElement",
    "NodeId",
    "ExpandedNodeId",
    "StatusCode",
    "QualifiedName",
    "LocalizedText",
    "ExtensionObject",
    "DataValue",
    "Variant",
    "DiagnosticInfo",
]
"""Built-in types (OPC 10000-6)."""

NODE_ID: Final = re.compile(
    r"(?:ns=\d{1,5};|nsu=[^;]+;)?(?:i=\d{1,10}|s=.+|g=[0-9a-fA-F-]{36}|b=[A-Za-z0-9+/=]*)"
)
INDEX_RANGE: Final = r"\d{1,9}(?::\d{1,9})?(?:,\d{1,9}(?::\d{1,9})?)*"
"""Which elements of an array, by dimension (OPC 10000-4, NumericRange)."""
_VALUE_FIELDS: Final = (
    "data_type",
    "fields",
    "index_range",
    "deadband",
    "deadband_percent",
    "trigger",
    "sampling_interval",
)


def _path(written: object) -> object:
    return written.strip("/").split("/") if isinstance(written, str) and written.startswith("/") else written


def _node(node: str | Sequence[str]) -> str | Sequence[str]:
    if isinstance(node, str):
        if not NODE_ID.fullmatch(node):
            raise ValueError(
                "should be a node id such as ns=2;s=Speed or nsu=urn:plant.example;i=7, "
                "or a browse path such as /Objects/2:Plant/2:Speed"
            )
    elif not node or not all(node):
        raise ValueError("a browse path has no empty names")
    return node


Node = Annotated[str | Sequence[str], BeforeValidator(_path), AfterValidator(_node)]
"""A node id (OPC 10000-6), or a browse path from Root of names such as `2:Speed`, `nsu=URI;Speed`."""


def _index_range(text: str) -> str:
    if not re.fullmatch(INDEX_RANGE, text):
        raise ValueError("should be an index range such as 3, 0:4 or 0:4,2 (OPC 10000-4, NumericRange)")
    for one in text.split(","):
        first, _, last = one.partition(":")
        if last and int(first) >= int(last):
            raise ValueError(
                f"{one} should be from a lower index to a higher one; a single one is just itself"
            )
    return text


class OpcuaPoint(TypedPoint):
    """A variable's value, or with `events` what a notifier reports."""

    node: Node = Field(description="Node id, or browse path from Root such as /Objects/2:Plant/2:Speed.")
    data_type: BuiltIn | None = Field(
        None, description="Type on the wire, held against the server's; default: whatever the server has."
    )
    fields: Mapping[str, BuiltIn] | None = Field(
        None, description="Of an object: fields of the structure when it is simulated."
    )
    index_range: Annotated[str, AfterValidator(_index_range)] | None = Field(
        None, description="Part of an array, such as 0:4."
    )
    sampling_interval: Duration | None = Field(None, ge=0, description="Instead of the device's.")
    queue: int | None = Field(None, ge=1, le=1_000_000, description="Instead of the device's.")
    discard: Literal["oldest", "newest"] = Field("oldest", description="What a full queue gives up.")
    deadband: float | None = Field(
        None, gt=0, description="Least change that is reported, in the node's own unit (before scale)."
    )
    deadband_percent: float | None = Field(
        None, gt=0, le=100, description="Least change that is reported, in percent of the node's EURange."
    )
    trigger: Literal["status", "status-value", "status-value-timestamp"] = Field(
        "status-value", description="What counts as a change."
    )
    events: Literal["alarms", "all"] | None = Field(
        None, description="Report the node's events: alarms and conditions, or all. The point is an object."
    )
    severity: int = Field(1, ge=1, le=1000, description="Of events: the lowest severity that is reported.")

    def mistakes(self) -> Iterator[Wrong]:
        """What is wrong with the point by itself."""
        yield from super().mistakes()
        if self.deadband is not None and self.deadband_percent is not None:
            yield ("deadband_percent",), "give one of deadband and deadband_percent"
        if (self.deadband or self.deadband_percent) and self.type not in ("number", "integer", "array"):
            yield ("deadband" if self.deadband else "deadband_percent",), f"a {self.type} has no deadband"
        if self.fields is not None and self.type != "object":
            yield ("fields",), "only an object has fields"
        if self.events is None:
            if "severity" in self.model_fields_set:
                yield ("severity",), "only events have a severity"
            return
        if self.type != "object" or self.access != "ro":
            yield (
                ("type" if self.type != "object" else "access",),
                "events are read-only objects: type: object",
            )
        for field in _VALUE_FIELDS:
            if field in self.model_fields_set:
                yield (field,), "belongs to a value, and this point is events"
