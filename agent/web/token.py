"""The token that HTTP is asked with, and the hosts that need none. Imports nothing of the extra `web`."""

import ipaddress
from pathlib import Path

from protocols.tls import read_secret

LEAST_TOKEN = 16
"""Characters that a token has at least: a shorter one could be guessed."""


def read_token(path: Path) -> str:
    """The first line of a token file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no token that could be trusted.
    """
    token = read_secret(path, "http_token_file").strip()
    if len(token) < LEAST_TOKEN:
        raise ValueError(f"{path} should hold a token of {LEAST_TOKEN} characters or more in its first line")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address, as it is written."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
