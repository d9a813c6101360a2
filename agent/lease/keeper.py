"""The leases of a bench as they live: timers, hooks, events and what is kept on disk around the book."""

from collections.abc import Callable, Mapping
from typing import Any

from agent.bench import Bench
from agent.events import Events
from agent.lease.hooks import Hooks
from agent.safety import Safety
from agent.store import Store


class Leases:
    """Grants leases and ends them."""

    def __init__(
        self,
        bench: Bench,
        store: Store,
        events: Events,
        safety: Safety,
        hooks: Hooks,
        *,
        changed: Callable[[], None],
        required: bool,
        longest: float,
    ) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Ends leases when their time is over, and what an earlier run left unfinished; until cancelled."""
        raise NotImplementedError

    async def reserve(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Op reserve: `{"lease": token, "expires": time}`.

        Raises:
            Refused: wrong fields, or devices are leased to others.
            DriverError: a hook before the lease failed; nothing was leased.
        """
        raise NotImplementedError

    async def renew(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Op renew: `{"expires": time}`.

        Raises:
            Refused: no such lease, or it is over.
        """
        raise NotImplementedError

    async def release(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Op release: `{"expires": time}`, when it ended; returns once the devices are safe and cleaned up.

        Raises:
            Refused: no such lease, or it is over.
        """
        raise NotImplementedError

    def check(self, device: str, token: str | None) -> None:
        """Whether a command with this token may write to a device now.

        Raises:
            Refused: `not-leased`, `lease-held` or `lease-expired`.
        """
        raise NotImplementedError

    def shown(self) -> Mapping[str, Any] | None:
        """Availability's `lease`."""
        raise NotImplementedError

    def covers_all(self) -> bool:
        """Whether every enabled device is leased."""
        raise NotImplementedError

    def whose(self, token: str | None) -> tuple[str, str]:
        """The public id and the holder of a token's lease, for the audit; empty if it is none."""
        raise NotImplementedError
