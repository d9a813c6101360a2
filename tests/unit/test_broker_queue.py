import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from sim.broker.addresses import Refusal
from sim.broker.message import Message
from sim.broker.queue import Consumer, Entry, Fate, Queue


class Owner:
    """Notes what a queue tells."""

    def __init__(self) -> None:
        self.dead: list[bytes] = []
        self.lapsed = 0
        self.room = 0

    def dead_letter(self, queue: Queue, message: Message) -> None:
        self.dead.append(message.data)

    def expired(self) -> None:
        self.lapsed += 1

    def has_room(self) -> None:
        self.room += 1


class Port:
    """A consumer's link that notes what it is given."""

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.entries: list[Entry] = []
        self.ended: Refusal | None = None

    def deliver(self, entry: Entry) -> None:
        assert self.credit > 0
        self.credit -= 1
        self.entries.append(entry)

    def end(self, reason: Refusal) -> None:
        self.ended = reason

    @property
    def bodies(self) -> list[bytes]:
        return [entry.message.data for entry in self.entries]


class Bench:
    """A queue with a clock that the test turns."""

    def __init__(self, max_bytes: int = 1000, max_deliveries: int | None = 3) -> None:
        self.now = 0.0
        self.owner = Owner()
        self.queue = Queue("q", self.owner, lambda: self.now, max_bytes, max_deliveries)

    def put(self, *bodies: bytes, priority: int = 4, expires: float = math.inf) -> None:
        for body in bodies:
            self.queue.put(Message(data=body, priority=priority, expires=expires))

    def consumer(self, credit: int = 100, settled: bool = False) -> tuple[Consumer, Port]:
        port = Port(credit)
        consumer = Consumer(port, settled)
        self.queue.attach(consumer)
        return consumer, port


def test_hands_out_by_priority_then_in_the_order_of_arrival() -> None:
    bench = Bench()
    bench.put(b"1", b"2")
    bench.put(b"urgent", priority=7)
    bench.put(b"3")
    _, port = bench.consumer()
    assert port.bodies == [b"urgent", b"1", b"2", b"3"]


def test_consumers_take_turns_as_far_as_their_credit_goes() -> None:
    bench = Bench()
    _, many = bench.consumer(credit=10)
    _, one = bench.consumer(credit=1)
    bench.put(b"1", b"2", b"3", b"4")
    assert (many.bodies, one.bodies) == ([b"1", b"3", b"4"], [b"2"])


def test_waits_for_credit() -> None:
    bench = Bench()
    consumer, port = bench.consumer(credit=0)
    bench.put(b"1")
    assert port.bodies == []
    port.credit = 1
    bench.queue.wake(consumer)
    assert port.bodies == [b"1"]


def test_credit_that_went_away_is_not_used() -> None:
    bench = Bench()
    _, port = bench.consumer(credit=5)
    port.credit = 0  # as when the socket takes no more
    bench.put(b"1")
    assert port.bodies == []
    assert bench.queue.messages == 1


def test_a_released_message_comes_back_to_its_old_place_uncounted() -> None:
    bench = Bench()
    consumer, port = bench.consumer(credit=1)
    bench.put(b"1", b"2")
    bench.queue.settle(consumer, port.entries[0], Fate.RETURNED)
    port.credit = 2
    bench.queue.wake(consumer)
    assert port.bodies == [b"1", b"1", b"2"]
    assert port.entries[1].failures == 0


def test_a_lost_consumer_counts_as_a_failed_delivery_and_one_that_left_does_not() -> None:
    bench = Bench()
    lost, _ = bench.consumer(credit=1)
    bench.put(b"1")
    bench.queue.detach(lost, failed=True)
    leaving, port = bench.consumer(credit=1)
    assert port.entries[0].failures == 1
    bench.queue.detach(leaving, failed=False)
    _, last = bench.consumer(credit=1)
    assert last.entries[0].failures == 1


def test_too_many_failures_make_a_dead_letter() -> None:
    bench = Bench(max_deliveries=3)
    consumer, port = bench.consumer()
    bench.put(b"poison")
    for attempt in range(3):
        assert bench.owner.dead == []
        bench.queue.settle(consumer, port.entries[attempt], Fate.FAILED)
    assert bench.owner.dead == [b"poison"]
    assert bench.queue.messages == bench.queue.bytes == 0


def test_a_rejected_message_is_a_dead_letter_at_once() -> None:
    bench = Bench()
    consumer, port = bench.consumer()
    bench.put(b"bad", b"good")
    bench.queue.settle(consumer, port.entries[0], Fate.DEAD)
    assert bench.owner.dead == [b"bad"]
    assert bench.queue.unsettled == 1


def test_a_late_outcome_of_a_consumer_that_lost_the_message_changes_nothing() -> None:
    bench = Bench()
    first, port = bench.consumer()
    bench.put(b"1")
    entry = port.entries[0]
    bench.queue.detach(first, failed=True)
    second, _ = bench.consumer()
    bench.queue.settle(first, entry, Fate.DONE)
    assert entry.holder is second
    assert bench.queue.messages == 1


def test_settled_deliveries_are_gone_once_sent() -> None:
    bench = Bench()
    _, port = bench.consumer(credit=1, settled=True)
    bench.put(b"1", b"2")
    assert port.bodies == [b"1"]
    assert (bench.queue.messages, bench.queue.unsettled) == (1, 0)


