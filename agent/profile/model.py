"""What a profile is, once it was read and found good."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from agent.profile.hooks import LeaseHooks
from protocols.base import DeviceConfig, Name

RESERVED = "bench"
"""No device is called so: `hil.<bench>.events.bench` are the bench's own events (wire.md section 1)."""


class Header(BaseModel):
    """What a profile says beside its devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: Name = Field(description="Name of this kind of bench; many benches may share it.")
    description: str = Field("", description="One line for people.")
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="What a control plane may select benches by."
    )
    hooks: LeaseHooks = Field(
        default_factory=LeaseHooks, description="What is done before a lease begins and after it ended."
    )


class Profile(Header):
    """A bench: its devices in the order in which they are made safe."""

    devices: Mapping[Name, DeviceConfig]
    digest: str = Field("", description="sha256:<hex> of all that it says, with everything filled in.")
    path: Path = Field(Path(), description="The file it was read from.")
