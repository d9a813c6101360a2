import math

import pytest

from sim.broker.addresses import Kind, Refusal
from sim.broker.message import Message
from sim.broker.queue import Consumer, Entry, Fate
from sim.broker.router import Limits, Producer, Router, Subscription
from sim.broker.statistics import collect


class ConsumerPort:
    def __init__(self, credit: int = 100) -> None:
        self.credit = credit
        self.entries: list[Entry] = []
        self.ended: Refusal | None = None
        self.consumer = Consumer(self)

    def deliver(self, entry: Entry) -> None:
        self.credit -= 1
        self.entries.append(entry)

    def end(self, reason: Refusal) -> None:
        self.ended = reason

    @property
    def bodies(self) -> list[bytes]:
        return [entry.message.data for entry in self.entries]

    def settle(self, index: int, fate: Fate = Fate.DONE) -> None:
        entry = self.entries[index]
        entry.queue.settle(self.consumer, entry, fate)


class ProducerPort:
    def __init__(self) -> None:
        self.credit = 0
        self.ended: Refusal | None = None

    def grant(self, credit: int) -> None:
        self.credit += credit

    def end(self, reason: Refusal) -> None:
        self.ended = reason


class Bench:
    def __init__(self, **limits: object) -> None:
        self.now = 0.0
        self.router = Router(Limits(**limits), lambda: self.now)  # type: ignore[arg-type]

    def send(self, name: str, *bodies: bytes, kind: Kind | None = None, **fields: object) -> None:
        for body in bodies:
            self.router.publish(self.router.address(name, kind), Message(body, **fields))  # type: ignore[arg-type]

    def subscribe(
        self, pattern: str, identity: tuple[str, str] | None = None
    ) -> tuple[ConsumerPort, Subscription]:
        port = ConsumerPort()
        subscription = self.router.subscribe(port.consumer, pattern, identity)
        subscription.queue.wake(port.consumer)
        return port, subscription

    def consume(self, name: str) -> ConsumerPort:
        port = ConsumerPort()
        self.router.consume(port.consumer, name).wake(port.consumer)
        return port

    def producer(self, name: str | None) -> tuple[Producer, ProducerPort]:
        port = ProducerPort()
        producer = Producer(port, self.router.address(name) if name else None)
        self.router.attach_producer(producer)
        return producer, port

    def counted(self, name: str) -> int:
        return int(getattr(self.router.counters, name))


def test_a_queue_keeps_messages_until_somebody_comes() -> None:
    bench = Bench()
    bench.send("hil.rig.commands", b"1", b"2")
    assert bench.consume("hil.rig.commands").bodies == [b"1", b"2"]


def test_a_topic_gives_every_subscription_a_copy_and_keeps_nothing() -> None:
    bench = Bench()
    bench.send("hil.rig.events.pump", b"early")
    exact, _ = bench.subscribe("hil.rig.events.pump")
    wild, _ = bench.subscribe("hil.*.events.#")
    other, _ = bench.subscribe("hil.rig.events.valve")
    bench.send("hil.rig.events.pump", b"1")
    assert (exact.bodies, wild.bodies, other.bodies) == ([b"1"], [b"1"], [])
    assert bench.counted("unrouted") == 1


def test_a_pattern_covers_topics_that_come_later_and_never_queues() -> None:
    bench = Bench()
    everything, _ = bench.subscribe("#")
    bench.send("hil.rig.events.pump", b"event")
    bench.send("hil.rig.commands", b"command")
    assert everything.bodies == [b"event"]


def test_an_address_keeps_the_kind_it_was_made_with() -> None:
    bench = Bench()
    bench.router.address("orders", Kind.TOPIC)
    assert bench.router.address("orders").kind is Kind.TOPIC
    with pytest.raises(Refusal) as refused:
        bench.consume("orders")
    assert refused.value.condition == "amqp:not-allowed"


def test_nobody_makes_an_address_of_the_wire_contract_another_kind() -> None:
    bench = Bench()
    with pytest.raises(Refusal) as refused:
        bench.router.address("hil.rig.commands", Kind.TOPIC)
    assert refused.value.condition == "amqp:not-allowed"
    assert bench.router.address("hil.rig.commands").kind is Kind.QUEUE


