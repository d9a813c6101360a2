"""What answers mean, and what values are as commands."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.base import Quality, Refused
from protocols.text.numbers import number
from protocols.text.point import TextPoint
from protocols.units import WRITTEN

BAD = Quality.DEVICE_ERROR


def point(**fields: Any) -> TextPoint:
    made = TextPoint.model_validate({"query": "A?"} | fields, context=WRITTEN)
    made._name = "p"
    return made


def writable(template: str, **fields: Any) -> TextPoint:
    return point(write=template, access="rw", **fields)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.50", 12.5),
        ("+1.2e+03", 1200.0),
        ("1.2E 3", 1200.0),
        (" 7 ", 7),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("0x1F", 31),
        ("#H1f", 31),
        ("-#Q17", -15),
        ("#B101", 5),
        ("9.91E37", Quality.NOT_A_NUMBER),
        ("+9.910000E+37", Quality.NOT_A_NUMBER),
        ("9.9E37", Quality.OUT_OF_RANGE),
        ("-9.90000000E+37", Quality.OUT_OF_RANGE),
        ("NAN", Quality.NOT_A_NUMBER),
        ("-inf", Quality.OUT_OF_RANGE),
        ("1e999", Quality.OUT_OF_RANGE),
        ("", BAD),
        ("12,5", BAD),
        ("1_000", BAD),
        ("12.5V", BAD),
        ("1 2", BAD),
        ("١٢", BAD),
        ("0x", BAD),
        ("#H", BAD),
        ("1" * 500, BAD),
    ],
)
def test_numbers_as_instruments_write_them(text: str, value: Any) -> None:
    assert number(text) == value


def test_units_and_commas_and_bases() -> None:
    volts = {"V": 1.0, "mV": 0.001}
    assert number("12.50 V", units=volts) == 12.5
    assert number("250mV", units=volts) == 0.25
    assert number("12.5", units=volts) is BAD
    assert number("12.5 kV", units=volts) is BAD
    assert number("9.9E37 mV", units=volts) is Quality.OUT_OF_RANGE
    assert number("1e300 x", units={"x": 1e200}) is Quality.OUT_OF_RANGE
    assert number("12,5", comma=True) == 12.5
    assert number("1.2,5", comma=True) is BAD
    assert number("1F", base=16) == 31
    assert number("0x1F", base=16) == 31
    assert number("-101", base=2) == -5
    assert number("102", base=2) is BAD
    assert number("1_0", base=16) is BAD
    assert point(suffix="V").take("3 V") == point(suffix="V").take("3") == 3
    assert point(suffix="V").take("3 mV") is BAD


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from([2, 8, 10, 16]), st.booleans())
def test_no_text_makes_number_fail(text: str, base: int, comma: bool) -> None:
    value = number(text, base, comma, {"V": 2.0} if comma else None)
    assert isinstance(value, int | float | Quality)


@settings(max_examples=200, deadline=None)
@given(st.floats(min_value=-1e30, max_value=1e30))
def test_what_is_written_as_a_number_is_read_as_it(value: float) -> None:
    assert number(repr(value)) == value
    assert number(f"{value:.20e}") == value


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=100),
    st.sampled_from(["number", "integer", "boolean", "string", "array"]),
    st.sampled_from([{}, {"field": 2}, {"pattern": r"a*(\d*) ?(.*)"}]),
)
def test_no_answer_makes_a_point_fail(text: str, kind: str, where: dict[str, Any]) -> None:
    value = point(type=kind, **where).take(text)
    assert isinstance(value, Quality) or point(type=kind).typed(value) == value


@pytest.mark.parametrize(
    ("fields", "answer", "value"),
    [
        ({"field": 2}, "1,2.5,3", 2.5),
        ({"field": 4}, "1,2.5,3", BAD),
        ({"field": 2, "separator": ";"}, "1; 2", 2),
        ({"pattern": r"V=([\d.]+)"}, "V=2.5", 2.5),
        ({"pattern": r"V=([\d.]+)"}, "xV=2.5", BAD),
        ({"pattern": r"V=([\d.]+)"}, "V=2.5\0", BAD),
        ({"pattern": r"(A|B) (?P<value>\d+)"}, "B 7", 7),
        ({"pattern": r"\d+"}, "12", 12),
        ({"pattern": r"(\d+)?x"}, "x", BAD),
        ({"type": "boolean"}, "ON", True),
        ({"type": "boolean"}, "0", False),
        ({"type": "boolean"}, "2", BAD),
        ({"type": "boolean", "true_as": "CLOSED", "false_as": "OPEN"}, "OPEN", False),
        ({"type": "enumeration", "labels": {"CV": "voltage", "CC": "current"}}, "CC", "current"),
        ({"type": "enumeration", "labels": {"CV": "voltage"}}, "XX", Quality.OUT_OF_RANGE),
        ({"type": "enumeration", "labels": {1: "one"}}, "1", "one"),
        ({"type": "integer"}, "7.0", 7),
        ({"type": "string"}, " ok ", "ok"),
        ({"type": "array"}, "1, 2.5,9.91E37", [1, 2.5, None]),
        ({"type": "array"}, "", []),
        ({"type": "array"}, "1,x", BAD),
        ({"scale": 0.001, "unit": "V"}, "2500", 2.5),
    ],
)
def test_what_an_answer_means(fields: dict[str, Any], answer: str, value: Any) -> None:
    assert point(**fields).take(answer) == value


def test_reports_are_lines_of_their_pattern_alone() -> None:
    key = TextPoint.model_validate({"report": "KEY (.*)", "type": "boolean"})
    assert key.reported("KEY 1") is True
    assert key.reported("KEY x") is BAD
    assert key.reported("12.5") is None
    assert not key.matches("KEY 1")


def test_blocks_as_values() -> None:
    trace = point(type="array", block={"items": "int16"})
    assert trace.take_block(b"\x00\x01\xff\xff") == [1, -1]
    assert trace.take_block(b"\x00\x01\xff") is BAD
    assert point(type="string", block={"items": "hex"}).take_block(b"\x00\xff") == "00ff"
    floats = point(type="array", block={"items": "float32", "order": "little"})
    assert floats.take_block(b"\x00\x00\x80\x3f\x00\x00\xc0\x7f") == [1.0, None]


@pytest.mark.parametrize(
    ("made", "value", "command"),
    [
        (writable("VOLT {value:.3f}"), 1.23456, "VOLT 1.235"),
        (writable("VOLT {value}"), 12, "VOLT 12"),
        (writable("VOLT {value}", scale=0.001), 2.5, "VOLT 2500"),
        (writable("{{{value:03d}}}", type="integer"), 7, "{007}"),
        (writable("A{value:02X}", type="integer"), 255, "AFF"),
        (writable("OUTP {value}", type="boolean"), True, "OUTP ON"),
        (writable("R{value}", type="boolean", true_as="1", false_as="0"), False, "R0"),
        (writable("M {value}", type="enumeration", labels={"CV": "v"}), "v", "M CV"),
        (writable("M {value:02d}", type="enumeration", labels={1: "v"}), "v", "M 01"),
        (writable('TEXT "{value}"', type="string"), 'a"b;c', 'TEXT "a""b;c"'),
        (writable("V {value:.2f}", decimal_comma=True), 1.5, "V 1,50"),
    ],
)
def test_values_as_commands(made: TextPoint, value: Any, command: str) -> None:
    assert made.command(made.accept(value)) == (command, None)


def test_what_is_said_to_be_written_is_what_the_format_carries() -> None:
    assert writable("VOLT {value:.1f}").meaning(1.26) == 1.3
    assert writable("A{value:X}", type="integer").meaning(255) == 255
    assert writable("V {value:.1f}", scale=0.1).meaning(1.264) == pytest.approx(1.26)


def test_rounding_carries_no_value_over_a_limit() -> None:
    made = writable("VOLT {value:.0f}", max=10.6)
    assert made.accept(10.4) == 10.4
    with pytest.raises(Refused) as refused:
        made.accept(10.55)
    assert refused.value.code == "out-of-range"
    assert writable("VOLT {value:.0f}", min=-5).accept(0.2) == 0.2


@pytest.mark.parametrize("value", ["a\nb", "a;OUTP ON", 'a"b', "x\0", "\x7f", "a" * 5000])
def test_a_text_stays_one_datum_of_its_command(value: str) -> None:
    made = writable("TEXT {value}", type="string")
    with pytest.raises(Refused) as refused:
        made.accept(value)
    assert refused.value.code == "out-of-range"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_ends_the_line_or_the_quotation_that_it_stands_in(value: str) -> None:
    made = writable('TEXT "{value}"', type="string")
    try:
        command, _ = made.command(made.accept(value))
    except Refused:
        return
    inner = command[len('TEXT "') : -1]
    assert inner.replace('""', "").count('"') == 0
    assert all(ord(sign) >= 32 for sign in command)


def test_numbers_that_no_format_can_say_are_refused() -> None:
    with pytest.raises(Refused):
        writable("N {value:d}", type="integer", scale=2.0).accept(3)
    with pytest.raises(Refused):
        writable("N {value}", scale=1e-30).accept(1e300)
    with pytest.raises(Refused):
        point().accept(1)


def test_arrays_are_written_as_blocks() -> None:
    made = writable("DATA {value}", type="array", block={"items": "int16"})
    assert made.command(made.accept([1, -1])) == ("DATA \0", b"#14\x00\x01\xff\xff")
    for wrong in ([70000], ["x"], [1.5], [None], [True]):
        with pytest.raises(Refused):
            made.accept(wrong)
