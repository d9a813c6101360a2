"""Points with a stated type: what a device says becomes a value, and a value what the device is told."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.base import Quality, Refused, Value
from protocols.values import TypedPoint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS = ["number", "integer", "boolean", "string", "array", "object"]


def point(**fields: Any) -> TypedPoint:
    return TypedPoint(**{"access": "rw", **fields})


@pytest.mark.parametrize(
    ("fields", "raw", "value"),
    [
        ({}, 1.5, 1.5),
        ({}, " +1.500E+01\r", 15.0),
        ({}, "12", 12),
        ({}, math.nan, Quality.NOT_A_NUMBER),
        ({}, "9.9E37", 9.9e37),
        ({}, "-inf", Quality.NOT_A_NUMBER),
        ({}, "1_000", Quality.BAD_CONFIG),
        ({}, "12 V", Quality.BAD_CONFIG),
        ({}, True, Quality.BAD_CONFIG),
        ({}, None, Quality.BAD_CONFIG),
        ({}, "9" * 5000, Quality.BAD_CONFIG),
        ({"scale": 0.1}, 3, 0.3),
        ({"scale": 0.1, "offset": -40}, 655, 25.5),
        ({"scale": 10}, 1e308, Quality.NOT_A_NUMBER),
        ({"scale": 10}, 10**400, Quality.NOT_A_NUMBER),
        ({"type": "integer"}, 2**63, 2**63),
        ({"type": "integer"}, "18446744073709551615", 2**64 - 1),
        ({"type": "integer"}, 3.0, 3),
        ({"type": "integer"}, 3.5, Quality.BAD_CONFIG),
        ({"type": "integer", "scale": 10}, 2**62, 10 * 2**62),
        ({"type": "boolean"}, 1, True),
        ({"type": "boolean"}, "OFF", False),
        ({"type": "boolean"}, 2, Quality.BAD_CONFIG),
        ({"type": "boolean", "true_as": "CC", "false_as": "CV"}, "CC", True),
        ({"type": "boolean", "true_as": "CC", "false_as": "CV"}, "XX", Quality.OUT_OF_RANGE),
        ({"type": "boolean", "true_as": 4, "false_as": 0}, "4", True),
        ({"type": "boolean", "true_as": 4, "false_as": 0}, 0, False),
        ({"type": "enumeration", "labels": {0: "idle", 1: "run"}}, 1, "run"),
        ({"type": "enumeration", "labels": {0: "idle", 1: "run"}}, "1", "run"),
        ({"type": "enumeration", "labels": {"SIN": "sine"}}, "SIN", "sine"),
        ({"type": "enumeration", "labels": {0: "idle"}}, 7, Quality.OUT_OF_RANGE),
        ({"type": "string"}, "1.5", "1.5"),
        ({"type": "string"}, 1.5, Quality.BAD_CONFIG),
        ({"type": "array"}, [1, "a"], [1, "a"]),
        ({"type": "object"}, {"a": [1]}, {"a": [1]}),
    ],
)
def test_what_the_device_says_becomes_a_value(fields: dict[str, Any], raw: Any, value: Value) -> None:
    found = point(**fields).engineering(raw)
    assert found == value
    assert type(found) is type(value)


@given(JSON, st.sampled_from(KINDS), st.sampled_from([1, 0.1, -2.5, 1e30]), st.sampled_from([0, 7]))
def test_nothing_that_a_device_says_raises(raw: Any, kind: str, scale: float, offset: float) -> None:
    scaled = {"scale": scale, "offset": offset} if kind in ("number", "integer") else {}
    made = point(type=kind, **scaled)
    found = made.engineering(raw)
    if not isinstance(found, Quality):
        assert made.typed(found) == found  # it is of the type that the profile promises


@given(st.integers(-(2**63), 2**63), st.sampled_from([1, 0.1, 0.25, -3, 1e-6]), st.integers(-100, 100))
def test_a_whole_raw_number_survives_the_way_out_and_back(raw: int, scale: float, offset: int) -> None:
    made = point(scale=scale, offset=offset)
    back = made.raw(made.engineering(raw))
    assert back == pytest.approx(raw, rel=1e-12, abs=abs(offset / scale) * 1e-15)


@pytest.mark.parametrize(
    ("fields", "value", "raw"),
    [
        ({}, 1.5, 1.5),
        ({"scale": 0.1}, 0.3, 3),
        ({"scale": 0.1, "offset": -40}, 25.5, 655),
        ({"scale": 3}, 1, 1 / 3),
        ({"type": "boolean"}, True, True),
        ({"type": "boolean", "true_as": "ON", "false_as": "OFF"}, False, "OFF"),
        ({"type": "enumeration", "labels": {0: "idle", 1: "run"}}, "run", 1),
        ({"type": "array"}, [1], [1]),
    ],
)
def test_a_value_becomes_what_the_device_is_told(fields: dict[str, Any], value: Value, raw: Any) -> None:
    told = point(**fields).raw(value)
    assert told == raw
    assert type(told) is type(raw)


def test_a_value_beyond_any_number_is_refused() -> None:
    with pytest.raises(Refused, match="beyond any number"):
        point(scale=1e-30).raw(1e300)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "enumeration"}, "an enumeration needs labels"),
        ({"labels": {0: "a"}}, "nothing else has them"),
        ({"type": "enumeration", "labels": {0: "a", 1: "a"}}, "each of them once"),
        ({"type": "enumeration", "labels": {}}, "at least one label"),
        ({"type": "string", "scale": 2}, "a string is not scaled"),
        ({"scale": 0}, "the size of scale"),
        ({"true_as": 1, "false_as": 0}, "is not a boolean"),
        ({"type": "boolean", "true_as": 1}, "together"),
    ],
)
def test_a_point_that_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        point(**fields)


def test_arrays_and_objects_are_accepted_where_the_point_is_one() -> None:
    assert point(type="array").accept([1, 2]) == [1, 2]
    assert point(type="object").accept({"a": 1}) == {"a": 1}
    for kind in ("array", "object", "number"):
        with pytest.raises(Refused, match=f"type {kind}"):
            point(type=kind).accept("text")