def test_nobody_sends_to_a_pattern_or_makes_up_a_temporary_address() -> None:
    bench = Bench()
    with pytest.raises(Refusal, match="pattern"):
        bench.router.address("hil.*.commands")
    with pytest.raises(Refusal) as refused:
        bench.router.address("temporary.made-up")
    assert refused.value.condition == "amqp:not-found"


def test_a_temporary_address_ends_with_its_links_and_messages() -> None:
    bench = Bench()
    address = bench.router.temporary()
    consumer = bench.consume(address.name)
    _, port = bench.producer(address.name)
    bench.send(address.name, b"1")
    bench.router.remove(address)
    assert consumer.bodies == [b"1"]
    assert consumer.ended is not None
    assert port.ended is not None
    with pytest.raises(Refusal, match="does not exist"):
        bench.router.publish(address, Message(b"2"))


def test_a_duplicate_is_taken_and_dropped() -> None:
    bench = Bench(duplicate_ids=2)
    bench.send("q", b"1", b"1 again", duplicate_id="a")
    bench.send("other", b"1 there", duplicate_id="a")
    bench.send("q", b"2", duplicate_id="b")
    bench.send("q", b"3", duplicate_id="c")
    bench.send("q", b"1 after it was forgotten", duplicate_id="a")
    assert bench.consume("q").bodies == [b"1", b"2", b"3", b"1 after it was forgotten"]
    assert bench.counted("duplicates") == 1


def test_a_new_subscriber_gets_the_last_value_of_each_key_that_still_lives() -> None:
    bench = Bench()
    bench.send("hil.availability", b"rig-1 old", b"rig-1", key="rig-1")
    bench.send("hil.availability", b"rig-2", key="rig-2", expires=10.0)
    bench.send("hil.availability", b"rig-3", key="rig-3", expires=5.0)
    bench.now = 5.0
    assert bench.subscribe("hil.availability")[0].bodies == [b"rig-1", b"rig-2"]
    assert bench.subscribe("hil.#")[0].bodies == [b"rig-1", b"rig-2"]


def test_a_durable_subscription_collects_while_its_subscriber_is_away() -> None:
    bench = Bench()
    first, subscription = bench.subscribe("hil.rig.events.*", ("plane", "log"))
    subscription.queue.detach(first.consumer, failed=False)
    bench.send("hil.rig.events.pump", b"1")
    again, same = bench.subscribe("hil.rig.events.*", ("plane", "log"))
    assert same is subscription
    assert again.bodies == [b"1"]
    assert bench.subscribe("hil.rig.events.*", ("other", "log"))[0].bodies == []


def test_a_durable_subscription_is_taken_over_from_a_connection_that_hangs() -> None:
    bench = Bench()
    hung, subscription = bench.subscribe("hil.rig.events.*", ("plane", "log"))
    bench.send("hil.rig.events.pump", b"1")
    again, _ = bench.subscribe("hil.rig.events.*", ("plane", "log"))
    assert hung.ended is not None
    assert hung.ended.condition == "amqp:link:stolen"
    assert again.bodies == [b"1"]
    assert list(subscription.queue.consumers) == [again.consumer]


def test_a_durable_subscription_to_something_else_starts_anew() -> None:
    bench = Bench()
    bench.subscribe("hil.rig.events.*", ("plane", "log"))
    bench.send("hil.rig.events.pump", b"1")
    again, _ = bench.subscribe("hil.rig.results", ("plane", "log"))
    bench.send("hil.rig.events.pump", b"2")
    assert again.bodies == []
    assert len(bench.router.subscriptions) == 1


def test_an_ended_subscription_gets_nothing_more() -> None:
    bench = Bench()
    port, subscription = bench.subscribe("hil.#")
    bench.router.unsubscribe(subscription)
    bench.send("hil.rig.events.pump", b"1")
    assert port.bodies == []
    assert bench.counted("unrouted") == 1


def test_dead_letters_are_kept_apart_and_never_given_up_by_counting() -> None:
    bench = Bench(max_deliveries=1)
    port = bench.consume("q")
    bench.send("q", b"poison")
    port.settle(0, Fate.FAILED)
    letters = bench.consume("DLQ")
    letters.settle(0, Fate.FAILED)
    assert letters.bodies == [b"poison", b"poison"]
    letters.settle(1, Fate.DEAD)
    assert (bench.counted("dead_lettered"), bench.counted("discarded")) == (2, 1)


