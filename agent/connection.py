"""From settings to the options of an AMQP client."""

import os
import socket

from agent.settings import Settings
from protocols.amqp.options import Options, TlsOptions


def client_options(settings: Settings, role: str) -> Options:
    """How to reach the broker; `role` (agent, cli) begins the container id.

    Raises:
        OSError: a file with credentials cannot be read.
        ValueError: the settings cannot work together; one sentence says why.
    """
    username, password = settings.credentials()
    return Options(
        url=settings.broker,
        container_id=f"hilgate-{role}-{settings.bench}-{socket.gethostname()}-{os.getpid()}",
        flavour=settings.flavour,
        queue_prefix=settings.queue_prefix,
        topic_prefix=settings.topic_prefix,
        username=username,
        password=password,
        allow_plain=settings.allow_plain,
        tls=TlsOptions(settings.tls_ca, settings.tls_cert, settings.tls_key, settings.tls_verify),
    )
