"""The book of leases, case by case: what is said, and what is remembered."""

import pytest

from agent.lease import book as book_module
from agent.lease.book import Book, Lease, State, Wish, digest
from protocols.base import Refused


def held(
    book: Book,
    token: str,
    *devices: str,
    now: float = 0.0,
    priority: int = 0,
    deadman: float | None = None,
) -> Lease:
    """A lease of 60 s that has begun."""
    holder = f"holder of {token}"
    wanted = Wish(holder=holder, ttl=60.0, devices=devices or None, priority=priority, deadman=deadman)
    lease, _ = book.reserve(wanted, digest(token), now)
    book.hold(lease, now)
    return lease


def refusal(
    book: Book, device: str, token: str | None, now: float, required: bool = False
) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        book.check(device, token and digest(token), now, required=required)
    return caught.value.code, str(caught.value)


def test_who_is_refused_hears_until_when_and_how_to_get_it() -> None:
    book = Book()
    lease = held(book, "mine", "pump", priority=3)
    with pytest.raises(Refused) as caught:
        book.reserve(Wish(holder="other", ttl=1.0, priority=3), digest("other"), 18.0)
    assert caught.value.code == "lease-held"
    assert str(caught.value) == (
        f"leased to holder of mine (lease {lease.id}) for another 42 s; "
        "wait for its end, or reserve with a priority above 3"
    )
    code, text = refusal(book, "pump", None, 18.0)
    assert (code, text.split(";")[0]) == (
        "lease-held",
        f"device pump: leased to holder of mine (lease {lease.id}) for another 42 s",
    )


@pytest.mark.parametrize("state", [State.PREPARING, State.ENDING])
def test_while_a_device_is_prepared_or_cleaned_up_nobody_has_it(state: State) -> None:
    book = Book()
    lease, _ = book.reserve(Wish(holder="ci", ttl=60.0, devices=("pump",)), digest("mine"), 0.0)
    if state is State.ENDING:
        book.hold(lease, 0.0)
        book.end(lease, "released", "", 1.0)
    code, text = refusal(book, "pump", None, 2.0)
    assert code == "lease-held"
    assert ("cleaned up after ci" if state is State.ENDING else "prepared for ci") in text
    with pytest.raises(Refused, match="ask again in a moment"):
        book.reserve(Wish(holder="other", ttl=1.0, devices=("pump",)), digest("other"), 2.0)
    book.check("valve", None, 2.0, required=False)


def test_the_codes_of_writes() -> None:
    book = Book()
    held(book, "mine", "pump", now=0.0)
    book.check("pump", digest("mine"), 59.9, required=True)
    assert refusal(book, "pump", "mine", 60.0)[0] == "lease-expired"
    assert refusal(book, "pump", "nobody's", 1.0)[0] == "not-leased"
    assert refusal(book, "pump", None, 1.0)[0] == "lease-held"
    book.check("valve", None, 1.0, required=False)
    assert refusal(book, "valve", None, 1.0, required=True)[0] == "not-leased"
    book.check("valve", digest("mine"), 1.0, required=False)
    assert refusal(book, "valve", "mine", 1.0, required=True)[0] == "not-leased"


def test_a_silent_holder_does_not_write_and_a_renew_opens_the_lease_again() -> None:
    book = Book()
    lease = held(book, "mine", deadman=5.0)
    book.check("pump", digest("mine"), 4.9, required=False)
    code, text = refusal(book, "pump", "mine", 5.0)
    assert (code, "op renew opens it again" in text) == ("lease-expired", True)
    assert book.due() == 5.0
    assert book.tick(5.0) == [lease]
    assert lease.state is State.LAPSED
    assert book.tick(30.0) == []
    assert refusal(book, "pump", "mine", 30.0)[0] == "lease-expired"
    assert book.renew(digest("mine"), 30.0) == (lease, True)
    book.check("pump", digest("mine"), 34.9, required=False)
    assert lease.expires == 90.0


def test_a_higher_priority_ends_everything_that_it_overlaps() -> None:
    book = Book()
    pump, valve = held(book, "pump's", "pump", priority=1), held(book, "valve's", "valve", priority=2)
    with pytest.raises(Refused):
        book.reserve(Wish(holder="boss", ttl=9.0, priority=2), digest("boss"), 1.0)
    assert [pump.state, valve.state] == [State.HELD, State.HELD]
    boss, preempted = book.reserve(Wish(holder="boss", ttl=9.0, priority=3), digest("boss"), 1.0)
    assert preempted == [pump, valve]
    assert {lease.end for lease in preempted} == {"preempted"}
    assert boss.state is State.WAITING
    assert refusal(book, "pump", "pump's", 1.0)[0] == "lease-expired"
    book.gone(pump, 2.0)
    assert book.ahead_of(boss) == [valve]
    book.gone(valve, 2.0)
    book.prepare(boss)
    assert book.leases == [boss]


def test_tokens_of_ended_leases_are_told_from_strangers_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "ENDED_MOST", 3)
    book = Book()
    for number in range(5):
        lease = held(book, f"t{number}", now=float(number))
        book.end(lease, "released", "", number + 0.5)
        book.gone(lease, number + 0.5)
    assert [one.hash for one in book.ended] == [digest(f"t{number}") for number in (2, 3, 4)]
    assert refusal(book, "pump", "t4", 9.0) == (
        "lease-expired",
        f"lease {digest('t4')[:12]} is over (released); op reserve asks for a new one",
    )
    assert refusal(book, "pump", "t1", 9.0)[0] == "not-leased"
    lease = held(book, "next day", now=24 * 3600.0 + 3)
    book.end(lease, "released", "", 24 * 3600.0 + 3)
    book.gone(lease, 24 * 3600.0 + 3)
    assert [one.hash for one in book.ended] == [digest("t3"), digest("t4"), digest("next day")]


def test_a_lease_that_never_began_leaves_no_token_behind() -> None:
    book = Book()
    lease, _ = book.reserve(Wish(holder="ci", ttl=60.0), digest("mine"), 0.0)
    book.end(lease, "failed", "hook", 1.0)
    book.gone(lease, 2.0)
    assert (book.leases, book.ended, book.due()) == ([], [], None)
