"""Values of a real server as points have them: all built-in types, arrays, matrices and structures."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import pack_uatype
from opcua_plant import URI, Plant, add, encoding_of, plant, structure, talking

from protocols.base import Quality
from protocols.opcua.codec import Codec
from protocols.opcua.types import NodeType, read_ids, types_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Plant]:
    """One server for all tests of this module."""
    async with plant() as both:
        yield both


async def _taken(served: Plant, variant: ua.Variant, of: ua.NodeId | None = None, **point: Any) -> Any:
    """What a point of a new variable with this value is."""
    name = str(uuid.uuid4())
    await add(served, name, variant, of)
    server, written = served[0], f"nsu={URI};s={name}"
    async with talking(server, {"value": {"node": written} | point}) as session:
        (kind,) = await types_of(session, [session.node_id("value")])
        assert isinstance(kind, NodeType)
        (data,) = await session.read(read_ids([session.node_id("value")], AttributeIds.Value))
        return Codec(session.device.points["value"], kind=kind).take(data)


_GUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
_TIME = datetime(2026, 11, 22, 18, 0, 0, 123456, UTC)


@pytest.mark.parametrize(
    ("value", "built_in", "kind", "taken"),
    [
        (True, "Boolean", "boolean", True),
        (-128, "SByte", "integer", -128),
        (255, "Byte", "integer", 255),
        (-32768, "Int16", "integer", -32768),
        (65535, "UInt16", "integer", 65535),
        (-(1 << 31), "Int32", "integer", -(1 << 31)),
        ((1 << 32) - 1, "UInt32", "integer", (1 << 32) - 1),
        (-(1 << 63) + 1, "Int64", "integer", -(1 << 63) + 1),
        ((1 << 64) - 1, "UInt64", "integer", (1 << 64) - 1),
        (0.5, "Float", "number", 0.5),
        (0.1, "Double", "number", 0.1),
        (float("nan"), "Double", "number", Quality.NOT_A_NUMBER),
        (float("-inf"), "Float", "number", Quality.NOT_A_NUMBER),
        ("Grüße", "String", "string", "Grüße"),
        (None, "String", "string", ""),
        (_TIME, "DateTime", "string", "2026-11-22T18:00:00.123456Z"),
        (_GUID, "Guid", "string", str(_GUID)),
        (b"\x00\xff", "ByteString", "string", "00ff"),
        (ua.XmlElement(ua.String("<a/>")), "XmlElement", "string", "<a/>"),
        (ua.NodeId(ua.String("x"), ua.Int16(3)), "NodeId", "string", f"nsu={URI};s=x"),
        (ua.StatusCode(ua.UInt32(0x8034_0000)), "StatusCode", "string", "BadNodeIdUnknown"),
        (ua.QualifiedName("n", 3), "QualifiedName", "string", f"nsu={URI};n"),
        (ua.LocalizedText("heiß", "de"), "LocalizedText", "string", "heiß"),
        (b"12", "ByteString", "number", Quality.BAD_CONFIG),
        (1, "Int32", "string", Quality.BAD_CONFIG),
        ([1, (1 << 63) - 1], "Int64", "array", [1, (1 << 63) - 1]),
        ([0.5, float("nan"), float("inf")], "Double", "array", [0.5, "NaN", "Infinity"]),
        ([[1, 2, 3], [4, 5, 6]], "Int32", "array", [[1, 2, 3], [4, 5, 6]]),
        (["a", None], "String", "array", ["a", None]),
    ],
)
async def test_a_value_of_each_built_in_type(
    served: Plant, value: Any, built_in: str, kind: str, taken: Any
) -> None:
    variant = ua.Variant(value, ua.VariantType[built_in])
    assert await _taken(served, variant, type=kind) == taken


async def test_an_enumeration_is_its_label(served: Plant) -> None:
    labels = {0: "off", 1: "on"}
    on, other = (ua.Variant(code, ua.VariantType.Int32) for code in (1, 7))
    assert await _taken(served, on, type="enumeration", labels=labels) == "on"
    assert await _taken(served, other, type="enumeration", labels=labels) == Quality.OUT_OF_RANGE
    assert await _taken(served, on, type="integer") == 1


async def test_a_type_that_the_profile_states_is_held_against_the_servers(served: Plant) -> None:
    value = ua.Variant(1, ua.VariantType.Int16)
    assert await _taken(served, value, data_type="Int16") == 1
    assert await _taken(served, value, data_type="Int32") == Quality.BAD_CONFIG


async def test_a_structure_is_an_object_with_its_fields(served: Plant) -> None:
    server, index = served
    inner = await structure(server, index, "Inner", {"A": ua.VariantType.Int64, "B": ua.VariantType.String})
    outer = await structure(
        server,
        index,
        "Outer",
        {
            "Inner": inner,
            "List": [inner],
            "Speed": (ua.VariantType.Double, "optional"),
            "Name": (ua.VariantType.String, "optional"),
        },
    )
    parts = [
        pack_uatype(ua.VariantType.UInt32, 0b10),  # the mask: of the optional fields only Name is there
        pack_uatype(ua.VariantType.Int64, 1 << 60),
        pack_uatype(ua.VariantType.String, "b"),
        pack_uatype(ua.VariantType.Int32, 2),
        *(pack_uatype(ua.VariantType.Int64, n) + pack_uatype(ua.VariantType.String, None) for n in (1, 2)),
        pack_uatype(ua.VariantType.String, "n"),
    ]
    encoding = await encoding_of(server, outer)
    held = ua.ExtensionObject(TypeId=encoding, Body=ua.ByteString(b"".join(parts)))
    value = ua.Variant(held, ua.VariantType.ExtensionObject)
    assert await _taken(served, value, outer, type="object") == {
        "Inner": {"A": 1 << 60, "B": "b"},
        "List": [{"A": 1, "B": None}, {"A": 2, "B": None}],
        "Name": "n",
    }
    # a variable of the abstract Structure may hold any of them
    anything = ua.NodeId(ua.Int32(22))
    assert (await _taken(served, value, anything, type="object"))["Name"] == "n"
    cut = ua.ExtensionObject(TypeId=held.TypeId, Body=ua.ByteString(b"".join(parts)[:-1]))
    cut_value = ua.Variant(cut, ua.VariantType.ExtensionObject)
    assert await _taken(served, cut_value, outer, type="object") == Quality.DEVICE_ERROR


async def test_a_union_is_an_object_with_the_field_that_it_holds(served: Plant) -> None:
    server, index = served
    union = await structure(
        server, index, "Either", {"Number": ua.VariantType.Int32, "Text": ua.VariantType.String}, union=True
    )
    encoding = await encoding_of(server, union)
    body = pack_uatype(ua.VariantType.UInt32, 2) + pack_uatype(ua.VariantType.String, "t")
    held = ua.ExtensionObject(TypeId=encoding, Body=ua.ByteString(body))
    value = ua.Variant(held, ua.VariantType.ExtensionObject)
    assert await _taken(served, value, union, type="object") == {"Text": "t"}


async def test_a_structure_of_the_standard_and_one_that_nobody_describes(served: Plant) -> None:
    range_ = ua.Variant(ua.Range(Low=ua.Double(0.0), High=ua.Double(5.0)), ua.VariantType.ExtensionObject)
    assert await _taken(served, range_, type="object") == {"Low": 0.0, "High": 5.0}
    unknown = ua.ExtensionObject(TypeId=ua.NodeId(ua.Int32(4711), ua.Int16(3)), Body=ua.ByteString(b"\x01"))
    value = ua.Variant(unknown, ua.VariantType.ExtensionObject)
    anything = ua.NodeId(ua.Int32(22))
    assert await _taken(served, value, anything, type="object") == {
        "type_id": f"nsu={URI};i=4711",
        "body": "01",
    }
