"""OPC UA (OPC 10000, IEC 62541): a client over opc.tcp, with subscriptions, methods, alarms and history.

Cheap to import: what a device needs is imported when one is made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from protocols.base import DeviceConfig, DeviceProtocol, Driver, PlannedRequest, Shared


class _Opcua:
    name = "opcua"
    methods: Mapping[str, str] = {
        "call": "Calls a method: name (of the profile's methods) or object and method; args. Writes.",
        "read": "Any nodes as they are: nodes; attribute (default Value), index_range.",
        "history": "Past values of a point: point, start, end, limit (default 1000).",
        "acknowledge": "Acknowledges an alarm: event_id, condition, comment. Writes.",
        "confirm": "Confirms an alarm: event_id, condition, comment. Writes.",
        "refresh": "Has the server send all alarms that are active or not yet acknowledged again.",
        "status": "Session, subscriptions and what the server revised of them; its capabilities and time.",
    }
    writing: Collection[str] = frozenset({"call", "acknowledge", "confirm"})

    def config(self) -> type[DeviceConfig]:
        from protocols.opcua.config import OpcuaDevice

        return OpcuaDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        from protocols.opcua.plan import describe

        return describe(device)

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def driver(self, device: Any, shared: Shared) -> Driver:
        from protocols.opcua.driver import OpcuaDriver

        return OpcuaDriver(device)


PROTOCOL: DeviceProtocol = _Opcua()
