"""MQTT 3.1.1 and 5.0: devices behind a broker, by topics of their own, Sparkplug B or KubeEdge's twins.

Cheap to import: what a device needs is imported when one is made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from protocols.base import DeviceConfig, DeviceProtocol, Driver, PlannedRequest, Shared


class _Mqtt:
    name = "mqtt"
    methods: Mapping[str, str] = {
        "publish": "Publishes: topic, payload (text, or JSON), qos (default 0), retain. Writes.",
        "request": "Publishes and waits for the answer: topic, payload, response_topic, timeout_s. Writes.",
        "rebirth": "Sparkplug B: asks the edge node to say anew what it is and has. Writes.",
        "status": "What the broker granted, and the messages that were not taken, by reason.",
    }
    writing: Collection[str] = frozenset({"publish", "request", "rebirth"})

    def config(self) -> type[DeviceConfig]:
        from protocols.mqtt.config import MqttDevice

        return MqttDevice

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        from protocols.mqtt.plan import describe

        return describe(device)

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        from protocols.mqtt.plan import conflicts

        return conflicts(devices)

    def driver(self, device: Any, shared: Shared) -> Driver:
        from protocols.mqtt.driver import MqttDriver

        return MqttDriver(device)


PROTOCOL: DeviceProtocol = _Mqtt()
