import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.document import (
    MAX_DEPTH,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    parse_document,
    plain,
    resolve,
)


def read(text: str) -> Node:
    document = parse_document(text.encode(), "f.yaml")
    assert document.problems == []
    assert document.root is not None
    return document.root


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("off", "off"),
        ("0", 0),
        ("-17", -17),
        ("+3", 3),
        ("0x1f", 31),
        ("0o17", 15),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        ("-", "-"),
        (".", "."),
        ("=", "="),
        ("0x", "0x"),
        ("1.2.3", "1.2.3"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "\N{ARABIC-INDIC DIGIT ONE}"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = resolve(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["010", "-007", ".inf", "-.INF", ".nan", "1e999", "1" * 41, "0x" + "f" * 50])
def test_numbers_that_would_surprise_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"octal|finite|digits|large"):
        resolve(text)


def test_places_count_from_one() -> None:
    root = read("a: 1\nb:\n  - x\n  - {c: y}\n")
    assert isinstance(root, MappingNode)
    assert (root.entries["b"].place.line, root.entries["b"].place.column) == (2, 1)
    items = root.entries["b"].node
    assert isinstance(items, SequenceNode)
    inner = items.items[1]
    assert isinstance(inner, MappingNode)
    assert str(inner.entries["c"].node.place) == "f.yaml:4"
    assert inner.entries["c"].node.place.column == 9


def test_quoted_scalars_are_texts() -> None:
    assert plain(read("""["1", 'true', "", 1]""")) == ["1", "true", "", 1]


def test_a_byte_order_mark_is_no_content() -> None:
    assert parse_document("\ufeffa: 1".encode(), "f.yaml").problems == []


def test_the_depth_bound_counts_what_aliases_add() -> None:
    half = MAX_DEPTH // 2
    deep = "[" * half + "]" * half
    fits = f"- &a {deep}\n- *a\n"
    assert parse_document(fits.encode(), "f").problems == []
    too_deep = f"- &a {deep}\n- {'[' * half}*a{']' * half}\n"
    assert "levels deep" in str(parse_document(too_deep.encode(), "f").problems[0])


def test_every_duplicate_and_bad_number_is_found_at_once() -> None:
    problems = parse_document(b"a: 010\na: 1\nb: {c: .inf, c: 2}\n", "f").problems
    assert [(problem.line, problem.field) for problem in problems] == [
        (1, "a"),
        (2, "a"),
        (3, "b.c"),
        (3, "b.c"),
    ]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    document = parse_document(data, "f")
    assert (document.root is None) <= bool(document.problems)


NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_another_writer_wrote_is_read_the_same(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, default_style='"' if isinstance(value, str) else None)
    root = parse_document(text.encode(), "f").root
    assert root is not None
    assert same(plain(root), yaml.safe_load(text))


def same(ours: object, theirs: object) -> bool:
    """Equal but for keys, which are texts here, and for numbers that YAML 1.1 knows as texts (`1e3`)."""
    match ours, theirs:
        case dict(), dict():
            return len(ours) == len(theirs) and all(map(same, ours.values(), theirs.values()))
        case list(), list():
            return len(ours) == len(theirs) and all(map(same, ours, theirs))
        case float(), str():
            return math.isclose(ours, float(theirs))
    return ours == theirs


def test_scalar_nodes_know_whether_they_were_quoted() -> None:
    root = read("[a, 'a']")
    assert isinstance(root, SequenceNode)
    assert [item.plain for item in root.items if isinstance(item, ScalarNode)] == [True, False]
