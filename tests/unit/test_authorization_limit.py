"""The rate limit's buckets, and the audit of refusals: bounded whatever comes."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.authorization import refusals
from agent.authorization.config import RateLimit
from agent.authorization.limit import Limiter
from agent.authorization.refusals import MOST_KINDS, Refusals
from agent.store import AuditEntry


def limiter(per_second: float = 10.0, burst: int = 3, senders: int = 1000) -> Limiter:
    return Limiter(RateLimit(per_second=per_second, burst=burst, senders=senders, together=1000))


def test_a_burst_and_then_the_rate() -> None:
    one = limiter()
    assert [one.take("anne", 100.0) for _ in range(3)] == [0.0] * 3
    assert one.take("anne", 100.0) == pytest.approx(0.1)
    assert one.take("anne", 100.05) == pytest.approx(0.05)
    assert one.take("anne", 100.11) == 0.0
    assert one.take("anne", 100.11) > 0
    assert [one.take("anne", 200.0) for _ in range(4)].count(0.0) == 3


def test_one_who_floods_takes_nothing_from_others() -> None:
    one = limiter()
    for _ in range(1000):
        one.take("flood", 1.0)
    assert one.take("anne", 1.0) == 0.0
    assert one.take("", 1.0) == 0.0


def test_senders_without_a_name_share_one_allowance() -> None:
    one = limiter(burst=1)
    assert one.take("", 1.0) == 0.0
    assert one.take("", 1.0) > 0


def test_beyond_the_most_senders_they_share_too_and_nobody_is_forgotten_early() -> None:
    one = limiter(burst=2, senders=10)
    for number in range(10):
        one.take(f"user {number}", 1.0)
    assert one.take("user 11", 1.0) == one.take("user 12", 1.0) == 0.0
    assert one.take("user 13", 1.0) > 0, "what is shared is used up"
    assert one.take("user 0", 1.0) == 0.0, "it has its own, and one left"
    assert one.take("user 0", 1.0) > 0
    # Whoever was quiet long enough for a whole allowance may be forgotten: it makes no difference.
    assert [one.take("user 14", 100.0) for _ in range(3)].count(0.0) == 2


def test_names_that_nobody_proved_have_a_bound_together_and_who_is_proven_has_its_own() -> None:
    one = Limiter(RateLimit(per_second=10, burst=3, together=2))
    assert [one.take(f"user {number}", 1.0) for number in range(1000)].count(0.0) == 6
    assert [one.take(f"other {number}", 2.0) for number in range(1000)].count(0.0) == 6
    assert [one.take("sub anne", 2.0, proven=True) for _ in range(4)].count(0.0) == 3
    for _ in range(1000):
        one.take("user flood", 3.0)
    assert one.take("user bob", 3.0) == 0.0, "what one is refused is not taken from the others"


def test_made_up_names_leave_who_is_proven_its_own() -> None:
    one = Limiter(RateLimit(per_second=10, burst=3, senders=5, together=1000))
    assert one.take("sub anne", 1.0, proven=True) == 0.0
    for number in range(100):  # anne was quiet long enough to be forgotten; all places are taken
        one.take(f"user {number}", 2.0)
    assert one.take("user 100", 2.0) > 0, "what the others share is used up"
    for name in ("sub anne", "sub bob"):
        assert [one.take(name, 2.0, proven=True) for _ in range(4)].count(0.0) == 3


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 2)), max_size=200))
@hypothesis_settings(max_examples=100, deadline=None)
def test_nobody_has_more_than_burst_and_rate(steps: list[tuple[str, float]]) -> None:
    one, now, taken = limiter(senders=4), 0.0, dict.fromkeys("abcdefgh", 0)
    for sender, pause in steps:
        now += pause
        taken[sender] += one.take(sender, now) == 0.0
        assert len(one._unproven._buckets) <= 4
    # Beyond the 4, senders may have what is shared too.
    assert all(count <= 2 * (3 + 10 * now) + 1 for count in taken.values())


def test_a_clock_that_steps_back_gives_nothing() -> None:
    one = limiter(burst=1)
    assert one.take("anne", 100.0) == 0.0
    assert one.take("anne", 50.0) > 0
    assert one.take("anne", 50.2) == 0.0


def refusal(who: str = "anne", code: str = "rate-limited", **fields: Any) -> AuditEntry:
    return AuditEntry(1, 2, who=who, op="ping", status="rejected", code=code, message="too often", **fields)


async def test_the_first_refusal_is_audited_and_the_flood_behind_it_counted() -> None:
    said: list[AuditEntry] = []
    one = Refusals(said.append)
    assert [one.note(refusal(key=str(number))) for number in range(1000)] == [True] + [False] * 999
    assert one.note(refusal(code="unauthorized")) is True
    assert one.note(refusal(who="bob")) is True
    assert [entry.key for entry in said] == ["0", "", ""]
    one.flush()
    assert len(said) == 4
    assert said[-1].key == "999"
    assert "999 more" in said[-1].message
    assert one.note(refusal()) is True, "a new window begins"
    one.flush()


async def test_the_window_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "WINDOW_S", 0.01)
    said: list[AuditEntry] = []
    one = Refusals(said.append)
    one.note(refusal())
    one.note(refusal())
    async with asyncio.timeout(10):
        while len(said) < 2:
            await asyncio.sleep(0.005)
    one.flush()


async def test_many_senders_who_are_refused_are_one_kind() -> None:
    said: list[AuditEntry] = []
    one = Refusals(said.append)
    for number in range(10 * MOST_KINDS):
        one.note(refusal(who=str(number)))
    assert len(said) == MOST_KINDS + 1
    one.flush()
    assert len(said) == MOST_KINDS + 2
