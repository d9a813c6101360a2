"""The crash test's proof itself: it finds each kind of violation, and nothing in a history without one."""

import dataclasses
import json
from collections import Counter
from typing import Any

from crash import plan, proof
from crash.plan import Fault, Order
from crash.proof import Heard

SOURCE, TOPIC = "/benches/rig/devices/left", "hil.rig.events.left"
WRITE = Order({"op": "write"}, "c1", device="left", register=7, value=42)


def event(sequence: int, **fields: Any) -> Heard:
    plain = Heard("io.hilgate.samples.v1", SOURCE, TOPIC, f"e{sequence}", 1, sequence, None, "{}")
    return dataclasses.replace(plain, **fields)


def result(event_id: str = "r1", command: str = "c1", status: str = "ok") -> Heard:
    return event(
        1,
        kind=proof.RESULT,
        event_id=event_id,
        correlation_id=command,
        body=json.dumps({"status": status}),
    )


def loss(first: int, last: int) -> Heard:
    body = json.dumps({"source": SOURCE, "first": str(first), "last": str(last)})
    return event(1, kind=proof.LOSS, source="/benches/rig", address="hil.rig.events.bench", body=body)


def test_a_plan_is_the_seed_s_and_has_every_fault() -> None:
    rounds = plan.plan("1", plan.SESSION)
    assert rounds == plan.plan("1", plan.SESSION) != plan.plan("2", plan.SESSION)
    assert rounds[:3] == plan.plan("1", 3)
    assert {one.fault for one in rounds} == set(Fault)
    written = [(order.device, order.register) for one in rounds for order in one.orders if order.device]
    assert max(Counter(written).values()) == 1
    names = [order.message_id for one in rounds for order in one.orders]
    assert len(set(names)) == len(names)


def test_a_good_history_has_no_violation() -> None:
    heard = [event(1), event(2), event(2), event(1), event(3, epoch=2), result(), result()]
    assert proof.copies_differ(heard) == []
    assert proof.wrong_results([WRITE], heard) == []
    assert proof.wrong_effects([WRITE], heard, {("left", 7): 1}) == []
    assert proof.wrong_sequences(heard) == []
    assert proof.wrong_order(heard) == []


def test_missing_second_and_foreign_results_are_found() -> None:
    assert proof.wrong_results([WRITE], []) == ["c1 has 0 results"]
    assert proof.wrong_results([WRITE], [result("r1"), result("r2")]) == ["c1 has 2 results"]
    foreign = proof.wrong_results([WRITE], [result(), result("r2", "c2")])
    assert foreign == ["a result of c2, which nobody asked for"]


def test_copies_that_are_not_equal_are_found() -> None:
    assert len(proof.copies_differ([result(), result(status="failed")])) == 1
    assert len(proof.copies_differ([event(1), event(2, event_id="e1")])) == 1


def test_effects_other_than_the_result_says_are_found() -> None:
    def wrong(status: str, writes: int) -> bool:
        return bool(proof.wrong_effects([WRITE], [result(status=status)], {("left", 7): writes}))

    right = {"ok": {1}, "rejected": {0}, "failed": {0, 1}, "indeterminate": {0, 1}}
    for status, allowed in right.items():
        assert {writes for writes in range(4) if not wrong(status, writes)} == allowed
    assert proof.wrong_effects([WRITE], [], {("left", 7): 2})


def test_holes_are_found_unless_a_loss_names_them() -> None:
    assert proof.wrong_sequences([event(1), event(4)]) == [
        f"{SOURCE}: no event has [2, 3], and no loss names them"
    ]
    assert len(proof.wrong_sequences([event(2)])) == 1
    assert proof.wrong_sequences([event(1), loss(2, 3), event(4)]) == []
    assert len(proof.wrong_sequences([event(1), loss(2, 2), event(4)])) == 1


def test_a_number_given_twice_is_found() -> None:
    again = event(1, event_id="another", epoch=2)
    assert proof.wrong_sequences([event(1), again]) == [f"{SOURCE}: 1 was given to 2 events"]


def test_a_broken_order_is_found_per_source_and_address() -> None:
    assert len(proof.wrong_order([event(2), event(1)])) == 1
    assert len(proof.wrong_order([event(1, epoch=2), event(2)])) == 1
    assert len(proof.wrong_order([event(2), event(1, epoch=2)])) == 1
    assert len(proof.wrong_order([event(2, priority=7), event(1, priority=7)])) == 1
    assert proof.wrong_order([event(2, priority=7), event(1), event(3)]) == []  # overtaken, as it should be
    elsewhere = event(1, address="hil.availability"), event(1, source="/benches/rig/devices/right")
    assert proof.wrong_order([event(2), *elsewhere]) == []
