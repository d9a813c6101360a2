"""OPC UA values as JSON and back: all that is said is what was had, and bytes that are wrong say nothing."""

import math
from typing import Any

import msgspec
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import pack_uatype
from hypothesis import given, settings
from hypothesis import strategies as st
from opcua_values import SCALARS, VARIANTS, deep

from protocols.opcua.from_json import array, element, packed, variant
from protocols.opcua.structures import DataType, Dictionary, Field, Structure, Unfit, decode
from protocols.opcua.to_json import to_json

_DICTIONARY = Dictionary(["http://opcfoundation.org/UA/", "urn:one.example", "urn:two.example"])


def _clean(value: Any) -> bool:
    """Whether JSON can say it without loss: not texts that are no UTF-8."""
    if isinstance(value, ua.NodeId) and value.Identifier == "":
        return False  # a node without an identifier is none
    texts = [value, *(getattr(value, name, None) for name in ("Name", "Text", "Value", "Identifier"))]
    return all(text.isprintable() for text in texts if isinstance(text, str))


@pytest.mark.parametrize("name", sorted(SCALARS))
def test_what_goes_to_json_comes_back(name: str) -> None:
    kind = DataType(ua.VariantType[name])

    @settings(max_examples=60)
    @given(SCALARS[name].filter(_clean))
    def check(value: Any) -> None:
        said = msgspec.json.decode(msgspec.json.encode(to_json(value, _DICTIONARY)))
        back = element(said, kind, _DICTIONARY)
        if isinstance(value, float) and math.isnan(value):
            assert math.isnan(back)
        elif isinstance(value, ua.StatusCode):
            assert back.value & 0xFFFF_0000 == value.value & 0xFFFF_0000
        elif isinstance(value, ua.LocalizedText):
            assert (back.Text or "") == (value.Text or "")
        elif isinstance(value, ua.QualifiedName):
            assert back.Name == value.Name or ":" in value.Name or ";" in value.Name
        elif isinstance(value, ua.NodeId) and value.Identifier == b"":
            assert back.NamespaceIndex == value.NamespaceIndex
        else:
            assert back == value
        assert pack_uatype(kind.built_in, back) is not None

    check()


@settings(max_examples=100)
@given(VARIANTS)
def test_whatever_comes_is_json_or_unfit(value: ua.Variant) -> None:
    try:
        said = to_json(value, _DICTIONARY)
    except Unfit:
        return
    assert msgspec.json.decode(msgspec.json.encode(said)) == said


def test_what_lies_too_deep_is_unfit_both_ways() -> None:
    with pytest.raises(Unfit, match="lie within each other"):
        to_json(deep(100), _DICTIONARY)
    value: Any = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(Unfit, match="lie within each other"):
        variant(value, _DICTIONARY)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(_JSON, st.sampled_from(list(ua.VariantType)), st.integers(0, 3))
def test_any_json_is_a_value_that_can_be_sent_or_unfit(
    value: Any, built_in: ua.VariantType, rank: int
) -> None:
    try:
        told = packed(value, rank, DataType(built_in), _DICTIONARY)
    except Unfit:
        return
    pack_uatype(ua.VariantType.Variant, told)


_INNER = Structure("inner", ua.NodeId(ua.Int32(1), ua.Int16(1)))
_INNER.fields = (
    Field("number", DataType(ua.VariantType.Int64)),
    Field("next", DataType(ua.VariantType.ExtensionObject, _INNER), optional=True),
    Field("text", DataType(ua.VariantType.String), optional=True),
)
_INNER.masked = True
_UNION = Structure(
    "union",
    ua.NodeId(ua.Int32(2), ua.Int16(1)),
    union=True,
    fields=(Field("a", DataType(ua.VariantType.Byte)), Field("b", DataType(ua.VariantType.String))),
)
_OUTER = Structure(
    "outer",
    ua.NodeId(ua.Int32(3), ua.Int16(1)),
    fields=(
        Field("inner", DataType(ua.VariantType.ExtensionObject, _INNER)),
        Field("list", DataType(ua.VariantType.ExtensionObject, _INNER), rank=1),
        Field("matrix", DataType(ua.VariantType.UInt16), rank=2),
        Field("either", DataType(ua.VariantType.ExtensionObject, _UNION)),
        Field("any", DataType(ua.VariantType.Variant)),
        Field("sub", DataType(ua.VariantType.ExtensionObject, _INNER), subtyped=True),
    ),
)
for _one in (_INNER, _UNION, _OUTER):
    _DICTIONARY.structures[_one.encoding] = _one

