"""Real AMQP brokers that tests start, on loopback ports of their own, and surely stop again."""

from brokers.artemis import Artemis
from brokers.embedded import Embedded
from brokers.process import GET, Broker, Certificates, Users
from brokers.rabbitmq import RabbitMQ3, RabbitMQ4

__all__ = ["GET", "Artemis", "Broker", "Certificates", "Embedded", "RabbitMQ3", "RabbitMQ4", "Users"]
