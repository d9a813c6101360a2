"""Instruments that speak lines of text, such as SCPI (IEEE 488.2): over serial ports, TCP and RFC 2217.

Cheap to import: what a device needs is imported when one is made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from protocols.base import DeviceConfig, DeviceProtocol, Driver, PlannedRequest, Shared


class _Text:
    name = "text"
    methods: Mapping[str, str] = {
        "query": "Sends a command and gives its answer: command; block: true for a binary block. Writes.",
        "send": "Sends a command that has no answer: command; then asks for errors. Writes.",
        "identify": "Asks the instrument what it is: by default *IDN?.",
        "status": "How the line is open, what the instrument is, and answers that were not taken, by reason.",
    }
    writing: Collection[str] = frozenset({"query", "send"})

    def config(self) -> type[DeviceConfig]:
        from protocols.text.config import TextDevice

        return TextDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        from protocols.text.plan import describe

        return describe(device)

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        from protocols.text.plan import conflicts

        return conflicts(devices)

    def driver(self, device: Any, shared: Shared) -> Driver:
        from protocols.text.driver import TextDriver

        return TextDriver(device, shared)


PROTOCOL: DeviceProtocol = _Text()