_INNERS = st.recursive(
    st.fixed_dictionaries(
        {"number": st.integers(-(1 << 63), (1 << 63) - 1)}, optional={"text": st.text("ab", min_size=1)}
    ),
    lambda deeper: st.fixed_dictionaries({"number": st.just(1), "next": deeper}),
    max_leaves=3,
)
_OUTERS = st.fixed_dictionaries(
    {
        "inner": _INNERS,
        "list": st.lists(_INNERS, max_size=3),
        "matrix": st.sampled_from([[[1, 2], [3, 4], [5, 65535]], [[7]], [[1, 2, 3]]]),
        "either": st.sampled_from([{}, {"a": 255}, {"b": "t"}]),
        "any": st.sampled_from([None, True, 1 << 60, 0.5, "t", [1, 2]]),
    }
)


@settings(max_examples=100)
@given(_OUTERS)
def test_a_structure_comes_back_as_it_was(value: dict[str, Any]) -> None:
    told = value | {"sub": {"type_id": "nsu=urn:one.example;i=1", "body": value["inner"]}}
    sent = element(told, DataType(ua.VariantType.ExtensionObject, _OUTER), _DICTIONARY)
    assert isinstance(sent, ua.ExtensionObject)
    assert to_json(sent, _DICTIONARY) == value | {"sub": value["inner"]}


@settings(max_examples=100)
@given(st.binary(max_size=80), st.sampled_from([_INNER, _UNION]))
def test_bytes_that_are_no_structure_are_unfit(body: bytes, structure: Structure) -> None:
    try:
        fields = decode(body, structure)
    except Unfit:
        return
    try:
        msgspec.json.encode(to_json(fields, _DICTIONARY))
    except Unfit:
        return


@settings(max_examples=60)
@given(_OUTERS, st.data())
def test_a_structure_that_was_cut_is_unfit(value: dict[str, Any], data: st.DataObject) -> None:
    told = value | {"sub": {"type_id": "nsu=urn:one.example;i=1", "body": "00"}}
    body = element(told, DataType(ua.VariantType.ExtensionObject, _OUTER), _DICTIONARY).Body
    with pytest.raises(Unfit):
        decode(body[: data.draw(st.integers(0, len(body) - 1))], _OUTER)
    with pytest.raises(Unfit, match="followed by 1 bytes more"):
        decode(body + b"\x00", _OUTER)


def test_an_array_that_says_it_is_huge_is_unfit() -> None:
    listed = Structure("listed", fields=(Field("list", DataType(ua.VariantType.Double), rank=1),))
    matrix = Structure("matrix", fields=(Field("list", DataType(ua.VariantType.Double), rank=2),))
    huge = pack_uatype(ua.VariantType.Int32, 0x7FFF_FFFF)
    with pytest.raises(Unfit, match="2147483647 elements"):
        decode(huge, listed)
    with pytest.raises(Unfit, match="elements in 0 bytes"):
        decode(pack_uatype(ua.VariantType.Int32, 2) + huge + huge, matrix)
    assert decode(pack_uatype(ua.VariantType.Int32, -1), listed) == {"list": None}


def test_arrays_have_the_dimensions_that_are_wanted() -> None:
    whole = DataType(ua.VariantType.Int16)
    assert array([[1, 2], [3, 4]], 2, whole, _DICTIONARY) == [[1, 2], [3, 4]]
    for wrong, rank, text in (
        ([1], 2, "no array of 1 dimensions|no array"),
        ([[1], [2, 3]], 2, "differ in length"),
        (1, 1, "no array"),
    ):
        with pytest.raises(Unfit, match=text):
            array(wrong, rank, whole, _DICTIONARY)
