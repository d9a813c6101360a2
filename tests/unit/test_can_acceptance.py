"""The kernel filter of a bus: what is wanted, what is sent, and what only passes because of that."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.can.bus import Filter
from protocols.can.buses.acceptance import MAX_FILTERS, Acceptance
from protocols.can.filters import exactly, passes
from protocols.can.frame import ERROR, EXTENDED, EXTENDED_MASK, REMOTE


def kernel(acceptance: Acceptance) -> list[Filter]:
    return [Filter(*one) for one in struct.iter_unpack("=II", acceptance.kernel())]


def test_without_filters_everything_passes_whatever_is_sent() -> None:
    acceptance = Acceptance(None)
    assert kernel(acceptance) == [Filter(0, 0)]
    assert not acceptance.admit(0x123)
    assert acceptance.exact


def test_no_filters_let_nothing_pass() -> None:
    acceptance = Acceptance([])
    assert acceptance.kernel() == b""
    assert not acceptance.wants(0x123)
    assert acceptance.wants(ERROR | 0x40)


def test_what_is_sent_passes_and_is_told_from_what_is_wanted() -> None:
    acceptance = Acceptance([exactly(0x100)])
    assert acceptance.exact
    assert not acceptance.admit(0x100)
    assert acceptance.exact
    assert acceptance.admit(0x200)
    assert not acceptance.admit(0x200)
    assert not acceptance.exact
    assert passes(kernel(acceptance), 0x200)
    assert acceptance.wants(0x100)
    assert not acceptance.wants(0x200)


def test_a_remote_frame_that_is_sent_passes_too() -> None:
    acceptance = Acceptance([exactly(0x100)])
    assert acceptance.admit(0x100 | REMOTE)
    assert passes(kernel(acceptance), 0x100 | REMOTE)


def test_what_was_sent_still_passes_when_filters_change() -> None:
    acceptance = Acceptance([exactly(0x100)])
    acceptance.admit(0x200)
    acceptance = Acceptance([exactly(0x300)], acceptance.sent)
    assert passes(kernel(acceptance), 0x200)
    assert not passes(kernel(acceptance), 0x100)


def test_too_many_filters_are_merged_where_that_changes_nothing() -> None:
    acceptance = Acceptance([exactly(can_id) for can_id in range(0x700)])
    filters = kernel(acceptance)
    assert len(filters) <= MAX_FILTERS
    assert acceptance.exact
    assert all(passes(filters, can_id) == (can_id < 0x700) for can_id in range(0x800))
    assert not passes(filters, 5 | EXTENDED)


def test_filters_that_are_still_too_many_let_everything_pass_and_are_applied_here() -> None:
    acceptance = Acceptance([exactly(7 * n | EXTENDED) for n in range(600)])
    assert kernel(acceptance) == [Filter(0, 0)]
    assert not acceptance.exact
    assert acceptance.wants(7 * 599 | EXTENDED)
    assert not acceptance.wants(8 | EXTENDED)


def test_sending_may_be_what_makes_them_too_many_once() -> None:
    acceptance = Acceptance([exactly(7 * n | EXTENDED) for n in range(MAX_FILTERS - 1)])
    assert acceptance.admit(0x1)
    assert len(kernel(acceptance)) == MAX_FILTERS
    assert acceptance.admit(0x2)
    assert kernel(acceptance) == [Filter(0, 0)]
    assert not acceptance.admit(0x3)
    assert not acceptance.wants(0x3)


@given(
    st.sets(st.integers(0, 0x3FF), min_size=513, max_size=900),
    st.lists(st.integers(0, EXTENDED_MASK), max_size=20),
)
@settings(max_examples=20, deadline=None)
def test_what_is_wanted_always_passes_and_nothing_else_is_wanted(ids: set[int], sent: list[int]) -> None:
    acceptance = Acceptance([exactly(can_id) for can_id in sorted(ids)])
    for can_id in sent:
        acceptance.admit(can_id | EXTENDED)
    filters = kernel(acceptance)
    assert len(filters) <= MAX_FILTERS
    for can_id in range(0x400):
        assert acceptance.wants(can_id) == (can_id in ids)
        assert can_id not in ids or passes(filters, can_id)
        assert not acceptance.exact or passes(filters, can_id) == (can_id in ids)
