"""An MQTT broker on loopback: what simulated devices and the agent meet at."""

from sim.mqtt.broker.broker import Broker

__all__ = ["Broker"]
