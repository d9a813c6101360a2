"""DNP3 (IEEE 1815): a master over TCP, TLS and serial lines.

Cheap to import: what a device needs is imported when one is made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from protocols.base import DeviceConfig, DeviceProtocol, Driver, PlannedRequest, Shared


class _Dnp3:
    name = "dnp3"
    methods: Mapping[str, str] = {
        "integrity": "Polls everything now: classes 1, 2, 3 and 0.",
        "class-poll": "Polls events now: classes (default [1, 2, 3]).",
        "read": "Objects as they are: group, variation (0: the outstation's own), start, stop (default all).",
        "status": "Indications of the last answer, when it came, and frames that were not taken, by reason.",
        "operate": "A control by index: code, count, on_ms, off_ms, clear; or value, output; mode. Writes.",
        "freeze": "Freezes counters: start and stop (default all), clear. Writes.",
        "assign-class": "Assigns points to a class: type, class (0 to 3), start, stop (default all). Writes.",
        "time-sync": "Sets the outstation's clock: procedure lan or non-lan. Writes.",
        "unsolicited": "Has classes reported unsolicited, or not: enable, classes. Writes.",
        "cold-restart": "Restarts the outstation; says after how many seconds it is back. Writes.",
        "warm-restart": "Restarts the outstation's DNP3 application; says after how many seconds. Writes.",
    }
    writing: Collection[str] = frozenset(
        {
            "operate",
            "freeze",
            "assign-class",
            "time-sync",
            "unsolicited",
            "cold-restart",
            "warm-restart",
        }
    )

    def config(self) -> type[DeviceConfig]:
        from protocols.dnp3.config import Dnp3Device

        return Dnp3Device

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        from protocols.dnp3.plan import describe

        return describe(device)

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        from protocols.dnp3.plan import conflicts

        return conflicts(devices)

    def driver(self, device: Any, shared: Shared) -> Driver:
        from protocols.dnp3.driver import Dnp3Driver

        return Dnp3Driver(device, shared)


PROTOCOL: DeviceProtocol = _Dnp3()
