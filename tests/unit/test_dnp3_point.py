"""Points: kinds, values of raw numbers, what may be written, and mistakes."""

import math
import struct
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_dnp3_config import device, mistakes

from protocols.base import Quality, Refused
from protocols.dnp3.point import Dnp3Point


def point(type: str, **fields: Any) -> Dnp3Point:
    return device({"p": {"type": type, "index": 0} | fields}).points["p"]


def setpoint(**fields: Any) -> Dnp3Point:
    return point("analog_output", access="rw", **fields)


def refusal(made: Dnp3Point, value: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        made.accept(value)
    return refused.value.code, str(refused.value)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (point("binary_input"), "boolean"),
        (point("binary_output"), "boolean"),
        (point("double_bit_input"), "enumeration"),
        (point("counter"), "integer"),
        (point("frozen_counter"), "integer"),
        (point("counter", scale=0.5), "number"),
        (point("counter", offset=1), "number"),
        (point("analog_input"), "number"),
        (point("analog_output"), "number"),
        (point("octet_string"), "string"),
        (point("counter", field="flags"), "string"),
        (point("double_bit_input", field="flags"), "string"),
    ],
)
def test_kinds(made: Dnp3Point, kind: str) -> None:
    assert made.kind == kind
    assert bool(made.choices) == (kind == "enumeration")


@pytest.mark.parametrize(
    ("made", "raw", "value"),
    [
        (point("binary_input"), True, True),
        (point("double_bit_input"), 0, "intermediate"),
        (point("double_bit_input"), 1, "off"),
        (point("double_bit_input"), 2, "on"),
        (point("double_bit_input"), 3, "indeterminate"),
        (point("analog_input"), 12.75, 12.75),
        (point("analog_input", scale=0.1), 3, 0.3),
        (point("analog_input", scale=0.1, offset=-40), 405, 0.5),
        (point("analog_input", scale=2, offset=1), 1.5, 4.0),
        (point("analog_input"), math.nan, Quality.NOT_A_NUMBER),
        (point("analog_input"), -math.inf, Quality.NOT_A_NUMBER),
        (point("analog_input", scale=1e30), 1e300, Quality.NOT_A_NUMBER),
        (point("octet_string"), "Straße".encode() + b"\0\0", "Straße"),
        (point("octet_string"), b"a\0b", "a\0b"),
        (point("octet_string"), b"\xff", Quality.DEVICE_ERROR),
        (point("octet_string", encoding="latin-1"), b"\xff", "ÿ"),
        (point("octet_string", encoding="hex"), b"\xff\0", "ff00"),
    ],
)
def test_values_of_what_came(made: Dnp3Point, raw: Any, value: Any) -> None:
    assert made.value_of(raw) == value


@given(st.integers(-(2**31), 2**31 - 1) | st.floats(), st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_no_number_raises(raw: float, scale: float, offset: float) -> None:
    assume(abs(scale) >= 1e-30)
    value = point("analog_input", scale=scale, offset=offset).value_of(raw)
    assert value is Quality.NOT_A_NUMBER or (isinstance(value, int | float) and math.isfinite(value))


@given(
    st.integers(-(2**31), 2**31 - 1), st.decimals(-1000, 1000, places=3), st.decimals(-1000, 1000, places=3)
)
def test_whole_numbers_are_scaled_as_on_paper(raw: int, scale: Any, offset: Any) -> None:
    assume(scale not in (0, 1) or offset)
    assume(scale)
    made = point("analog_input", scale=float(scale), offset=float(offset))
    assert made.value_of(raw) == float(raw * scale + offset)


# What may be written.


def test_what_only_reads_takes_nothing() -> None:
    assert refusal(point("analog_output"), 1)[0] == "read-only"


def test_a_pulse_takes_true_only() -> None:
    made = point("binary_output", access="rw", operation="pulse-on")
    assert made.accept(True) is True
    assert refusal(made, False) == (
        "out-of-range",
        "p is a pulse (operation: pulse-on): it takes true only",
    )
    assert refusal(made, 1)[0] == "bad-type"


@pytest.mark.parametrize("operation", ["latch", "pulse", "trip-close"])
def test_other_operations_take_both(operation: str) -> None:
    made = point("binary_output", access="rw", operation=operation)
    assert (made.accept(True), made.accept(False)) == (True, False)
    assert made.meaning(False) is False


@pytest.mark.parametrize(
    ("fields", "value", "raw"),
    [
        ({"output": "int16"}, 32767, 32767),
        ({"output": "int16"}, -32768.0, -32768),
        ({"output": "int16", "scale": 0.1}, 0.3, 3),
        ({"output": "int32", "scale": 0.1, "offset": -40}, 0.5, 405),
        ({"output": "int32"}, 1.6, 2),
        ({"output": "float32"}, 0.1, struct.unpack("<f", struct.pack("<f", 0.1))[0]),
        ({"output": "float32"}, 7, 7.0),
        ({"output": "float64"}, 0.1, 0.1),
        ({"output": "float64", "scale": 0.1}, 0.3, 3.0),
    ],
)
def test_what_is_sent(fields: dict[str, Any], value: float, raw: float) -> None:
    made = setpoint(**fields)
    assert made.raw_of(made.accept(value)) == raw


@pytest.mark.parametrize(
    ("fields", "value", "text"),
    [
        ({"output": "int16"}, 32768, "p = 32768 does not fit int16: -32768 to 32767"),
        ({"output": "int16"}, -32769, "p = -32769 does not fit int16: -32768 to 32767"),
        ({"output": "int16", "scale": -0.5}, 16385, "p = 16385 does not fit int16: -16383.5 to 16384"),
        ({"output": "int32"}, 10**400, "does not fit int32"),
        ({"output": "float32"}, 1e39, "p = 1e+39 does not fit float32"),
        ({"output": "float64"}, 10**400, "does not fit float64"),
        ({"output": "float64", "scale": 1e-30}, 1e300, "p = 1e+300 does not fit float64"),
        ({"output": "int16", "max": 10}, 11, "p = 11 is above its max 10"),
        ({"output": "int16", "max": 10.6}, 10.6, "p = 11 is above its max 10.6"),
        ({"output": "int16", "scale": 10, "min": 12}, 13, "p = 10.0 is below its min 12"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], value: float, text: str) -> None:
    code, said = refusal(setpoint(**fields), value)
    assert code == "out-of-range"
    assert text in said


numbers = st.integers(-(2**33), 2**33) | st.floats(allow_nan=False, allow_infinity=False)


@given(
    numbers, st.sampled_from(["int16", "int32"]), st.floats(1e-6, 1e6), st.floats(-1e6, 1e6), numbers, numbers
)
def test_what_is_written_stays_within_limits_and_means_itself(
    value: float, output: str, scale: float, offset: float, low: float, high: float
) -> None:
    made = setpoint(output=output, scale=scale, offset=offset, min=min(low, high), max=max(low, high))
    try:
        meant = made.meaning(made.accept(value))
    except Refused:
        return
    assert isinstance(meant, int | float)
    assert float(min(low, high)) <= meant <= float(max(low, high))
    assert made.meaning(meant) == meant
    assert made.raw_of(meant) == made.raw_of(value)


@given(numbers, st.sampled_from(["float32", "float64"]))
def test_a_float_that_was_rounded_once_stays(value: float, output: str) -> None:
    made = setpoint(output=output)
    try:
        meant = made.meaning(made.accept(value))
    except Refused:
        assert output == "float32"
        assert abs(value) > 3.4e38
        return
    assert made.meaning(meant) == meant
    assert meant == pytest.approx(value, rel=2**-24, abs=1e-44)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-30, 1e30), st.floats(-1e30, 1e30))
