"""Batching: every sample leaves once, in order, within the bounds of one event."""

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.batch import Batcher
from protocols.base import Batch, Quality, Sample
from protocols.timestamps import rfc3339

NEVER = 3600.0
names = st.text("abcdefghij", min_size=1, max_size=8)
values = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
)


def gather(limits: Batch, samples: list[Sample]) -> list[tuple[Any, int, int]]:
    """What a batcher emits for samples: decoded body, size, first time."""
    emitted: list[tuple[Any, int, int]] = []

    async def run() -> None:
        batcher = Batcher(limits, lambda body, first: emitted.append((json.loads(body), len(body), first)))
        for sample in samples:
            batcher.add(sample)
        batcher.flush()

    asyncio.run(run())
    return emitted


@given(st.lists(st.dictionaries(names, values, min_size=1, max_size=30), min_size=1, max_size=30))
def test_every_value_leaves_once_and_in_order(readings: list[dict[str, Any]]) -> None:
    samples = [Sample(time_ns, reading) for time_ns, reading in enumerate(readings)]
    events = gather(Batch(window=NEVER, samples=7, bytes=1024), samples)
    assert all(len(event["samples"]) <= 7 and size <= 1024 for event, size, _ in events)
    merged: dict[str, dict[str, Any]] = {}
    order = []
    for event, _, _ in events:
        for sample in event["samples"]:
            if sample["time"] not in merged:
                order.append(sample["time"])
            merged.setdefault(sample["time"], {}).update(sample["values"])
    assert order == [rfc3339(sample.time_ns) for sample in samples]
    assert list(merged.values()) == readings


def test_an_event_carries_the_time_of_its_first_sample() -> None:
    events = gather(Batch(window=NEVER, samples=2), [Sample(time_ns, {"a": 1}) for time_ns in (10, 20, 30)])
    assert [first for _, _, first in events] == [10, 30]


def test_bad_points_stand_beside_good_ones_and_only_where_there_are_any() -> None:
    samples = [Sample(0, {"speed": 1.5}, {"pressure": Quality.TIMEOUT}), Sample(1, {"speed": 2.0})]
    ((event, _, _),) = gather(Batch(window=NEVER), samples)
    assert event["samples"][0]["bad"] == {"pressure": "timeout"}
    assert "bad" not in event["samples"][1]


def test_a_sample_larger_than_an_event_is_split_with_its_time_kept() -> None:
    huge = {f"point-{number}": number for number in range(500)}
    bad = {f"bad-{number}": Quality.TIMEOUT for number in range(500)}
    events = gather(Batch(window=NEVER, bytes=2048), [Sample(5, huge, bad)])
    parts = [sample for event, _, _ in events for sample in event["samples"]]
    assert {part["time"] for part in parts} == {rfc3339(5)}
    assert {name: value for part in parts for name, value in part["values"].items()} == huge
    assert {name for part in parts for name in part.get("bad", {})} == set(bad)


def test_a_value_larger_than_an_event_is_bad_and_the_others_are_not() -> None:
    sample = Sample(5, {"speed": 1, "curve": list(range(2000)), "torque": 2})
    events = gather(Batch(window=NEVER, bytes=1024), [sample])
    parts = [part for event, _, _ in events for part in event["samples"]]
    assert {name: value for part in parts for name, value in part["values"].items()} == {
        "speed": 1,
        "torque": 2,
    }
    assert [part["bad"] for part in parts if "bad" in part] == [{"curve": "out-of-range"}]


async def test_the_window_emits_without_further_samples() -> None:
    emitted = asyncio.Event()
    batcher = Batcher(Batch(window=0.001), lambda _body, _first: emitted.set())
    batcher.add(Sample(0, {"a": 1}))
    async with asyncio.timeout(5):
        await emitted.wait()


def test_the_same_values_again_read_the_same() -> None:
    same = {"a": 1.5}
    ((event, _, _),) = gather(Batch(window=NEVER), [Sample(0, same), Sample(1, same), Sample(2, {"a": 2.5})])
    assert [sample["values"]["a"] for sample in event["samples"]] == [1.5, 1.5, 2.5]
