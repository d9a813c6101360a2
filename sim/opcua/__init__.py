"""Simulated OPC UA servers, made of the points of the profile."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sim.base import Simulator


class _OpcuaSimulator:
    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        from sim.opcua.devices import simulated

        return simulated(devices)


SIMULATOR: Simulator = _OpcuaSimulator()