def test_dead_letters_have_a_bound_too() -> None:
    bench = Bench(max_queue_bytes=4)
    port = bench.consume("q")
    for index in range(5):
        bench.send("q", b"bad!")
        port.settle(index, Fate.DEAD)
    assert bench.counted("discarded") == 3


def test_credit_is_topped_up_as_messages_come() -> None:
    bench = Bench(producer_window=4)
    producer, port = bench.producer("q")
    assert port.credit == 4
    for left in (3, 4):  # two used up are half the window: then two come back at once
        port.credit -= 1
        bench.router.received(producer)
        assert port.credit == left


def test_a_full_queue_withholds_credit_until_half_of_it_is_free() -> None:
    bench = Bench(max_queue_bytes=40, producer_window=2)
    producer, port = bench.producer("q")
    for _ in range(6):
        bench.send("q", b"0123456789")
        if port.credit:
            port.credit -= 1
            bench.router.received(producer)
    assert port.credit == 0
    consumer = bench.consume("q")
    for index in range(6):
        assert port.credit == (2 if index > 3 else 0)
        consumer.settle(index)


def test_a_queue_with_no_room_at_all_takes_no_more() -> None:
    bench = Bench(max_queue_bytes=10)
    bench.send("q", b"0123456789", b"0123456789")
    with pytest.raises(Refusal) as refused:
        bench.send("q", b"1")
    assert refused.value.condition == "amqp:resource-limit-exceeded"


def test_a_subscriber_that_goes_away_makes_room_again() -> None:
    bench = Bench(max_queue_bytes=10, producer_window=2)
    _, subscription = bench.subscribe("hil.rig.#")
    bench.send("hil.rig.events.pump", b"0123456789")
    _, port = bench.producer("hil.rig.events.pump")
    assert port.credit == 0
    bench.router.unsubscribe(subscription)
    assert port.credit == 2


def test_all_credit_can_be_withheld_and_given_back() -> None:
    bench = Bench(producer_window=4)
    _, port = bench.producer("q")
    _, relay = bench.producer(None)
    bench.router.withhold_credit(True)
    late_producer, late = bench.producer("q")
    assert (port.credit, relay.credit, late.credit) == (0, 0, 0)
    bench.router.detach_producer(late_producer)
    bench.router.withhold_credit(False)
    assert (port.credit, relay.credit, late.credit) == (4, 4, 0)


def test_expired_messages_are_not_taken_and_those_that_wait_are_swept() -> None:
    bench = Bench()
    bench.now = 10.0
    bench.send("q", b"too late", expires=10.0)
    bench.send("q", b"soon", expires=11.0)
    bench.send("q", b"never", expires=math.inf)
    bench.now = 11.0
    bench.router.sweep()
    assert bench.counted("expired") == 2
    assert bench.consume("q").bodies == [b"never"]


def test_idle_addresses_make_way_for_new_ones_and_used_ones_do_not() -> None:
    bench = Bench(max_addresses=3)
    bench.send("kept", b"1")
    bench.router.address("idle")
    bench.producer("new")
    with pytest.raises(Refusal) as refused:
        bench.router.address("one too many")
    assert refused.value.condition == "amqp:resource-limit-exceeded"
    assert bench.consume("kept").bodies == [b"1"]


def test_subscriptions_are_bounded() -> None:
    bench = Bench(max_addresses=2)
    bench.subscribe("a.*")
    bench.subscribe("b.*")
    with pytest.raises(Refusal, match="all 2 subscriptions"):
        bench.subscribe("c.*")


def test_statistics_tell_what_is_where() -> None:
    bench = Bench()
    bench.subscribe("hil.*.events.#", ("plane", "log"))
    bench.send("hil.rig.commands", b"one", b"two")
    bench.send("hil.rig.events.pump", b"event")
    statistics = collect(bench.router, connections=1)
    commands, log = statistics.queue("hil.rig.commands"), statistics.queue("plane:log")
    assert commands is not None
    assert log is not None
    assert (commands.messages, commands.bytes, commands.consumers, commands.subscription) == (2, 6, 0, None)
    assert (log.messages, log.unsettled, log.consumers, log.subscription) == (1, 1, 1, "hil.*.events.#")
    assert statistics.counters.received == 3
    assert statistics.queue("nothing") is None
