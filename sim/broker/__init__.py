"""An embedded AMQP 1.0 broker for one machine: demos, SIL runs and tests."""

from sim.broker.router import Limits
from sim.broker.server import Broker

__all__ = ["Broker", "Limits"]
