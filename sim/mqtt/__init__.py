"""Simulated MQTT devices and the broker between, made of the points of the profile."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sim.base import Simulator


class _MqttSimulator:
    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        from sim.mqtt.devices import simulated

        return simulated(devices)


SIMULATOR: Simulator = _MqttSimulator()
