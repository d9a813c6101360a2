"""CAN 2.0 and CAN FD: raw frames, and points by a signal database.

Cheap to import: what a device needs is imported when one is made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from protocols.base import DeviceConfig, DeviceProtocol, Driver, PlannedRequest, Shared


class _Can:
    name = "can"
    methods: Mapping[str, str] = {
        "send": "One frame: id, data (hex), optional extended, fd, brs, remote, dlc. Writes.",
        "periodic": "start (id, data or a list, period), update (name, data), stop (name) or list. Writes.",
        "request": "Sends a frame and awaits an answer: id, data, answer_id, answer_data, timeout. Writes.",
        "isotp": "Sends a message by ISO 15765-2 and awaits one: tx, rx (ids), data (hex). Writes.",
        "uds": "A diagnostic service (ISO 14229): tx, rx, service, and its fields. Writes.",
        "status": "State of the controller, error counters, load and loss.",
        "record": "start (optional format) or stop a recording of the bus.",
    }
    writing: Collection[str] = frozenset({"send", "periodic", "request", "isotp", "uds"})

    def config(self) -> type[DeviceConfig]:
        from protocols.can.config import CanDevice

        return CanDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        from protocols.can.plan import describe

        return describe(device)

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        from protocols.can.plan import conflicts

        return conflicts(devices)

    def driver(self, device: Any, shared: Shared) -> Driver:
        from protocols.can.driver import CanDriver

        return CanDriver(device)


PROTOCOL: DeviceProtocol = _Can()
