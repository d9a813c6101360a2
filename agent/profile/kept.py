"""A profile as it was understood, for another process to read without the files that it came from.

Templates, includes and variables are filled in, and files that count for the digest are in it. Certificates,
keys and passwords are not: they stay files, which are named relative to the profile's folder.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.plugins import protocols
from agent.profile.load import put_together
from agent.profile.model import Header, Profile
from protocols.base import DeviceProtocol


def keep(profile: Profile) -> dict[str, Any]:
    """What `restore` makes the same profile of, for JSON."""
    return {
        "digest": profile.digest,
        "path": str(profile.path.absolute()),
        "header": profile.model_dump(mode="json", exclude_unset=True, include=set(Header.model_fields)),
        "devices": {
            name: device.model_dump(mode="json", exclude_unset=True, by_alias=True)
            for name, device in profile.devices.items()
        },
        "attached": {
            name: {file: base64.b64encode(data).decode() for file, data in device.attachments().items()}
            for name, device in profile.devices.items()
        },
    }


def restore(kept: Mapping[str, Any], installed: Mapping[str, DeviceProtocol] | None = None) -> Profile:
    """The profile that was kept; `installed` defaults to all protocols.

    Raises:
        ValueError: it is damaged, or was kept by a version that understood it differently.
        Exception: whatever else damage makes happen; no list of it would be complete.
    """
    known = protocols() if installed is None else installed
    path = Path(kept["path"])
    header = Header.model_validate(kept["header"])
    devices = {}
    for name, content in kept["devices"].items():
        attached = {file: base64.b64decode(data) for file, data in kept["attached"][name].items()}
        model = known[content["protocol"]].config()
        device = model.model_validate(content, context={"folder": path.parent, "attached": attached})
        devices[name] = device.named(name, path.parent)
    profile = put_together(header, devices, path)
    if profile.digest != kept["digest"]:
        raise ValueError("its digest is another")
    return profile
