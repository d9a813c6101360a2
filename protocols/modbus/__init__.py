"""Modbus over TCP, TLS, serial RTU and RTU over TCP.

Cheap to import: what a device needs is imported when one is made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from protocols.base import DeviceConfig, DeviceProtocol, Driver, PlannedRequest, Shared


class _Modbus:
    name = "modbus"
    methods: Mapping[str, str] = {
        "identify": "Device identification (43/14): level basic, regular or extended.",
        "server-id": "What the device says it is (17).",
        "exception-status": "Eight device-specific flags (7).",
        "diagnostics": "Serial diagnostics (8): sub_function, data (hex).",
        "comm-event-counter": "Status and count of completed messages (11).",
        "read": "Registers or bits as they are: table, address, count.",
        "read-write": "Writes, then reads registers at once (23): address, count, write_address, registers.",
        "read-file": "File records (20): file, record, count.",
        "write-file": "File records (21): file, record, registers. Writes.",
        "read-fifo": "A first-in-first-out queue of registers (24): address.",
        "raw": "Any request: function, data (hex). Writes whatever the function writes.",
    }
    writing: Collection[str] = frozenset({"diagnostics", "read-write", "write-file", "raw"})

    def config(self) -> type[DeviceConfig]:
        from protocols.modbus.config import ModbusDevice

        return ModbusDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        from protocols.modbus.plan import describe

        return describe(device)

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        from protocols.modbus.line import conflicts

        return conflicts(devices)

    def driver(self, device: Any, shared: Shared) -> Driver:
        from protocols.modbus.driver import ModbusDriver

        return ModbusDriver(device, shared)


PROTOCOL: DeviceProtocol = _Modbus()
