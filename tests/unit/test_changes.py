"""`report: change`: nothing that changed is kept back, nothing that did not is sent before its refresh."""

from hypothesis import given
from hypothesis import strategies as st

from agent.changes import ChangeFilter
from agent.latest import LatestValues
from protocols.base import Quality, Sample

readings = st.lists(st.dictionaries(st.sampled_from("abc"), st.one_of(st.booleans(), st.integers(0, 2))))


@given(readings)
def test_a_consumer_that_merges_changes_sees_what_was_read(samples: list[dict[str, bool | int]]) -> None:
    changes = ChangeFilter(refresh=3600.0)
    seen: dict[str, object] = {}
    truth: dict[str, object] = {}
    for number, values in enumerate(samples):
        truth |= values
        if (news := changes.changed(Sample(number, values))) is not None:
            seen |= news.values
        assert [(name, type(value), value) for name, value in sorted(seen.items())] == [
            (name, type(value), value) for name, value in sorted(truth.items())
        ]


def test_an_unchanged_value_is_not_sent_until_refresh() -> None:
    changes = ChangeFilter(refresh=3600.0)
    assert changes.changed(Sample(0, {"a": 1})) is not None
    assert changes.changed(Sample(1, {"a": 1})) is None
    always = ChangeFilter(refresh=0.0)
    assert always.changed(Sample(0, {"a": 1})) is not None
    assert always.changed(Sample(1, {"a": 1})) is not None


def test_going_bad_and_coming_back_with_the_same_value_are_both_news() -> None:
    changes = ChangeFilter(refresh=3600.0)
    same = {"a": 1}
    changes.changed(Sample(0, same))
    gone = changes.changed(Sample(1, {}, {"a": Quality.TIMEOUT}))
    assert gone is not None
    assert gone.bad == {"a": Quality.TIMEOUT}
    back = changes.changed(Sample(2, same))
    assert back is not None
    assert back.values == same


def test_after_forget_everything_is_news() -> None:
    changes = ChangeFilter(refresh=3600.0)
    same = {"a": 1}
    changes.changed(Sample(0, same))
    changes.forget()
    assert changes.changed(Sample(1, same)) is not None


def test_latest_values_hold_the_last_word_on_each_point() -> None:
    latest = LatestValues()
    latest.update("plc", Sample(1, {"a": 1, "b": True}))
    latest.update("plc", Sample(2, {"a": 2}, {"b": Quality.TIMEOUT}))
    assert latest.get("plc")["a"] == (2, None, 2)
    assert latest.get("plc")["b"] == (None, Quality.TIMEOUT, 2)
    assert latest.get("nobody") == {}
