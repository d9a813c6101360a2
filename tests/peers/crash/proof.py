"""What has to hold of everything that was heard, whatever was killed. Pure: each check lists violations."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crash.plan import Order

RESULT = "io.hilgate.result.v1"
LOSS = "io.hilgate.loss.v1"

_EFFECTS = {"ok": {1}, "rejected": {0}, "failed": {0, 1}, "indeterminate": {0, 1}}
"""How often a command with this result may have reached its device."""


@dataclass(frozen=True)
class Heard:
    """One message as the consumer got it."""

    kind: str
    source: str
    address: str
    event_id: str
    epoch: int
    sequence: int
    correlation_id: Any
    body: str
    priority: int = 4

    @property
    def data(self) -> Any:
        return json.loads(self.body)


def first_appearances(heard: Iterable[Heard]) -> list[Heard]:
    """Each event once: at-least-once delivery may copy one, and its source and id tell."""
    found: dict[tuple[str, str], Heard] = {}
    for one in heard:
        found.setdefault((one.source, one.event_id), one)
    return list(found.values())


def copies_differ(heard: Iterable[Heard]) -> list[str]:
    """Copies of an event have one epoch, one number and one body."""
    forms: dict[tuple[str, str], set[tuple[int, int, str]]] = defaultdict(set)
    for one in heard:
        forms[one.source, one.event_id].add((one.epoch, one.sequence, one.body))
    return [
        f"copies of {key} differ: {sorted(several)}" for key, several in forms.items() if len(several) > 1
    ]


def results_of(heard: Iterable[Heard]) -> dict[Any, list[Heard]]:
    """The results by the message-id of their command, copies left away."""
    found: dict[Any, list[Heard]] = defaultdict(list)
    for one in first_appearances(heard):
        if one.kind == RESULT:
            found[one.correlation_id].append(one)
    return found


def wrong_results(orders: Iterable[Order], heard: Sequence[Heard]) -> list[str]:
    """Each command has exactly one result, and each result a command."""
    results = results_of(heard)
    known = [order.message_id for order in orders]
    counts = {name: len(results.get(name, [])) for name in known}
    return [
        *(f"a result of {other}, which nobody asked for" for other in results.keys() - set(known)),
        *(f"{name} has {count} results" for name, count in counts.items() if count != 1),
    ]


def wrong_effects(
    orders: Iterable[Order], heard: Sequence[Heard], writes: Mapping[tuple[str, int], int]
) -> list[str]:
    """No command was carried out twice, and each exactly as its result says.

    `writes`: how often each device's register was written, by the device's own count.
    """
    results = results_of(heard)
    wrong = []
    for order in orders:
        if not order.device:
            continue
        count = writes[order.device, order.register]
        statuses = {one.data["status"] for one in results.get(order.message_id, [])}
        allowed = set.intersection({0, 1}, *(_EFFECTS[status] for status in statuses))
        if count not in allowed:
            where = f"{order.device} w{order.register}"
            wrong.append(
                f"{order.message_id} was carried out {count} times on {where}; its results say {statuses}"
            )
    return wrong


def wrong_sequences(heard: Sequence[Heard]) -> list[str]:
    """Per source: numbers from 1 without a hole, but for those a loss names, and each given to one event."""
    events = [one for one in first_appearances(heard) if one.kind != RESULT]
    lost = _named_lost(events)
    wrong = []
    for (source,), own in _by(events, "source").items():
        numbers = Counter(one.sequence for one in own)
        wrong += [
            f"{source}: {number} was given to {times} events"
            for number, times in numbers.items()
            if times > 1
        ]
        missing = sorted(set(range(1, max(numbers) + 1)) - numbers.keys() - lost[source])
        if missing:
            wrong.append(f"{source}: no event has {missing}, and no loss names them")
    return wrong


def wrong_order(heard: Sequence[Heard]) -> list[str]:
    """Per source, address and priority, events first appear in the order of epoch and sequence.

    A safety event (priority 7) may overtake a loss (4) at one address: a broker may hand on what waits by
    priority (AMQP 1.0 part 3, section 3.2.1).
    """
    events = [one for one in first_appearances(heard) if one.kind != RESULT]
    wrong = []
    for (source, address, _), own in _by(events, "source", "address", "priority").items():
        for one, other in itertools.pairwise(own):
            if one.epoch > other.epoch or one.sequence >= other.sequence:
                wrong.append(f"{source} on {address}: {_name(other)} came after {_name(one)}")
    return wrong


def _name(one: Heard) -> str:
    return f"{one.kind} {one.epoch}/{one.sequence}"


def _named_lost(events: Iterable[Heard]) -> dict[str, set[int]]:
    lost: dict[str, set[int]] = defaultdict(set)
    for one in events:
        # Without sequences it tells of poll cycles that were never events.
        if one.kind == LOSS and "first" in one.data:
            lost[one.data["source"]].update(range(int(one.data["first"]), int(one.data["last"]) + 1))
    return lost


def _by(events: Iterable[Heard], *fields: str) -> dict[tuple[Any, ...], list[Heard]]:
    groups: dict[tuple[Any, ...], list[Heard]] = defaultdict(list)
    for one in events:
        groups[tuple(getattr(one, field) for field in fields)].append(one)
    return groups
