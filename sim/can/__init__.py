"""Simulated CAN buses: vcan, vxcan, or python-can's virtual and UDP multicast buses, and a node on each."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sim.base import Simulator


class _CanSimulator:
    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        from sim.can.buses import simulated

        return simulated(devices)


SIMULATOR: Simulator = _CanSimulator()
