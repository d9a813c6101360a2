"""Simulated outstations: real servers on loopback or ptys, made of the points of the profile."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from sim.base import Simulator


class _Dnp3Simulator:
    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        from sim.dnp3.lines import simulated

        return simulated(devices)


SIMULATOR: Simulator = _Dnp3Simulator()
