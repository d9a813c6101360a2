"""Fixtures of a diagnosed node on a UDP multicast bus: see uds_peer.py."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import isotp
import pytest

from protocols.can.config import Connection

PEER = Path(__file__).with_name("uds_peer.py")
GROUP = "239.74.163.78"


def wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is another process: on a busy machine it may stop in the middle of a message, for seconds."""
    made = isotp.TransportLayerLogic
    more = dict.fromkeys(("rx_flowcontrol_timeout", "rx_consecutive_frame_timeout"), 30_000)

    def make(params: dict[str, Any], **rest: Any) -> Any:
        return made(params=params | more, **rest)

    monkeypatch.setattr(isotp, "TransportLayerLogic", make)


@contextmanager
def node(*, fd: bool = False) -> Iterator[Connection]:
    """Runs the node; gives the connection to its bus."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, str(PEER), GROUP, str(port), "fd" if fd else "classical"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Connection(
                interface="udp_multicast", channel=GROUP, fd=fd, options={"port": port, "hop_limit": 0}
            )
        finally:
            process.kill()