def test_expired_messages_are_dropped_before_delivery_and_by_the_sweep() -> None:
    bench = Bench()
    bench.put(b"old", expires=5)
    bench.put(b"older", expires=4, priority=0)
    bench.put(b"live")
    bench.now = 5
    bench.queue.expire()
    assert (bench.owner.lapsed, bench.queue.messages, bench.queue.bytes) == (2, 1, 4)
    bench.put(b"at once", expires=5)
    _, port = bench.consumer()
    assert port.bodies == [b"live"]
    assert bench.owner.lapsed == 3


def test_is_full_until_half_is_free_again() -> None:
    bench = Bench(max_bytes=40)
    bench.put(*[b"0123456789"] * 3)
    assert not bench.queue.full
    bench.put(b"0123456789")
    assert bench.queue.full
    assert not bench.queue.overfull
    consumer, port = bench.consumer()
    bench.queue.settle(consumer, port.entries[0], Fate.DONE)
    assert bench.queue.full
    assert bench.owner.room == 0
    bench.queue.settle(consumer, port.entries[1], Fate.DONE)
    assert not bench.queue.full
    assert bench.owner.room == 1
    bench.put(*[b"0123456789"] * 6)
    assert bench.queue.overfull


def test_closing_drops_everything_and_ends_the_consumers() -> None:
    bench = Bench(max_bytes=2)
    consumer, port = bench.consumer(credit=1)
    bench.put(b"1", b"2")
    bench.queue.close(Refusal("amqp:resource-deleted", "gone"))
    assert (bench.queue.messages, bench.queue.bytes, bench.owner.room) == (0, 0, 1)
    assert port.ended is not None
    bench.queue.settle(consumer, port.entries[0], Fate.RETURNED)
    bench.queue.detach(consumer, failed=True)
    assert bench.queue.messages == 0


class NothingLostNothingTwice(RuleBasedStateMachine):
    """Whatever consumers do, each message is in one place: waiting, with one consumer, done or dead."""

    consumers = Bundle("consumers")

    @initialize()
    def start(self) -> None:
        self.bench = Bench(max_bytes=50, max_deliveries=3)
        self.sent = 0
        self.done: list[bytes] = []
        self.failures: dict[bytes, int] = {}
        self.attached: dict[Consumer, Port] = {}

    @rule(count=st.integers(1, 5), priority=st.integers(0, 9))
    def send(self, count: int, priority: int) -> None:
        for _ in range(count):
            self.bench.put(b"%d" % self.sent, priority=priority)
            self.sent += 1

    @rule(target=consumers, credit=st.integers(0, 4), settled=st.booleans())
    def attach(self, credit: int, settled: bool) -> Consumer:
        consumer, port = self.bench.consumer(credit, settled)
        self.attached[consumer] = port
        return consumer

    @rule(consumer=consumers, credit=st.integers(0, 4))
    def flow(self, consumer: Consumer, credit: int) -> None:
        self.attached[consumer].credit = credit
        self.bench.queue.wake(consumer)

    @rule(consumer=consumers, pick=st.integers(0), fate=st.sampled_from(Fate))
    def settle(self, consumer: Consumer, pick: int, fate: Fate) -> None:
        if consumer.held:
            entry = list(consumer.held)[pick % len(consumer.held)]
            if fate is Fate.DONE:
                self.done.append(entry.message.data)
            elif fate is Fate.FAILED:
                self.failures[entry.message.data] = self.failures.get(entry.message.data, 0) + 1
            self.bench.queue.settle(consumer, entry, fate)

    @rule(consumer=consumers, pick=st.integers(0), fate=st.sampled_from(Fate))
    def settle_again(self, consumer: Consumer, pick: int, fate: Fate) -> None:
        stale = [e for e in self.attached[consumer].entries if e.holder is not consumer]
        if stale:
            self.bench.queue.settle(consumer, stale[pick % len(stale)], fate)

    @rule(consumer=consumes(consumers), failed=st.booleans())
    def detach(self, consumer: Consumer, failed: bool) -> None:
        if failed:
            for entry in consumer.held:
                self.failures[entry.message.data] = self.failures.get(entry.message.data, 0) + 1
        self.bench.queue.detach(consumer, failed)

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        if not hasattr(self, "bench"):
            return
        queue = self.bench.queue
        held = [entry.message.data for consumer in self.attached for entry in consumer.held]
        settled = [
            entry.message.data
            for consumer, port in self.attached.items()
            if consumer.settled
            for entry in port.entries
        ]
        waiting = [entry.message.data for _, _, entry in queue._waiting]
        everywhere = sorted(held + settled + waiting + self.done + self.bench.owner.dead, key=int)
        assert everywhere == [b"%d" % number for number in range(self.sent)]
        assert queue.messages == len(held) + len(waiting)
        assert queue.bytes == sum(map(len, held + waiting))

    @invariant()
    def nobody_with_credit_waits_beside_waiting_messages(self) -> None:
        if hasattr(self, "bench") and self.bench.queue._waiting:
            assert all(c.port.credit <= 0 for c in self.bench.queue.consumers)

    @invariant()
    def failures_are_counted(self) -> None:
        if hasattr(self, "bench"):
            for consumer in self.attached:
                for entry in consumer.held:
                    assert entry.failures == self.failures.get(entry.message.data, 0)


TestNothingLostNothingTwice = NothingLostNothingTwice.TestCase
TestNothingLostNothingTwice.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
