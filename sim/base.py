"""What a protocol's simulated devices look like from above.

Found by the entry point group `hilgate.simulators`, under the protocol's name.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Simulator(Protocol):
    """Makes real servers on loopback (or ptys, or vcan) that behave as the profile's devices."""

    def start(self, devices: Mapping[str, Any]) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        """Simulates devices of this protocol, those on one line together.

        Entering gives the same device configurations with `connection` pointing at the simulated
        ones; leaving closes every socket and task. Their `sim:` sections say how points behave.

        Raises (on entering):
            OSError: no port or pty could be had.
        """
