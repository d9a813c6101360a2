"""Data types of a server, and its structures read from their binary encoding (OPC 10000-6, binary encoding).

asyncua makes Python classes of a server's structures, and keeps them by encoding id for the whole process:
with two servers whose types share a number one would be decoded as the other. Here each has its own.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua.ua_binary import unpack_uatype, unpack_uatype_array
from asyncua.ua.uaerrors import UaError

MOST_DEPTH: Final = 32
"""Structures, arrays, variants and the like that may lie within each other."""


class Unfit(Exception):
    """A value that has no meaning, or none in the type it should have; the text says why."""


class Unknown(Unfit):
    """A structure of which the server does not say what it has in it."""


@dataclass(eq=False)
class Structure:
    """A structure or union of a server; `fields` is filled in once the types of all of them are known."""

    name: str
    encoding: ua.NodeId = field(default_factory=ua.NodeId)
    """What says in an extension object that this lies in it: the id of its binary encoding."""
    union: bool = False
    masked: bool = False
    """Some of its fields may be left out, and a mask says which are there."""
    fields: "Sequence[Field] | None" = None


@dataclass(frozen=True, slots=True)
class DataType:
    """What values of a type are on the wire: `structure` of an extension object, where it is known."""

    built_in: ua.VariantType
    structure: Structure | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure; `rank` is the number of its dimensions, 0 of a scalar."""

    name: str
    type: DataType
    rank: int = 0
    optional: bool = False
    subtyped: bool = False
    """Any subtype may stand there: it is an extension object, or a variant."""

    @property
    def on_wire(self) -> DataType:
        """The type as it is encoded: of a field that may hold subtypes what says its own type."""
        if not self.subtyped:
            return self.type
        structured = self.type.built_in is ua.VariantType.ExtensionObject
        return DataType(ua.VariantType.ExtensionObject if structured else ua.VariantType.Variant)


@dataclass
class Dictionary:
    """What one server says of itself: its namespaces by index, its structures by binary encoding."""

    namespaces: Sequence[str] = ()
    structures: dict[ua.NodeId, Structure] = field(default_factory=dict)


class _Body(Buffer):
    """asyncua's buffer goes backwards where a length is negative."""

    def read(self, size: int) -> bytes:
        if size < 0:
            raise NotEnoughData(f"a length of {size}")
        return super().read(size)


def decode(body: bytes, structure: Structure) -> Mapping[str, Any]:
    """The fields of a structure; those that are not there are left out, and of a union there is one or none.

    Structures within it are mappings again, all else is what asyncua has for it.

    Raises:
        Unknown: the server does not say what it has in it.
        Unfit: the body is not one of the structure.
    """
    try:
        data = _Body(body)
        fields = _structure(data, structure, MOST_DEPTH)
    except (
        NotEnoughData,
        UaError,
        ValueError,
        TypeError,
        struct.error,
        OverflowError,
        RecursionError,
    ) as error:
        raise Unfit(f"{structure.name} could not be decoded: {error}"[:200]) from error
    if data:
        raise Unfit(f"{structure.name} is followed by {len(data)} bytes more")
    return fields


def _structure(data: Buffer, structure: Structure, depth: int) -> Mapping[str, Any]:
    if depth <= 0:
        raise ValueError(f"more than {MOST_DEPTH} structures lie within each other")
    if structure.fields is None:
        raise Unknown(f"the server does not say what {structure.name} has in it")
    if structure.union:
        chosen = int(unpack_uatype(ua.VariantType.UInt32, data))
        if chosen > len(structure.fields):
            raise ValueError(f"the union has no field {chosen}")
        present = structure.fields[chosen - 1 : chosen] if chosen else ()
        return {one.name: _field(data, one, depth - 1) for one in present}
    mask = int(unpack_uatype(ua.VariantType.UInt32, data)) if structure.masked else 0
    fields: dict[str, Any] = {}
    bit = 1
    for one in structure.fields:
        if one.optional:
            there, bit = mask & bit, bit << 1
            if not there:
                continue
        fields[one.name] = _field(data, one, depth - 1)
    return fields


def _field(data: Buffer, one: Field, depth: int) -> Any:
    wire = one.on_wire
    if one.rank == 0:
        return _element(data, wire, depth)
    if one.rank == 1:
        shape = [int(unpack_uatype(ua.VariantType.Int32, data))]
    else:
        shape = unpack_uatype_array(ua.VariantType.Int32, data) or [-1]
    if any(length < 0 for length in shape):
        return None
    total = math.prod(shape)
    if total > len(data):
        raise ValueError(f"{total} elements in {len(data)} bytes")
    return nested([_element(data, wire, depth) for _ in range(total)], shape)


def _element(data: Buffer, kind: DataType, depth: int) -> Any:
    if kind.structure is not None:
        return _structure(data, kind.structure, depth)
    return unpack_uatype(kind.built_in, data)


def nested(flat: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """The elements of an array of one or more dimensions, the last of which varies first."""
    if len(shape) <= 1 or not flat:
        return list(flat)
    step = len(flat) // shape[0]
    return [nested(flat[start : start + step], shape[1:]) for start in range(0, len(flat), step)]
