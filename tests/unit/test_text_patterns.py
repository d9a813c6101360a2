"""Patterns that an answer could keep busy are refused, and those that people write are not."""

import re

import pytest

from protocols.text.patterns import check
from protocols.text.point import compiled

GOOD = [
    r"T=([\d.]+) C",
    r"(.*)",
    r"(.*),(.*)",
    r"([^,]*),([^,]*),([^,]*),([^,]*),([^,]*)",
    r"V=([-+]?\d+(?:\.\d+)?) A=([-+]?\d+(?:\.\d+)?) W=([-+]?\d+(?:\.\d+)?)",
    r"\s*(\S+)\s*",
    r"(?:\d+,)*(\d+)",
    r"OK|ERR.*",
    r"[0-9A-F]{2}(?: [0-9A-F]{2})*",
    r'0,"No error"',
    r"(?i)state: (on|off)",
    r"[+-]?0*,.*",
]
BUSY = [
    r"(a+)+b",
    r"(a*)*b",
    r"(?:a|a)*b",
    r"(?:a|ab|b)*c",
    r"(\w+\s?)*x",
    r"(.*)*",
    r"(.*),(.*),(.*),(.*),(.*)",
    r".*.*.*.*.*=",
    "a?" * 40 + "a" * 40,
    r"(\d+){9}x",
    r"(?:(?:a+)b?)+c",
]


@pytest.mark.parametrize("pattern", GOOD)
def test_patterns_that_people_write(pattern: str) -> None:
    assert compiled(pattern)


@pytest.mark.parametrize("pattern", BUSY)
def test_patterns_that_take_for_ever(pattern: str) -> None:
    with pytest.raises(ValueError, match="busy for ever"):
        compiled(pattern)


@pytest.mark.parametrize("pattern", GOOD)
@pytest.mark.parametrize("text", ["a", "1", ",", " ", "1,", ", ", "0.", "A0 "])
def test_a_line_that_does_not_fit_is_known_soon(pattern: str, text: str) -> None:
    check(pattern)
    re.compile(pattern).fullmatch((text * 1024)[:1023] + "\0")
