"""Writes to a real server: in its types, refused before anything is sent where they do not fit."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from opcua_plant import URI, Plant, add, encoding_of, plant, structure, talking

from protocols.base import DriverError, Value
from protocols.opcua.writes import write

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Plant]:
    """One server for all tests of this module."""
    async with plant() as both:
        yield both


async def _variable(
    served: Plant, name: str, variant: ua.Variant, *, of: ua.NodeId | None = None, writable: bool = True
) -> str:
    """A new variable, and how a profile names it."""
    node = await add(served, name, variant, of)
    if writable:
        await node.set_writable()
    return f"nsu={URI};s={name}"


async def _holds(served: Plant, name: str) -> ua.Variant:
    server, index = served
    data = await server.get_node(ua.NodeId(ua.String(name), index)).read_data_value()
    assert data.Value is not None
    return data.Value


@pytest.mark.parametrize(
    ("before", "built_in", "point", "value", "held"),
    [
        (False, "Boolean", {"type": "boolean"}, True, True),
        (0, "Int64", {"type": "integer"}, (1 << 63) - 1, (1 << 63) - 1),
        (0, "UInt64", {"type": "integer"}, (1 << 64) - 1, (1 << 64) - 1),
        (0, "Byte", {}, 7.0, 7),
        (0.0, "Float", {}, 0.5, 0.5),
        (0.0, "Double", {}, 3, 3.0),
        (0, "Int16", {"scale": 0.1}, 12.34, 123),
        ("", "String", {"type": "string"}, "Grüße", "Grüße"),
        (b"", "ByteString", {"type": "string"}, "00ff", b"\x00\xff"),
        (0, "Int32", {"type": "enumeration", "labels": {0: "off", 4: "on"}}, "on", 4),
        ([0], "Int16", {"type": "array"}, [1, -2], [1, -2]),
        ([0], "Int16", {"type": "array"}, [], []),
        ([[1, 2]], "Double", {"type": "array"}, [[1, 2.5, 3], [4, 5, 6]], [[1, 2.5, 3], [4, 5, 6]]),
        (ua.LocalizedText("heiß", "de"), "LocalizedText", {"type": "string"}, "kalt", ("kalt", "de")),
    ],
)
async def test_a_value_is_written_in_the_servers_type(
    served: Plant,
    request: pytest.FixtureRequest,
    before: Any,
    built_in: str,
    point: Any,
    value: Value,
    held: Any,
) -> None:
    kind = ua.VariantType[built_in]
    name = request.node.name
    node = await _variable(served, name, ua.Variant(before, kind))
    async with talking(served[0], {"p": {"node": node, "access": "rw"} | point}) as session:
        sample = await write(session, {"p": value})
    after = await _holds(served, name)
    assert after.VariantType is kind
    text = after.Value
    assert ((text.Text, text.Locale) if isinstance(text, ua.LocalizedText) else text) == held
    expected = {12.34: 12.3}.get(value, value) if isinstance(value, float) else value
    assert sample.values == {"p": expected}


@pytest.mark.parametrize(
    ("before", "built_in", "point", "value", "text"),
    [
        (0, "Byte", {}, 256, "256 does not fit Byte: it holds 0 to 255"),
        (0, "UInt16", {}, -1, "-1 does not fit UInt16: it holds 0 to 65535"),
        (0, "Int32", {}, 0.5, "0.5 is no whole number, as Int32 wants"),
        (0, "Int64", {}, 1 << 63, "does not fit Int64"),
        (0.0, "Float", {}, 1e300, "does not fit Float"),
        ("", "String", {}, 1.0, "1.0 is no text"),
        ([0], "Int16", {"type": "array"}, [1, "x"], "'x' is no whole number"),
        ([[1, 2]], "Double", {"type": "array"}, [[1], [2, 3]], "rows of the array differ in length"),
        (0, "Int16", {"data_type": "Int32"}, 1, "the server has it as Int16, the profile as Int32"),
        (0, "Int32", {"scale": 1e-20}, 1.0, "does not fit Int32"),
    ],
)
async def test_nothing_is_sent_where_one_value_does_not_fit(
    served: Plant,
    request: pytest.FixtureRequest,
    before: Any,
    built_in: str,
    point: Any,
    value: Value,
    text: str,
) -> None:
    name = request.node.name
    node = await _variable(served, name, ua.Variant(before, ua.VariantType[built_in]))
    good = await _variable(served, f"good {name}", ua.Variant(1.0, ua.VariantType.Double))
    points = {"p": {"node": node, "access": "rw"} | point, "good": {"node": good, "access": "rw"}}
    async with talking(served[0], points) as session:
        with pytest.raises(DriverError, match=text) as caught:
            await write(session, {"good": 2.0, "p": value})
    assert caught.value.code == "device-error"
    assert str(caught.value).startswith("nothing was written: p: ")
    assert caught.value.written == {}
    assert (await _holds(served, f"good {name}")).Value == 1.0


async def test_what_the_server_does_not_take_is_said_and_the_rest_is_written(served: Plant) -> None:
    locked = await _variable(served, "locked", ua.Variant(1.0, ua.VariantType.Double), writable=False)
    free = await _variable(served, "free", ua.Variant(1.0, ua.VariantType.Double))
    points = {name: {"node": node, "access": "rw"} for name, node in (("locked", locked), ("free", free))}
    async with talking(served[0], points) as session:
        with pytest.raises(DriverError, match="did not write locked: Bad") as caught:
            await write(session, {"locked": 2.0, "free": 3.0})
    assert caught.value.code == "device-error"
    assert caught.value.written == {"free": 3.0}
    assert (await _holds(served, "free")).Value == 3.0


async def test_a_node_that_the_server_has_not(served: Plant) -> None:
    points = {"p": {"node": f"nsu={URI};s=nowhere", "access": "rw"}}
    async with talking(served[0], points) as session:
        with pytest.raises(DriverError, match="BadNodeIdUnknown") as caught:
            await write(session, {"p": 2.0})
    assert caught.value.code == "device-error"


async def test_a_variable_of_any_type_keeps_the_one_it_has(served: Plant) -> None:
    number = ua.NodeId(ua.Int32(26))
    node = await _variable(served, "open", ua.Variant(1, ua.VariantType.UInt16), of=number)
    points = {"p": {"node": node, "access": "rw"}}
    async with talking(served[0], points) as session:
        await write(session, {"p": 2})
        assert await _holds(served, "open") == ua.Variant(2, ua.VariantType.UInt16)
        with pytest.raises(DriverError, match="-1 does not fit UInt16"):
            await write(session, {"p": -1})


async def test_a_structure_is_written_field_by_field(served: Plant) -> None:
    server, index = served
    inner = await structure(
        server, index, "Point", {"X": ua.VariantType.Int64, "Y": (ua.VariantType.Float, 1)}
    )
    outer = await structure(server, index, "Path", {"Name": ua.VariantType.String, "Points": [inner]})
    empty = ua.Variant(None, ua.VariantType.ExtensionObject)
    node = await _variable(served, "path", empty, of=outer)
    value: Value = {"Name": "n", "Points": [{"X": 1 << 60}, {"X": 2, "Y": 0.5}]}
    async with talking(server, {"p": {"node": node, "access": "rw", "type": "object"}}) as session:
        assert (await write(session, {"p": value})).values == {"p": value}
        held = (await _holds(served, "path")).Value
        assert held.TypeId == await encoding_of(server, outer)
        for wrong, text in (
            ({"Name": "n"}, "needs its field Points"),
            ({"Name": "n", "Points": [], "More": 1}, "has no field 'More'; it has Name, Points"),
            ({"Name": "n", "Points": [{"X": 1.5}]}, "Points: X: 1.5 is no whole number"),
            ({"Name": "n", "Points": {}}, "Points: {} is no array"),
        ):
            with pytest.raises(DriverError, match=text):
                await write(session, {"p": wrong})
    assert (await _holds(served, "path")).Value == held
