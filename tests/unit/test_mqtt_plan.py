"""Which subscriptions are made, and which points a topic feeds."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.mqtt import PROTOCOL
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.plan import captured, covers, feeds, matches, overlapping, subscriptions_of

TCP = {"transport": "tcp", "host": "mqtt.bench.example"}


def device(points: dict[str, Any], **fields: Any) -> MqttDevice:
    whole = {"protocol": "mqtt", "connection": TCP, "points": points} | fields
    return MqttDevice.model_validate(whole).named("oven")


@pytest.mark.parametrize(
    ("topic_filter", "topic", "found"),
    [
        ("a/b", "a/b", ""),
        ("a/b", "a/c", None),
        ("a/+", "a/b", "b"),
        ("a/+", "a", None),
        ("a/+", "a/", ""),
        ("+/+", "/x", "/x"),
        ("a/#", "a", ""),
        ("a/#", "a/b/c", "b/c"),
        ("+/x/#", "1/x/2/3", "1/2/3"),
        ("#", "a/b", "a/b"),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("$SYS/#", "$SYS/x", "x"),
    ],
)
def test_what_wildcards_stand_for(topic_filter: str, topic: str, found: str | None) -> None:
    assert captured(topic_filter, topic) == found


def test_shared_filters_match_as_the_plain_ones() -> None:
    assert matches("$share/agents/a/+", "a/b")
    assert not matches("$share/agents/a/+", "b/b")


LEVELS = st.lists(st.sampled_from(["a", "b", "", "+"]), min_size=1, max_size=3)
FILTERS = st.tuples(LEVELS, st.booleans()).map(lambda made: "/".join(made[0] + ["#"] * made[1]))
TOPICS = st.lists(st.sampled_from(["a", "b", "", "$c"]), min_size=1, max_size=4).map("/".join)


@given(FILTERS, FILTERS, TOPICS)
@settings(max_examples=300)
def test_covering_and_overlapping_hold_for_every_topic(one: str, other: str, topic: str) -> None:
    both = matches(one, topic) and matches(other, topic)
    if covers(one, other) and matches(other, topic):
        assert matches(one, topic)
    if one != other and both:
        assert overlapping([one, other])


def test_the_fewest_subscriptions_with_the_highest_qos() -> None:
    points = {
        "a": {"topic": "p/1/t"},
        "b": {"topic": "p/+/t", "qos": 0},
        "c": {"topic": "p/1/t", "qos": 2},
        "d": {"topic": "q/#", "qos": 0},
        "e": {"topic": "q", "qos": 0},
        "f": {"access": "wo", "write": {"topic": "w"}},
    }
    made = subscriptions_of(device(points, share="us", presence={"topic": "q/here"}))
    assert [(one.filter, one.qos) for one in made] == [("$share/us/p/+/t", 2), ("$share/us/q/#", 1)]


def test_the_plan_names_points_and_that_each_subscription_is_sent_once() -> None:
    points = {"a": {"topic": "p/+", "qos": 1}, "b": {"topic": "p/1"}}
    (request,) = PROTOCOL.plan(device(points))
    assert (request.what, request.points, request.period) == ("SUBSCRIBE p/+ QoS 1", ("a", "b"), None)


def test_payloads_with_topics_of_their_own_are_one_line() -> None:
    sparkplug = {"group": "g", "edge_node": "n", "device": "d"}
    (request,) = PROTOCOL.plan(device({"a": {"metric": "m"}}, payload="sparkplug", sparkplug=sparkplug))
    assert (request.what, request.points) == ("SUBSCRIBE to the sparkplug topics of g/n/d", ("a",))
    (request,) = PROTOCOL.plan(device({"a": {"property": "m"}}, payload="kubeedge", kubeedge={"device": "d"}))
    assert request.what == "SUBSCRIBE to the kubeedge topics of d"


def test_a_wildcard_chooses_among_topics() -> None:
    made = device({"a": {"topic": "p/+", "wildcard": "1"}, "w": {"access": "wo", "write": {"topic": "p/1"}}})
    assert feeds(made.points["a"], "p/1")
    assert not feeds(made.points["a"], "p/2")
    assert not feeds(made.points["w"], "p/1")


def test_one_client_id_at_one_broker_is_a_conflict() -> None:
    points = {"a": {"topic": "p"}}
    one, other = (device(points, connection=TCP | {"client_id": "me"}) for _ in range(2))
    elsewhere = device(points, connection=TCP | {"client_id": "me", "port": 1884})
    off = device(points, connection=TCP | {"client_id": "me"}, enabled=False)
    devices = {"one": one, "other": other, "elsewhere": elsewhere, "off": off, "free": device(points)}
    found = PROTOCOL.conflicts(devices)
    assert list(found) == ["other"]
    assert found["other"].startswith("one has client_id 'me' at mqtt.bench.example:1883 too")
