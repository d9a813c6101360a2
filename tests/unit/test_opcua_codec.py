"""What a point makes of any value a server may send, and what a node is told."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from opcua_values import DATA_VALUES, VARIANTS, deep
from pydantic import ValidationError

from protocols.base import Quality
from protocols.opcua.codec import Codec, time_ns
from protocols.opcua.point import OpcuaPoint
from protocols.opcua.structures import DataType, Dictionary, Unfit
from protocols.opcua.types import NodeType

_KINDS: dict[str, dict[str, Any]] = {
    "number": {},
    "scaled": {"scale": 1e30, "offset": 5},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "enumeration": {"type": "enumeration", "labels": {0: "off", 1: "on"}},
    "array": {"type": "array"},
    "object": {"type": "object"},
    "typed": {"data_type": "Int32"},
    "part": {"index_range": "1"},
    "parts": {"type": "array", "index_range": "0:1,2"},
}
_CODECS = {name: Codec(OpcuaPoint(node="i=1", **fields)) for name, fields in _KINDS.items()}
_PYTHON = {
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "string": (str,),
    "enumeration": (str,),
    "array": (list,),
    "object": (dict,),
}


@settings(max_examples=100)
@given(DATA_VALUES, st.sampled_from(sorted(_CODECS)))
def test_any_value_is_taken_or_has_a_quality(data: ua.DataValue, name: str) -> None:
    codec = _CODECS[name]
    taken = codec.take(data)
    if not isinstance(taken, Quality):
        kind = OpcuaPoint(node="i=1", **_KINDS[name]).kind
        assert isinstance(taken, _PYTHON[kind])
        assert isinstance(taken, bool) == (kind == "boolean")
        assert msgspec.json.decode(msgspec.json.encode(taken)) == taken  # nothing in it is NaN or no text


@given(DATA_VALUES, st.sampled_from(["source", "server", "gateway"]))
def test_any_value_has_a_time(data: ua.DataValue, mode: Any) -> None:
    assert time_ns(data, mode, 7) >= 0


@settings(max_examples=100)
@given(VARIANTS, st.sampled_from(sorted(_CODECS)), st.integers(-3, 3))
def test_a_node_is_told_something_that_can_be_sent_or_nothing(now: ua.Variant, name: str, rank: int) -> None:
    for built_in in (now.VariantType, ua.VariantType.Variant):
        if not isinstance(built_in, ua.VariantType):
            continue
        kind = NodeType(DataType(built_in), rank, Dictionary(["", "urn:a.example"]))
        for value in (True, 1, 0.5, "on", "x", [1, "x"], [[1], [2]], {"a": 1}):
            try:
                told = Codec(OpcuaPoint(node="i=1", type="object")).variant(value, kind, now)  # of any type
            except Unfit:
                continue
            assert isinstance(told, ua.Variant)
            assert told.to_binary() if hasattr(told, "to_binary") else ua.ua_binary.variant_to_binary(told)


def _data(value: Any, built_in: str = "Double", **fields: Any) -> ua.DataValue:
    return ua.DataValue(ua.Variant(value, ua.VariantType[built_in]), **fields)


def test_a_good_null_is_a_device_error_and_an_empty_text_where_it_is_a_text() -> None:
    assert _CODECS["number"].take(ua.DataValue()) == Quality.DEVICE_ERROR
    assert _CODECS["typed"].take(ua.DataValue()) == Quality.DEVICE_ERROR
    assert _CODECS["object"].take(_data(None, "ExtensionObject")) == Quality.DEVICE_ERROR
    assert _CODECS["string"].take(_data(None, "String")) == ""
    null = ua.Variant(None, ua.VariantType.Double, is_array=True)
    assert _CODECS["array"].take(ua.DataValue(null)) == []


def test_the_status_comes_before_the_value() -> None:
    bad = ua.StatusCode(ua.UInt32(StatusCodes.UncertainSubNormal))
    assert _CODECS["number"].take(_data(1.5, StatusCode=bad)) == Quality.DEVICE_ERROR
    tolerant = Codec(OpcuaPoint(node="i=1"), ["UncertainSubNormal"])
    assert tolerant.take(_data(1.5, StatusCode=bad)) == 1.5
    assert _CODECS["number"].take(_data(1.5, StatusCode=None)) == 1.5


def test_values_that_lie_too_deep_are_a_device_error() -> None:
    assert _CODECS["array"].take(ua.DataValue(deep(5))) == [[[[[1]]]]]
    assert _CODECS["array"].take(ua.DataValue(deep(5000))) == Quality.DEVICE_ERROR


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("part", [7.0], 7.0),  # one element is an array as well
        ("part", [6.0, 7.0, 8.0], Quality.DEVICE_ERROR),  # the server gave all it has
        ("part", [], Quality.DEVICE_ERROR),
        ("parts", [[1.0], [2.0]], [[1.0], [2.0]]),
        ("parts", [[1.0]], [[1.0]]),  # the array is shorter than the range
        ("parts", [[1.0, 2.0]], Quality.DEVICE_ERROR),
    ],
)
def test_part_of_an_array(name: str, value: Any, taken: Any) -> None:
    assert _CODECS[name].take(_data(value)) == taken


@pytest.mark.parametrize(
    ("name", "rank", "value", "told"),
    [
        ("part", 1, 7.0, [7.0]),
        ("part", 0, 7.0, [7.0]),
        ("parts", 2, [[1.0], [2.0]], [[1.0], [2.0]]),
        ("parts", 2, [[1.0]], None),
        ("parts", 2, [[1.0, 2.0], [3.0, 4.0]], None),
    ],
)
def test_writing_part_of_an_array(name: str, rank: int, value: Any, told: Any) -> None:
    kind = NodeType(DataType(ua.VariantType.Double), rank, Dictionary())
    if told is None:
        with pytest.raises(Unfit, match="index range"):
            _CODECS[name].variant(value, kind)
    else:
        variant = _CODECS[name].variant(value, kind)
        assert (variant.Value, variant.is_array) == (told, True)


@pytest.mark.parametrize("index_range", ["3:3", "4:2", "0:1,5:2"])
def test_an_index_range_goes_up(index_range: str) -> None:
    with pytest.raises(ValidationError, match="from a lower index to a higher one"):
        OpcuaPoint(node="i=1", type="array", index_range=index_range)


_SOURCE, _SERVER = (ua.DateTime(2026, 11, 22, 18, 0, second, 123456, UTC) for second in (1, 2))
_NONE = ua.DateTime(1601, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("mode", "source", "server", "second"),
    [
        ("source", _SOURCE, _SERVER, 1),
        ("source", None, _SERVER, 2),
        ("source", _NONE, _SERVER, 2),
        ("source", None, _NONE, None),
        ("server", _SOURCE, _SERVER, 2),
        ("server", _SOURCE, None, None),
        ("gateway", _SOURCE, _SERVER, None),
    ],
)
def test_the_time_is_of_the_clock_that_was_chosen(
    mode: Any, source: Any, server: Any, second: int | None
) -> None:
    data = ua.DataValue(ua.Variant(1.0), SourceTimestamp=source, ServerTimestamp=server)
    start = int(datetime(2026, 11, 22, 18, tzinfo=UTC).timestamp()) * 10**9
    assert time_ns(data, mode, 7) == (7 if second is None else start + second * 10**9 + 123456000)


def test_picoseconds_are_counted_in_tens() -> None:
    data = ua.DataValue(ua.Variant(1.0), SourceTimestamp=_SOURCE, SourcePicoseconds=ua.UInt16(9999))
    assert time_ns(data, "source", 7) % 1000 == 99
