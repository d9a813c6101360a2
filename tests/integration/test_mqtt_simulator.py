"""Simulated MQTT devices against the driver: the same points on both sides."""

from typing import Any

import pytest
from mqtt_rig import device, driven, takes

from protocols.base import DeviceState
from sim.mqtt.devices import simulated

POINTS: dict[str, Any] = {
    "t": {"topic": "oven/state", "path": "m.t", "time_path": "time"},
    "on": {"topic": "oven/state", "path": "on", "type": "boolean", "true_as": "yes", "false_as": "no"},
    "low": {"topic": "oven/raw", "encoding": "int16-le", "scale": 0.1},
    "high": {"topic": "oven/raw", "encoding": "float32", "offset_bytes": 2},
    "probe": {"topic": "p/+/x/#", "wildcard": "1/2/3", "encoding": "plain"},
    "list": {"topic": "oven/list", "type": "array"},
    "set": {
        "topic": "oven/state",
        "path": "set",
        "access": "rw",
        "write": {
            "topic": "oven/do",
            "template": '{"{point}": {value}}',
            "answer": "oven/did",
            "answer_path": "r",
        },
    },
    "word": {
        "topic": "oven/word",
        "encoding": "plain",
        "type": "string",
        "access": "rw",
        "write": {"topic": "oven/w"},
    },
}
SIM: dict[str, Any] = {
    "t": 20.5, "on": True, "low": 7.5, "high": 0.25, "probe": 3, "list": [1, "a"], "set": 5, "word": "hello"
}  # fmt: skip
CONNECTIONS = [
    {},
    {"version": "3.1.1", "username": "me"},
    {"username": "me", "password_file": "none", "allow_insecure": True},
    {"transport": "tls"},
    {"transport": "tls", "cert": "none.pem", "username": "me", "password_file": "none"},
]


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_a_simulated_device_has_its_values_and_keeps_what_is_written(
    connection: dict[str, Any],
) -> None:
    made = device(1, POINTS, connection, presence={"topic": "oven/here"}, poll="100ms", sim=SIM)
    other = device(1, {"probe": POINTS["probe"]}, connection, sim={"probe": 3}).named("other")
    async with simulated({"oven": made, "other": other}) as devices:
        assert devices["oven"].connection.port == devices["other"].connection.port
        async with driven(devices["oven"]) as (driver, heard), driven(devices["other"]):
            await heard.until(lambda: all(takes(heard, name) for name in POINTS))
            assert {name: takes(heard, name)[0] for name in POINTS} == SIM
            await heard.until(lambda: heard.states[-1][0] is DeviceState.ONLINE)
            assert (await driver.write({"set": 9, "word": "bye"})).values == {"set": 9, "word": "bye"}
            await heard.until(lambda: takes(heard, "set")[-1] == 9 and takes(heard, "word")[-1] == "bye")
            assert (await driver.call("status", {}))["not_taken"] == {}
