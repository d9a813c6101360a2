"""Certificates for simulated devices that speak TLS, made for the occasion."""

import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
"""Where simulated devices are."""


@contextmanager
def certificates(
    name: str, *, mutual: bool, calls: bool = False
) -> Iterator[tuple[ssl.SSLContext, Mapping[str, Any]]]:
    """The simulated side's context, and what changes in the profile's connection, whose files last as long.

    Args:
        name: The device's name, for errors.
        mutual: Whether the agent shows a certificate too.
        calls: Whether the device is the side that connects.

    Raises:
        OSError: the package `trustme` is missing.
    """
    try:
        import trustme
    except ImportError:
        raise OSError(f"{name}: simulated TLS needs trustme; install hilgate[sil]") from None
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if calls else ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("device.example" if calls else HOST).configure_cert(context)
    with tempfile.TemporaryDirectory(prefix="hilgate-") as folder:
        ca, chain = Path(folder, "ca.pem"), Path(folder, "agent.pem")
        authority.cert_pem.write_to_path(str(ca))
        update: dict[str, Any] = {"ca": str(ca), "server_name": None, "cert": None, "key": None}
        if mutual:
            agent = authority.issue_cert(HOST if calls else "agent.example")
            agent.private_key_and_cert_chain_pem.write_to_path(str(chain))
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
            update["cert"] = str(chain)
        yield context, update
