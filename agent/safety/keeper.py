"""The safety of one bench: when its devices are made safe, and what may be written."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from agent.bench import Bench
from agent.device import Device
from agent.events import Events
from agent.store import Store
from protocols.base import Value

Cause = Literal["command", "lease-end", "dead-man", "stop", "crash", "broker-lost", "reconnected"]
"""Why devices are made safe (wire.md, `io.hilgate.safety.v1`)."""


class Safety:
    """Drives safe values, guards writes, and keeps what could not be made safe."""

    def __init__(
        self,
        bench: Bench,
        store: Store,
        events: Events,
        *,
        changed: Callable[[], None],
        connected: Callable[[], bool],
        broker_loss: float | None,
    ) -> None:
        raise NotImplementedError

    @property
    def faults(self) -> Mapping[str, str]:
        """What is wrong until it is put right or a person has looked: key to a sentence."""
        raise NotImplementedError

    def fault(self, key: str, text: str) -> None:
        """Notes a fault, also for later runs; the bench is in state `fault` while there is one."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forgets all faults: a person has looked (op `enable`)."""
        raise NotImplementedError

    async def drive(
        self,
        cause: Cause,
        devices: Collection[str] | None = None,
        reason: str = "",
        *,
        within: float = 10.0,
    ) -> Mapping[str, Any]:
        """Drives the safe values of some devices (None: all), within so many seconds.

        Returns:
            The body of the `safety` event, which was sent. Whatever went wrong stands in it.
        """
        raise NotImplementedError

    async def run(self) -> None:
        """Watches the broker link, and devices that could not be made safe, until cancelled."""
        raise NotImplementedError

    async def check(self, device: Device, values: Mapping[str, Value]) -> None:
        """Checks `max_rate` and interlocks from fresh readings; belongs right before the write.

        Raises:
            Refused: `out-of-range` (too fast) or `disabled` (an interlock does not hold).
            DriverError: the value that is to change could not be read; nothing was written.
        """
        raise NotImplementedError

    def wrote(self, device: Device, values: Mapping[str, Value]) -> None:
        """Takes what was written, also of a write that failed partway, for `max_rate`."""
        raise NotImplementedError
