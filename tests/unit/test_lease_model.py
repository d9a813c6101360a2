"""The book of leases against a simple model: whatever happens in whatever order, one device has one lease."""

import itertools

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.lease.book import Book, Ended, Lease, State, Wish, digest
from protocols.base import Refused

DEVICES = ("a", "b", "c")
SOME_DEVICES = st.sets(st.sampled_from(DEVICES), min_size=1).map(lambda names: tuple(sorted(names)))


class Model:
    """What a lease should be."""

    def __init__(self, wish: Wish, phase: str) -> None:
        self.wish = wish
        self.devices = frozenset(DEVICES if wish.devices is None else wish.devices)
        self.phase = phase
        self.expires = self.heard = 0.0
        self.lapsed = False
        self.was_held = False

    def renewed(self, now: float) -> None:
        self.phase, self.was_held, self.lapsed = "held", True, False
        self.heard, self.expires = now, now + self.wish.ttl

    def ended(self) -> None:
        self.phase = "gone" if self.phase == "waiting" else "ending"

    def in_time(self, now: float) -> bool:
        return self.phase == "held" and now < self.expires

    def silent(self, now: float) -> bool:
        return self.lapsed or (self.wish.deadman is not None and now - self.heard >= self.wish.deadman)


class LeaseBook(RuleBasedStateMachine):
    """Everything that holders, hooks, time and crashes do to the book."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.now = 1000.0
        self.models: dict[str, Model] = {}

    def rivals(self, devices: frozenset[str]) -> list[Model]:
        return [model for model in self.models.values() if model.phase != "gone" and model.devices & devices]

    def lease(self, token: str) -> Lease:
        (one,) = [lease for lease in self.book.leases if lease.hash == digest(token)]
        return one

    def any(self, *phases: str) -> bool:
        return any(model.phase in phases for model in self.models.values())

    def one_that_is(self, data: st.DataObject, *phases: str) -> str:
        found = [token for token, model in self.models.items() if model.phase in phases]
        return data.draw(st.sampled_from(found))

    @rule(
        devices=st.none() | SOME_DEVICES,
        priority=st.sampled_from([0, 0, 0, 1, 2]),
        ttl=st.sampled_from([20.0, 5.0]),
        deadman=st.sampled_from([2.0, None]),
        at_once=st.sampled_from([True, True, False]),
    )
    def reserve(
        self, devices: tuple[str, ...] | None, priority: int, ttl: float, deadman: float | None, at_once: bool
    ) -> None:
        token = f"token-{len(self.models)}"
        wish = Wish(holder=token, ttl=ttl, devices=devices, priority=priority, deadman=deadman)
        model = Model(wish, "preparing")
        rivals = self.rivals(model.devices)
        if any(rival.wish.priority >= priority for rival in rivals):
            with pytest.raises(Refused) as caught:
                self.book.reserve(wish, digest(token), self.now)
            assert caught.value.code == "lease-held"
            return
        _, preempted = self.book.reserve(wish, digest(token), self.now)
        losers = [rival for rival in rivals if rival.phase != "ending"]
        assert {lease.holder for lease in preempted} == {loser.wish.holder for loser in losers}
        for loser in losers:
            loser.ended()
        model.phase = "waiting" if rivals else "preparing"
        self.models[token] = model
        if at_once and not rivals:
            self.book.hold(self.lease(token), self.now)
            model.renewed(self.now)

    @precondition(lambda self: self.any("waiting", "preparing"))
    @rule(data=st.data(), well=st.booleans())
    def prepare(self, data: st.DataObject, well: bool) -> None:
        """The keeper goes on with a new lease, if it may."""
        token = self.one_that_is(data, "waiting", "preparing")
        model = self.models[token]
        if model.phase == "waiting" and self.rivals(model.devices) == [model]:
            self.book.prepare(self.lease(token))
            model.phase = "preparing"
        elif model.phase == "preparing" and well:
            self.book.hold(self.lease(token), self.now)
            model.renewed(self.now)
        elif model.phase == "preparing":
            self.book.end(self.lease(token), "failed", "hook", self.now)
            model.ended()

    @precondition(lambda self: self.any("ending"))
    @rule(data=st.data())
    def clean_up(self, data: st.DataObject) -> None:
        token = self.one_that_is(data, "ending")
        self.book.gone(self.lease(token), self.now)
        self.models[token].phase = "gone"

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(list(self.models)))
        model = self.models[token]
        if model.in_time(self.now):
            lapsed = model.lapsed
            assert self.book.renew(digest(token), self.now)[1] == lapsed
            model.renewed(self.now)
        else:
            with pytest.raises(Refused) as caught:
                self.book.renew(digest(token), self.now)
            assert caught.value.code == ("lease-expired" if model.was_held else "not-leased")

    @precondition(lambda self: self.any("held"))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        token = self.one_that_is(data, "held")
        if self.models[token].in_time(self.now):
            self.book.end(self.book.running(digest(token), self.now), "released", "", self.now)
            self.models[token].ended()

    @precondition(lambda self: self.any("held"))
    @rule(seconds=st.sampled_from([3.0, 1.0, 10.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tick(self) -> None:
        due = self.book.due()
        expected = {}
        for model in self.models.values():
            if model.phase == "held" and not model.in_time(self.now):
                model.ended()
                expected[model.wish.holder] = State.ENDING
            elif model.phase == "held" and model.silent(self.now) and not model.lapsed:
                model.lapsed = True
                expected[model.wish.holder] = State.LAPSED
        assert (due is not None and due <= self.now) == bool(expected)
        assert {lease.holder: lease.state for lease in self.book.tick(self.now)} == expected

    @rule()
    def restart(self) -> None:
        leases, ended = msgspec.json.encode(self.book.leases), msgspec.json.encode(self.book.ended)
        self.book = Book(
            msgspec.json.decode(leases, type=list[Lease]), msgspec.json.decode(ended, type=list[Ended])
        )
        assert msgspec.json.encode(self.book.leases) == leases

    @invariant()
    def one_device_has_one_lease(self) -> None:
        having = [lease for lease in self.book.leases if lease.state is not State.WAITING]
        for one, other in itertools.combinations(having, 2):
            assert not one.overlaps(other), (one, other)

    @invariant()
    def the_book_holds_what_lives(self) -> None:
        phases = {State.LAPSED: "held"}
        assert {lease.holder: phases.get(lease.state, str(lease.state)) for lease in self.book.leases} == {
            token: model.phase for token, model in self.models.items() if model.phase != "gone"
        }

    @invariant()
    def who_has_no_right_does_not_write(self) -> None:
        for device in DEVICES:
            for token in (None, "nobody's", *self.models):
                for required in (False, True):
                    assert self.may(device, token, required) == self.ought(device, token, required)

    def may(self, device: str, token: str | None, required: bool) -> bool:
        try:
            self.book.check(device, token and digest(token), self.now, required=required)
        except Refused as refused:
            assert refused.code in ("not-leased", "lease-held", "lease-expired")
            return False
        return True

    def ought(self, device: str, token: str | None, required: bool) -> bool:
        """The rule in the words of the contract."""
        model = self.models.get(token or "")
        if token is not None and (model is None or not model.in_time(self.now)):
            return False
        if model is not None and device in model.devices:
            return not model.silent(self.now)
        return not required and not self.rivals(frozenset({device}))


TestLeaseBook = LeaseBook.TestCase
TestLeaseBook.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
