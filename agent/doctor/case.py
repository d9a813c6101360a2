"""What is examined: one bench, as far as its profile and settings say it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.doctor.finding import Finding
from agent.doctor.presence import Presence, look_for_agent
from agent.problems import Problem
from agent.profile import Profile
from agent.settings import Settings
from protocols.base import DeviceConfig

Look = Callable[[], Awaitable[Sequence[Finding]]]
"""Gathers the facts of one thing and judges them."""


@dataclass
class Case:
    """A bench to be examined. What is not there was not given, or is not valid: `problems` says which."""

    profile: Profile | None
    settings: Settings | None
    limit: float
    """Seconds that each thing may take."""
    profile_problems: Sequence[Problem] = ()
    settings_problems: Sequence[Problem] = ()
    container: str = ""
    """What kind of container this is; empty where it is none."""
    _presence: asyncio.Task[Presence] | None = field(default=None, repr=False)

    @property
    def devices(self) -> Mapping[str, DeviceConfig]:
        """The profile's enabled devices that are real."""
        if self.profile is None or self.simulated:
            return {}
        return {name: device for name, device in self.profile.devices.items() if device.enabled}

    @property
    def simulated(self) -> bool:
        """Whether the bench has no hardware."""
        return self.settings is not None and self.settings.sil

    @property
    def no_devices(self) -> str:
        """Why there are no devices to look at; empty where there are some."""
        if self.devices:
            return ""
        if self.simulated:
            return "every device is simulated (sil)"
        if self.profile is not None:
            return "every device is disabled in the profile"
        return "the profile is not valid" if self.profile_problems else "no profile was given"

    @property
    def no_settings(self) -> str:
        """Why there are no settings; empty where there are."""
        if self.settings is not None:
            return ""
        return "the settings are not valid" if self.settings_problems else "no settings were given"

    async def presence(self) -> Presence:
        """Whether an agent runs on this bench; looked for once, whoever asks first."""
        if self._presence is None:
            self._presence = asyncio.create_task(
                look_for_agent(self.settings, self.limit), name="look for a running agent"
            )
        return await asyncio.shield(self._presence)

    async def close(self) -> None:
        """Ends what is still looked for."""
        if self._presence is not None:
            self._presence.cancel()
            await asyncio.wait([self._presence])


@dataclass(frozen=True)
class Check:
    """One kind of thing that is looked at."""

    name: str
    about: str
    """One line for people."""
    parts: Callable[[Case], Mapping[str, Look]]
    """What it looks at in this case: subject to the look at it, each by itself and with its own time."""
    turns: float = 1.0
    """How many times the limit its parts may take: some wait for another's word first."""