def test_accepting_raises_nothing_but_refusals(value: float, scale: float, offset: float) -> None:
    for output in ("int16", "int32", "float32", "float64"):
        made = setpoint(output=output, scale=scale, offset=offset)
        try:
            made.raw_of(made.accept(value))
        except Refused as refused:
            assert refused.code == "out-of-range"


# Mistakes.


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        (
            {"type": "binary_input", "access": "rw"},
            "access",
            "binary_input can only be read; controls go to binary_output or analog_output",
        ),
        (
            {"type": "counter", "access": "wo"},
            "access",
            "counter can only be read; controls go to binary_output or analog_output",
        ),
        (
            {"type": "binary_output", "access": "rw", "field": "flags"},
            "field",
            "flags can only be read, and octet strings have none",
        ),
        (
            {"type": "octet_string", "field": "flags"},
            "field",
            "flags can only be read, and octet strings have none",
        ),
        ({"type": "counter", "variation": 3}, "variation", "counter is read as variation 1, 2, 5, 6"),
        (
            {"type": "analog_input", "variation": 3, "field": "flags"},
            "variation",
            "variation 3 has no flags; those with flags: 1, 2, 5, 6",
        ),
        ({"type": "analog_input", "scale": 0}, "scale", "the size of scale must be from 1e-30 to 1e+30"),
        ({"type": "analog_input", "scale": 1e31}, "scale", "the size of scale must be from 1e-30 to 1e+30"),
        (
            {"type": "analog_input", "scale": math.nan},
            "scale",
            "the size of scale must be from 1e-30 to 1e+30",
        ),
        ({"type": "binary_input", "scale": 2}, "scale", "only numbers have scale"),
        ({"type": "double_bit_input", "offset": 1}, "offset", "only numbers have offset"),
        ({"type": "counter", "field": "flags", "scale": 2}, "scale", "only numbers have scale"),
        ({"type": "octet_string", "min": 1}, "min", "only numbers have min"),
        ({"type": "binary_output", "access": "rw", "max": 1}, "max", "only numbers have max"),
        (
            {"type": "binary_output", "operation": "pulse"},
            "operation",
            "operation is for a binary_output that may be written",
        ),
        (
            {"type": "analog_output", "access": "rw", "on_time": "1s"},
            "on_time",
            "on_time is for a binary_output that may be written",
        ),
        (
            {"type": "analog_output", "access": "rw", "count": 2},
            "count",
            "count is for a binary_output that may be written",
        ),
        ({"type": "analog_output", "output": "int16"}, "output", "output is for a written analog_output"),
        (
            {"type": "binary_output", "access": "rw", "output": "int16"},
            "output",
            "output is for a written analog_output",
        ),
        ({"type": "analog_output", "mode": "direct"}, "mode", "mode is for points that may be written"),
        (
            {"type": "binary_input", "feedback": {"point": "p", "within": "1s"}},
            "feedback",
            "feedback is for points that may be written",
        ),
        ({"type": "counter", "encoding": "hex"}, "encoding", "encoding is for octet strings"),
        ({"type": "counter", "index": 65536}, "index", "Input should be less than 65536"),
        ({"type": "counter", "index": -1}, "index", "Input should be greater than or equal to 0"),
        ({"type": "counter", "colour": "red"}, "colour", "Extra inputs are not permitted"),
        ({"type": "analog_input", "offset": math.nan}, "offset", "Input should be"),
    ],
)
def test_each_mistake_is_shown_at_its_field(fields: dict[str, Any], field: str, text: str) -> None:
    assert text in mistakes({"p": {"index": 0} | fields})[f"points.p.{field}"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "hex"])
def test_octet_strings_of_any_length_may_be_asked_for(encoding: str) -> None:
    assert point("octet_string", variation=255, encoding=encoding).variation == 255
