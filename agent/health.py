"""The image's health check: `python -m agent.health` asks the agent beside it whether it is alive.

It takes the address from HILGATE_HTTP, else from the `http` of a settings file, and asks /livez there. Where
there is none it says so and ends well: what does not serve HTTP cannot be asked. Importing and running it is
cheap, because it runs twice a minute for as long as the container does.
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/hilgate/settings.yaml")
"""Where the image's agent has its settings file."""
TIMEOUT_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}
"""Addresses that are listened on but not connected to."""


def settings(path: Path) -> Mapping[str, Any]:
    """The settings file's mapping; empty where there is no file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML mapping.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    import yaml  # slow to import, and not needed where the environment says all

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} is no mapping")
    return found


def ask(address: str, *, tls: bool, timeout: float = TIMEOUT_S) -> str:
    """What is wrong with the agent that listens at an address; '' while it is alive.

    Args:
        address: host:port, as in the setting `http`.
        tls: Whether it serves HTTPS.
        timeout: For the connection and again for the answer, in s.
    """
    host, _, port = address.rpartition(":")
    host = _EVERYWHERE.get(host, host)
    if tls:
        # Whose certificate it is does not matter: nothing is told to it, and only a status is asked.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, int(port), timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{address} answers with status {status}"


def main(environ: Mapping[str, str] = os.environ, path: Path = SETTINGS) -> int:
    """Asks, says one line, and gives the exit status: 0 alive (or not to be asked), 1 not."""
    try:
        written = settings(path)
        address = environ.get("HILGATE_HTTP") or written.get("http")
        tls = bool(environ.get("HILGATE_HTTP_CERT") or written.get("http_cert"))
        if address is None:
            print("no http address is set: there is nothing to ask")  # noqa: T201  # this is its output
            return 0
        wrong = ask(str(address), tls=tls)
    except (OSError, ValueError) as error:
        wrong = str(error)
    print(wrong or "alive")  # noqa: T201  # this is its output
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
