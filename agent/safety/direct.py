"""Makes a bench safe without an agent: connects to the devices by itself, drives, lets go."""

import asyncio
from collections.abc import Sequence

import structlog

from agent.plugins import protocols
from agent.profile import Profile
from agent.safety.driving import PointOutcome, make_safe, safe_values, share, unreached
from protocols.base import DeviceConfig, Driver, DriverError, Shared

CONNECT_FIRST_S = 0.5
"""How long the devices that answer at once wait for the others, so that the profile's order is kept."""
_RETRY_S = 0.2
_CLOSE_GRACE_S = 0.5


async def drive_directly(profile: Profile, within: float) -> Sequence[PointOutcome]:
    """Drives the safe values of all devices in the profile's order, in about `within` seconds.

    All are connected to at once; those that do not answer come last.
    """
    shared: Shared = {}
    links = [_Link(config, shared) for config in profile.devices.values() if safe_values(config)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(link.open(), name=f"connect {link.config.name}") for link in links]
            outcomes = await _drive(links, tasks, within) if tasks else []
            for task in tasks:
                task.cancel()
    finally:
        await asyncio.gather(*(link.close() for link in links))
    return outcomes


async def _drive(
    links: Sequence["_Link"], opening: Sequence[asyncio.Task[None]], within: float
) -> Sequence[PointOutcome]:
    now = asyncio.get_running_loop().time
    deadline = now() + within
    await asyncio.wait(opening, timeout=min(CONNECT_FIRST_S, within / 4))
    outcomes: list[PointOutcome] = []
    for place, link in enumerate(sorted(links, key=lambda link: not link.is_open.is_set())):
        outcomes += await link.make_safe(share(deadline - now(), len(links) - place))
    return outcomes


class _Link:
    def __init__(self, config: DeviceConfig, shared: Shared) -> None:
        self.config = config
        self.is_open = asyncio.Event()
        self._shared = shared
        self._driver: Driver | None = None
        self._reason = "it does not answer"

    async def open(self) -> None:
        """Connects, and tries again: a device may take a moment to forget the agent that was killed."""
        try:
            self._driver = protocols()[self.config.protocol].driver(self.config, self._shared)
            while not self.is_open.is_set():
                try:
                    await self._driver.connect()
                    self.is_open.set()
                except DriverError as error:
                    self._reason = str(error)
                    await asyncio.sleep(_RETRY_S)
        except Exception as error:  # noqa: BLE001  # one device's, whatever it is: the others go on
            self._reason = f"internal error in the driver: {type(error).__name__}: {error}"

    async def make_safe(self, limit: float) -> Sequence[PointOutcome]:
        """Drives the device as soon as it is open; all in at most `limit` seconds."""
        now = asyncio.get_running_loop().time
        end = now() + limit
        try:
            async with asyncio.timeout(limit):
                await self.is_open.wait()
        except TimeoutError:
            return unreached(self.config, self._reason)
        assert self._driver is not None  # it is open
        return await make_safe(self._driver, self.config, max(0.0, end - now()))

    async def close(self) -> None:
        """Lets the device go."""
        if self._driver is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_GRACE_S):
                await self._driver.close()
        except Exception as error:  # noqa: BLE001  # what was driven is driven
            reason = f"{type(error).__name__}: {error}"
            log = structlog.get_logger("safety")
            log.warning("driver did not close", device=self.config.name, reason=reason)
