"""What any message does to a device with topics of its own: it never raises, and every point hears of it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.base import DeviceState, DriverError, Quality, Refused, Sample
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Message, Publication
from protocols.mqtt.topics import Topics
from protocols.mqtt.writes import publication_of

POINTS: dict[str, Any] = {
    "number": {"topic": "s/+", "path": "a.b[0]"},
    "whole": {"topic": "s/+", "path": "a", "type": "object", "time_path": "t"},
    "word": {"topic": "s/+", "encoding": "plain", "type": "enumeration", "labels": {"1": "one"}},
    "raw": {"topic": "s/#", "encoding": "float64", "offset_bytes": 3},
    "flag": {"topic": "s/x", "encoding": "plain", "type": "boolean"},
}
DEVICE = MqttDevice.model_validate(
    {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "mqtt.bench.example"},
        "points": POINTS,
        "presence": {"topic": "s/here", "path": "is", "online": 1, "offline": 0},
        "max_payload": 100,
    }
).named("oven")


class Host:
    """Keeps what it is told."""

    refused: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def state(self, state: DeviceState, reason: str = "") -> None: ...

    def lost(self, count: int, reason: str) -> None: ...

    async def publish(self, publication: Publication) -> None: ...

    async def request(self, publication: Publication, answers: str, timeout: float) -> Message:
        raise NotImplementedError


JSON = st.sampled_from(
    [
        b'{"a":{"b":[1]},"t":5}',
        b'{"a":{"b":[true]}}',
        b'{"a":[]}',
        b'{"a":{"b":[1e400]},"t":"x"}',
        b'{"is":1}',
        b'{"is":0}',
    ]
)
TOPICS = st.sampled_from(["s/x", "s/y", "s/here", "s", "s/x/y", "z", "", "$s/x"])


@given(st.lists(st.tuples(TOPICS, JSON | st.binary(max_size=120), st.booleans()), max_size=10))
@settings(max_examples=200)
def test_no_message_raises_and_all_its_points_are_said_something_of(
    said: list[tuple[str, bytes, bool]],
) -> None:
    async def play() -> None:
        host, had = Host(), set[str]()
        topics = Topics(DEVICE, had)
        await topics.begin(host)
        for topic, payload, retain in said:
            host.samples.clear()
            known = len(had)
            topics.take(Message(topic, payload, 7, 1, retain))
            named = {name for sample in host.samples for name in (*sample.values, *sample.bad)}
            wanted = {"s/x": 5, "s/y": 4, "s/here": 4, "s": 1, "s/x/y": 1}.get(topic, 0)
            assert wanted - known <= len(named) <= wanted or (topic == "s/here" and len(named) == len(POINTS))
            for sample in host.samples:
                assert not set(sample.values) & set(sample.bad)
        await topics.end()

    asyncio.run(play())


async def test_a_path_that_was_there_once_may_be_missing_and_one_that_never_was_is_a_mistake() -> None:
    host, had = Host(), set[str]()
    topics = Topics(DEVICE, had)
    await topics.begin(host)

    def said(payload: bytes, name: str) -> list[Any]:
        host.samples.clear()
        topics.take(Message("s/y", payload, 7))
        found = [{**one.values, **one.bad} for one in host.samples]
        return [one[name] for one in found if name in one]

    assert said(b'{"c":1}', "number") == [Quality.BAD_CONFIG]
    assert said(b'{"a":{"b":[1]}}', "number") == [1]
    for partial in (b'{"c":1}', b'{"a":{}}', b'{"a":{"b":[]}}', b"{}"):
        assert said(partial, "number") == []
    assert (await topics.read(["number"])).values == {"number": 1}
    assert said(b'{"a":{"b":[null]}}', "number") == [Quality.DEVICE_ERROR]
    assert said(b"no JSON", "number") == [Quality.DEVICE_ERROR]
    assert topics.status()["not_taken"]["no-path"] == 2  # `number`'s and `whole`'s, of the first message
    await topics.end()
    again = Topics(DEVICE, had)  # after a lost link
    await again.begin(host)
    host.samples.clear()
    again.take(Message("s/y", b'{"c":1}', 7))
    assert not any("number" in one.bad for one in host.samples)
    with pytest.raises(DriverError, match="nothing was said yet"):
        await again.read(["number"])
    await again.end()


WRITES: list[tuple[dict[str, Any], Any, bytes]] = [
    ({}, 2.5, b"2.5"),
    ({"encoding": "plain", "scale": 0.1}, 2.5, b"25"),
    ({"encoding": "int16", "scale": 0.1}, 2.5, b"\0\x19"),
    (
        {"write": {"topic": "w", "template": '{"{point}": {value}, "{x}": "{device}"}'}},
        1,
        b'{"p": 1, "{x}": "oven"}',
    ),
    (
        {"type": "string", "write": {"topic": "w", "template": "{value} {text}"}},
        'a"{value}',
        b'"a\\"{value}" a"{value}',
    ),
    ({"type": "boolean", "true_as": "ON", "false_as": "OFF", "encoding": "plain"}, True, b"ON"),
    ({"type": "enumeration", "labels": {1: "run"}}, "run", b"1"),
    ({"type": "object"}, {"a": [1]}, b'{"a":[1]}'),
]


@pytest.mark.parametrize(("fields", "value", "payload"), WRITES)
def test_what_a_write_publishes(fields: dict[str, Any], value: Any, payload: bytes) -> None:
    point = {"access": "wo", "write": {"topic": "w"}} | fields
    connection = {"transport": "tcp", "host": "mqtt.bench.example"}
    device = MqttDevice.model_validate(
        {"protocol": "mqtt", "connection": connection, "points": {"p": point}}
    ).named("oven")
    made = publication_of(device, device.points["p"], value)
    assert (made.topic, made.payload, made.qos, made.retain) == ("w", payload, 1, False)


def test_what_cannot_be_held_is_refused() -> None:
    point = {"access": "wo", "encoding": "uint8", "write": {"topic": "w"}}
    connection = {"transport": "tcp", "host": "mqtt.bench.example"}
    device = MqttDevice.model_validate({"protocol": "mqtt", "connection": connection, "points": {"p": point}})
    with pytest.raises(Refused, match="cannot be written as uint8"):
        publication_of(device, device.points["p"], 256)
