"""Paths into JSON: what they mean, and that nothing raises on what does not fit."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.mqtt.paths import MISSING, follow, steps_of


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", ("a",)),
        ("motor.speed", ("motor", "speed")),
        ("axes[0].pos", ("axes", 0, "pos")),
        ("[2][3]", (2, 3)),
        ("[1].a", (1, "a")),
        ('"x y".b', ("x y", "b")),
        ('a."b.c"', ("a", "b.c")),
        (r'"q\"\\"', ('q"\\',)),
        ('""', ("",)),
        ("ä b", ("ä b",)),
    ],
)
def test_what_paths_mean(text: str, steps: tuple[str | int, ...]) -> None:
    assert steps_of(text) == steps


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", 'a"b"', '"a', "a]", "[0]a", "a.[0]"]
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="should be a path"):
        steps_of(text)


def written(steps: tuple[str | int, ...]) -> str:
    parts = []
    for place, step in enumerate(steps):
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            escaped = step.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(("." if place else "") + f'"{escaped}"')
    return "".join(parts)


STEPS = st.lists(st.text(max_size=5) | st.integers(0, 999), min_size=1, max_size=5).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(STEPS)
@settings(max_examples=100)
def test_any_keys_can_be_written(steps: tuple[str | int, ...]) -> None:
    assert steps_of(written(steps)) == steps


@given(st.text(max_size=30))
@settings(max_examples=200)
def test_any_text_is_a_path_or_a_value_error(text: str) -> None:
    try:
        steps = steps_of(text)
    except ValueError:
        return
    assert steps
    assert steps_of(written(steps)) == steps


def leaves(document: Any, at: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    found = [(at, document)]
    if isinstance(document, dict):
        found += [one for key, part in document.items() for one in leaves(part, (*at, key))]
    if isinstance(document, list):
        found += [one for place, part in enumerate(document) for one in leaves(part, (*at, place))]
    return found


@given(JSON, STEPS)
@settings(max_examples=100)
def test_following_finds_what_is_there_and_nothing_else(document: Any, steps: tuple[str | int, ...]) -> None:
    known = leaves(document)
    for at, part in known:
        assert json.dumps(follow(document, at)) == json.dumps(part)
    if steps not in [at for at, _ in known]:
        assert follow(document, steps) is MISSING
