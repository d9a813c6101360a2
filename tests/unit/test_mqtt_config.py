"""What a profile may say of an MQTT device, and where each mistake is shown."""

from typing import Any

import pytest
from pydantic import ValidationError

from protocols.mqtt import PROTOCOL
from protocols.mqtt.config import MqttDevice

TCP = {"transport": "tcp", "host": "mqtt.bench.example"}
TLS = {"transport": "tls", "host": "mqtt.bench.example"}
POINT = {"topic": "oven/t"}
WRITE = {"topic": "oven/set"}


def device(points: dict[str, Any] | None = None, **fields: Any) -> MqttDevice:
    whole = {"protocol": "mqtt", "connection": TCP, "points": points or {"p": POINT}} | fields
    return MqttDevice.model_validate(whole)


def mistakes(points: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """Field to message."""
    with pytest.raises(ValidationError) as wrong:
        device(points, **fields)
    return {".".join(map(str, error["loc"])): error["msg"] for error in wrong.value.errors()}


def test_a_device_with_all_defaults() -> None:
    made = device()
    assert (made.connection.version, made.connection.port, made.qos) == ("5", 1883, 1)
    assert device(connection=TLS).connection.port == 8883
    assert made.points["p"].kind == "number"


@pytest.mark.parametrize(
    ("connection", "field", "text"),
    [
        (TLS | {"password_file": "f"}, "username", "a password needs its user name"),
        (TCP | {"username": "u", "password_file": "f"}, "password_file", "say allow_insecure: true"),
        (TCP | {"session_expiry": "1h"}, "client_id", "the broker knows a kept session by its client_id"),
        (TLS | {"key": "k"}, "key", "a key needs its cert"),
        (TLS | {"version": "3.1"}, "version", "Input should be '5' or '3.1.1'"),
    ],
)
def test_mistakes_of_a_connection(connection: dict[str, Any], field: str, text: str) -> None:
    (found,) = mistakes(connection=connection).items()
    assert found[0].endswith(field)
    assert text in found[1]


@pytest.mark.parametrize(
    ("point", "field", "text"),
    [
        ({}, "topic", "payload: topics needs a topic"),
        ({"topic": "a/#/b"}, "topic", "should be a topic filter"),
        ({"topic": "a+"}, "topic", "should be a topic filter"),
        ({"topic": ""}, "topic", "should be a topic filter"),
        ({"topic": "a", "path": "a..b"}, "path", "should be a path"),
        ({"topic": "a", "path": "a", "encoding": "plain"}, "path", "only JSON has paths"),
        ({"topic": "a", "wildcard": "x"}, "wildcard", "the topic has no + or #"),
        ({"topic": "a", "encoding": "uint8", "type": "string"}, "encoding", "is a number"),
        ({"topic": "a", "encoding": "hex"}, "encoding", "is bytes as text"),
        ({"topic": "a", "encoding": "plain", "type": "object"}, "encoding", "only JSON holds an object"),
        ({"topic": "a", "offset_bytes": 1}, "offset_bytes", "only binary numbers have a place"),
        ({"topic": "a", "access": "rw"}, "write", "say how it is written"),
        ({"topic": "a", "write": WRITE}, "write", "means nothing here"),
        ({"topic": "a", "access": "rw", "write": {"topic": "a/+"}}, "write.topic", "should be a topic name"),
        ({"topic": "a", "metric": "m"}, "metric", "means nothing with payload: topics"),
    ],
)
def test_mistakes_of_a_point(point: dict[str, Any], field: str, text: str) -> None:
    found = mistakes({"p": point})
    assert text in found[f"points.p.{field}"]


@pytest.mark.parametrize("field", ["group", "edge_node", "device", "host"])
def test_ids_of_sparkplug_are_one_level_of_a_topic(field: str) -> None:
    ids = {"group": "plant", "edge_node": "line-1"}
    for wrong in ("a/b", "+", "line#"):
        found = mistakes({"p": {"metric": "m"}}, payload="sparkplug", sparkplug=ids | {field: wrong})
        assert "one level of a topic" in found[f"sparkplug.{field}"]


def test_sections_and_payloads_go_together() -> None:
    lacking = mistakes({"p": {"metric": "m"}}, payload="sparkplug")
    assert lacking == {"sparkplug": "payload: sparkplug and the section sparkplug go together"}
    assert "kubeedge" in mistakes(kubeedge={"device": "d"})
    assert "presence" in mistakes(
        {"p": {"property": "m"}}, payload="kubeedge", kubeedge={"device": "d"}, presence={"topic": "t"}
    )


def test_what_may_change_the_device_needs_the_lease() -> None:
    assert set(PROTOCOL.writing) <= set(PROTOCOL.methods)
    assert "status" not in PROTOCOL.writing
