"""Simulated instruments that speak lines, made of the points of the profile."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sim.base import Simulator


class _TextSimulator:
    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        from sim.text.devices import simulated

        return simulated(devices)


SIMULATOR: Simulator = _TextSimulator()
