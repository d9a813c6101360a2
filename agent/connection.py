"""From settings to the options of an AMQP client."""

import os
import socket
from urllib.parse import urlsplit

from agent.settings import Settings
from protocols.amqp.options import Options
from protocols.tls import Files, TlsCredentials


def broker_credentials(settings: Settings) -> TlsCredentials:
    """The files of the broker's link."""
    secure = urlsplit(settings.broker).scheme == "amqps"
    secrets = {"username_file": settings.username_file, "password_file": settings.password_file}
    return TlsCredentials(
        _broker_files(settings) if secure else None,
        secrets={name: path for name, path in secrets.items() if path is not None},
    )


def http_credentials(settings: Settings) -> TlsCredentials:
    """The files of the HTTP server."""
    tls = Files(settings.http_client_ca, settings.http_cert, settings.http_key)
    return TlsCredentials(tls if settings.http_cert is not None else None, listens=True)


def _broker_files(settings: Settings) -> Files:
    return Files(settings.tls_ca, settings.tls_cert, settings.tls_key, settings.tls_verify)


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
        sasl=() if settings.sasl == "auto" else (settings.sasl,),
        allow_plain=settings.allow_plain,
        tls=_broker_files(settings),
    )
