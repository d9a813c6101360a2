"""The bench: its devices, real or simulated, each under its own supervisor."""

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Iterable, Mapping

from agent.device import Device
from agent.events import Events, Mode
from agent.latest import LatestValues
from agent.plugins import protocols, simulators
from agent.profile import Profile
from protocols.base import DeviceConfig, Shared

RENEW_S = 10.0
"""How long renewing links waits for commands under way, then for links to close, and for new ones."""


class Bench:
    """All devices of one profile. In `sil` mode each is a simulated one on loopback."""

    def __init__(self, profile: Profile, events: Events, *, sil: bool) -> None:
        self.profile = profile
        self.mode: Mode = "sil" if sil else "hil"
        self.latest = LatestValues()
        self.devices: dict[str, Device] = {}
        self.changed = asyncio.Event()
        """Set when some device's state changed; whoever waits clears it."""
        self.made = asyncio.Event()
        """Set once `devices` is complete."""
        self.tried = asyncio.Event()
        """Set once the first attempt to reach each device has ended."""
        self._events = events
        self._shared: Shared = {}

    async def run(self) -> None:
        """Supervises every device until cancelled; leaves no socket, task or simulated device behind.

        Raises:
            OSError: a simulated device found no port.
        """
        async with contextlib.AsyncExitStack() as stack:
            configs = await self._simulated(stack) if self.mode == "sil" else self.profile.devices
            for name, config in configs.items():
                driver = protocols()[config.protocol].driver(config, self._shared)
                self.devices[name] = Device(
                    config, driver, self.mode, self._events, self.latest, self._note_change
                )
            self.made.set()
            self._note_change()
            async with asyncio.TaskGroup() as group:
                for name, device in self.devices.items():
                    group.create_task(device.supervise(), name=f"device {name}")
                await asyncio.get_running_loop().create_future()

    async def renew(self, names: Collection[str]) -> None:
        """Makes the links of devices anew at once, between two commands.

        All are closed before the first is opened: devices on one line would keep it open for each other.
        """
        devices = [self.devices[name] for name in names]
        async with contextlib.AsyncExitStack() as turns:
            try:
                async with asyncio.timeout(RENEW_S):
                    for device in devices:
                        await turns.enter_async_context(device.turns.paused())
            except TimeoutError:
                pass  # a command that takes so long is cut off with its link
            await _each(device.let_go() for device in devices)
            await _each(device.take_up() for device in devices)

    def _note_change(self) -> None:
        self.changed.set()
        if self.made.is_set() and all(device.tried for device in self.devices.values()):
            self.tried.set()

    async def _simulated(self, stack: contextlib.AsyncExitStack) -> Mapping[str, DeviceConfig]:
        configs: dict[str, DeviceConfig] = {}
        for protocol in sorted({config.protocol for config in self.profile.devices.values()}):
            mine = {
                name: config for name, config in self.profile.devices.items() if config.protocol == protocol
            }
            configs |= await stack.enter_async_context(simulators()[protocol].start(mine))
        # The profile's order is the order of safe values and of every table.
        return {name: configs[name] for name in self.profile.devices}


async def _each(steps: Iterable[Coroutine[object, object, None]]) -> None:
    """Takes steps at once; what is not done in time goes on by itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RENEW_S), asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
