"""What a profile may say of an instrument, where each mistake is shown, and what is planned of it."""

from typing import Any

import pytest
from text_devices import TCP, VOLT, device, mistakes

from protocols.text import PROTOCOL
from protocols.text.plan import conflicts, polls_of

SERIAL = {"transport": "serial", "port": "/dev/ttyUSB0"}


def test_an_instrument_with_all_defaults() -> None:
    made = device()
    assert (made.terminator, made.encoding, made.echo, made.timeout) == ("\n", "ascii", False, 1.0)
    assert made.connection.port == 5025
    assert made.silence == 1.0
    assert device(settle="50ms").silence == 0.05


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"shared": True}, "prefix", "told apart"),
        ({"terminator": ""}, "terminator", "at least 1"),
        ({"terminator": "µ"}, "terminator", "ASCII"),
        ({"prefix": "µ"}, "prefix", "is not ascii"),
        ({"prompt": ">\n"}, "prompt", "no control characters"),
        ({"init": ["*CLS", "A\nB"]}, "init.1", "one line"),
        ({"init": ["SET µ"]}, "init.0", "is not ascii"),
        ({"identify": {"expect": "("}}, "identify.expect", "not a regular expression"),
        ({"errors": {"ok": "a" * 5000}}, "errors.ok", "at most 4096"),
        ({"checksum": {"algorithm": "xor", "template": "{checksum}"}}, "checksum.template", "write {text}"),
        ({"clear": "\x03", "prompt": ">"}, "clear", "nobody asked for"),
        (
            {"connection": SERIAL | {"rts": True, "flow": "rtscts"}},
            "connection.serial.rts",
            "works this line by itself",
        ),
        ({"connection": SERIAL | {"bytesize": 9}}, "connection.serial.bytesize", "7 or 8"),
        ({"timeout": 1}, "timeout", "write a number with a unit"),
    ],
)
def test_mistakes_of_the_device(fields: dict[str, Any], field: str, text: str) -> None:
    assert text in mistakes(**fields)[field]


@pytest.mark.parametrize(
    ("point", "field", "text"),
    [
        ({}, "query", "what is sent to read it"),
        ({"query": "A\n"}, "query", "one line"),
        ({"query": "A?", "pattern": "["}, "pattern", "not a regular expression"),
        ({"query": "A?", "pattern": "(.*)", "field": 1}, "field", "either pattern or field"),
        ({"query": "A?", "access": "rw"}, "write", "rw and wo need a write"),
        ({"query": "A?", "write": "A {value}"}, "write", "ro has none"),
        ({"write": "A", "access": "wo"}, "write", "no {value}"),
        ({"write": "A {value.__class__}", "access": "wo"}, "write", "only field is {value}"),
        ({"write": "A {value!r}", "access": "wo"}, "write", "got {value!r}"),
        ({"write": "A {value[0]}", "access": "wo"}, "write", "only field is {value}"),
        ({"write": "A {value:{value}}", "access": "wo"}, "write", "no format"),
        ({"write": "A {value:999999999d}", "access": "wo"}, "write", "no format"),
        ({"write": "A {value} {value}", "access": "wo"}, "write", "once"),
        ({"write": "A {value", "access": "wo"}, "write", "brace"),
        ({"write": "A {value:d}", "access": "wo"}, "write", "for type integer"),
        ({"write": "A {value:s}", "access": "wo"}, "write", "for texts"),
        ({"write": "A {value:.2f}", "access": "wo", "type": "boolean"}, "write", "not boolean"),
        ({"query": "A?", "answer": "OK"}, "answer", "the point has none"),
        ({"query": "A?", "block": {"items": "int16"}}, "block", "type array"),
        ({"query": "A?", "type": "string", "block": {}}, "block.items", "hex is for type string"),
        ({"query": "A?", "type": "array", "block": {}, "field": 2}, "field", "nothing with a block"),
        ({"query": "A?", "type": "array", "decimal_comma": True}, "decimal_comma", "another separator"),
        ({"query": "A?", "type": "string", "suffix": "V"}, "suffix", "only numbers"),
        ({"query": "A?", "suffix": {"V": 0}}, "suffix", "other than 0"),
        ({"query": "A?", "type": "object"}, "type", "no objects"),
        ({"write": "A {value}", "access": "wo", "type": "array"}, "block", "as a binary block"),
        ({"query": "Aµ?"}, "query", "is not ascii"),
    ],
)
def test_mistakes_of_a_point(point: dict[str, Any], field: str, text: str) -> None:
    found = mistakes({"p": point})
    assert text in found[f"points.p.{field}"], found


def test_a_query_is_a_block_for_all_its_points_or_for_none() -> None:
    points = {"a": {"query": "A?"}, "b": {"query": "A?", "type": "array", "block": {}}}
    assert "same query" in mistakes(points)["points.b.block"]


def test_points_of_one_query_are_asked_once() -> None:
    points: dict[str, Any] = {
        "v": {"query": "MEAS?", "field": 1},
        "i": {"query": "MEAS?", "field": 2, "timeout": "5s"},
        "slow": {"query": "MEAS?", "field": 3, "poll": "10s"},
        "set": VOLT,
        "only": {"write": "X {value}", "access": "wo"},
        "key": {"report": "KEY (.)"},
    }
    made = device(points)
    polls = {poll.period: poll.queries for poll in polls_of(made)}
    assert [(one.command, [p.name for p in one.points], one.timeout) for one in polls[1.0]] == [
        ("MEAS?", ["v", "i"], 5.0),
        ("VOLT?", ["set"], 1.0),
    ]
    assert [one.command for one in polls[10.0]] == ["MEAS?"]
    planned = PROTOCOL.plan(made)
    assert [one.what for one in planned][-1] == "lines that come unasked"
    assert planned[-1].points == ("key",)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({}, {}, "say shared: true"),
        ({"shared": True, "prefix": "1 "}, {"shared": True, "prefix": "1 "}, "same prefix"),
        (
            {"shared": True, "prefix": "1 "},
            {"shared": True, "prefix": "2 ", "terminator": "\r"},
            "another terminator",
        ),
        (
            {"shared": True, "prefix": "1 "},
            {"shared": True, "prefix": "2 ", "connection": SERIAL | {"baudrate": 1200}},
            "other settings",
        ),
    ],
)
def test_who_cannot_be_on_one_line(one: dict[str, Any], other: dict[str, Any], why: str) -> None:
    devices = {"a": device(**{"connection": SERIAL} | one), "b": device(**{"connection": SERIAL} | other)}
    assert why in conflicts(devices)["b"]


def test_who_can_be_on_one_line() -> None:
    devices = {name: device(connection=SERIAL, shared=True, prefix=f"{name} ") for name in ("a", "b")}
    devices["c"] = device(connection=TCP)
    assert conflicts(devices) == {}
    assert PROTOCOL.conflicts(devices) == {}
