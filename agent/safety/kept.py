"""What an agent leaves in its store of the profile that it runs with, for when it is gone.

The files may say something else by then, or be broken: the outputs that the agent drove are to be made safe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.plugins import PluginError, protocols
from agent.profile import Profile
from agent.safety.driving import safe_values
from agent.store import Store
from protocols.base import DeviceConfig

_NAME = "profile"
"""The name under which the store remembers it."""


class _Written(msgspec.Struct):
    digest: str
    sil: bool
    folder: str
    devices: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Kept:
    """What an agent ran with: devices that have safe values, in the profile's order."""

    digest: str
    sil: bool
    devices: Mapping[str, DeviceConfig]


def keep(store: Store, profile: Profile, *, sil: bool) -> None:
    """Leaves what makes the bench safe. Secrets stay in their files: a profile only names these."""
    devices = {
        name: device.model_dump(mode="json", exclude_unset=True, exclude={"sim"})
        for name, device in profile.devices.items()
        if safe_values(device)
    }
    folder = str(profile.path.absolute().parent)
    written = {"digest": profile.digest, "sil": sil, "folder": folder, "devices": devices}
    store.remember(_NAME, json.dumps(written).encode())


def forget(store: Store) -> None:
    """Leaves nothing: every output is known to be safe."""
    store.remember(_NAME, None)


def kept(store: Store) -> Kept | None:
    """What the last agent left; None where it left nothing, or left the bench safe.

    Raises:
        ValueError: it cannot be read, for instance since another version of hilgate has written it.
    """
    data = store.recall(_NAME)
    if data is None:
        return None
    try:
        written = msgspec.json.decode(data, type=_Written)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    folder = Path(written.folder)
    devices = {name: _device(name, content, folder) for name, content in written.devices.items()}
    return Kept(written.digest, written.sil, devices)


def _device(name: str, content: Mapping[str, Any], folder: Path) -> DeviceConfig:
    try:
        model = protocols()[content["protocol"]].config()
    except (KeyError, TypeError, PluginError, ImportError) as error:
        raise ValueError(f"{name}: {error}") from error
    return model.model_validate(content, context={"folder": folder}).named(name, folder)
