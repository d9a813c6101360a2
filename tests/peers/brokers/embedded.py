"""hilgate's embedded broker in a process of its own, so that foreign clients can try it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from brokers.process import Broker

_COMMAND = Path(sys.executable).with_name("hilgate")


class Embedded(Broker):
    """`hilgate broker`: in memory, without users and TLS."""

    name = "embedded"
    flavour = "embedded"

    @classmethod
    def why_missing(cls) -> str | None:
        return None if _COMMAND.exists() else f"{_COMMAND} is not installed"

    def command(self) -> tuple[Sequence[str | Path], dict[str, str]]:
        return [_COMMAND, "broker", "--listen", f"127.0.0.1:{self.port}"], {}
