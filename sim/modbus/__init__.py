"""Simulated Modbus devices: real servers on loopback or ptys, made of the points of the profile."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sim.base import Simulator


class _ModbusSimulator:
    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        from sim.modbus.lines import simulated

        return simulated(devices)


SIMULATOR: Simulator = _ModbusSimulator()
