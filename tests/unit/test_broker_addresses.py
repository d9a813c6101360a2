import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.broker.addresses import Kind, Pattern, Refusal, check_name, fixed_kind, is_pattern

names = st.lists(st.sampled_from(["a", "b", "hil", ""]), min_size=1, max_size=6).map(".".join)
patterns = st.lists(st.sampled_from(["a", "b", "hil", "*", "#", ""]), min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("hil.rig.events.pump", "hil.rig.events.pump", True),
        ("hil.rig.events.pump", "hil.rig.events.pumps", False),
        ("hil.*.events.pump", "hil.rig.events.pump", True),
        ("hil.*.events.pump", "hil.rig.two.events.pump", False),
        ("hil.rig.events.*", "hil.rig.events", False),
        ("hil.rig.events.#", "hil.rig.events", True),
        ("hil.rig.events.#", "hil.rig.events.pump.speed", True),
        ("hil.#.pump", "hil.pump", True),
        ("hil.#.pump", "hil.rig.pump.events.pump", True),
        ("hil.#.pump", "hil.rig.events", False),
        ("#", "anything.at.all", True),
        ("*.*", "one", False),
        ("ab*", "abc", False),
    ],
)
def test_wildcards_stand_for_whole_words(pattern: str, name: str, covered: bool) -> None:
    assert Pattern.parse(pattern).matches(name) is covered


@given(patterns, names)
def test_matches_as_a_regular_expression_would(pattern: str, name: str) -> None:
    wild = {"*": r"\.[^.]*", "#": r"(\.[^.]*)*"}
    expression = "".join(wild.get(word, re.escape(f".{word}")) for word in pattern.split("."))
    assert Pattern.parse(pattern).matches(name) is bool(re.fullmatch(expression, f".{name}"))


def test_many_wildcards_cost_no_more_than_the_product_of_the_lengths() -> None:
    # A matcher that tries every split would need longer than the universe is old.
    assert not Pattern.parse(".".join(["#", "a"] * 60)).matches(".".join(["a"] * 120) + ".b")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hil.rig-07.commands", Kind.QUEUE),
        ("hil.rig-07.results", Kind.TOPIC),
        ("hil.rig-07.events.pump-plc", Kind.TOPIC),
        ("hil.availability", Kind.TOPIC),
        ("hil.rig-07", None),
        ("replies.of.somebody", None),
    ],
)
def test_the_addresses_of_the_wire_contract_have_their_kind(name: str, kind: Kind | None) -> None:
    assert fixed_kind(name) is kind


@pytest.mark.parametrize("name", ["", "x" * 513, "a\nb", "a\x00b"])
def test_refuses_what_is_no_name(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_name(name)
    assert refused.value.condition == "amqp:invalid-field"


def test_a_wildcard_is_a_word_of_its_own() -> None:
    assert is_pattern("hil.*.events.pump")
    assert not is_pattern("c#.a*")
