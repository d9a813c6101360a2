"""What an agent leaves in its store's directory while its outputs may be on.

By it they can be made safe as the agent would have, whatever has become of profile and settings since.

An agent of real devices leaves it before it touches one. Who has made all of them safe takes it away.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from agent.profile import Profile
from agent.profile.kept import keep, restore
from agent.settings import Settings

_SETTINGS = {
    "bench",
    "cloudevents",
    "outbox_size",
    "outbox_age",
    "synchronous",
    "audit_age",
    "http",
    "http_cert",
}
"""What `hilgate safe-state` asks of settings; nothing of it is secret, `http_cert` is a path."""


class Left:
    """What an agent left.

    Raises (on construction):
        ValueError: it is not what any agent leaves.
    """

    def __init__(self, content: Any) -> None:
        try:
            self.digest = str(content["profile"]["digest"])
            self._profile: Mapping[str, Any] = content["profile"]
            self._settings: Mapping[str, Any] = dict(content["settings"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def profile(self) -> Profile:
        """The profile that it ran with.

        Raises:
            ValueError: it is damaged, or of a version that understood it differently.
        """
        try:
            return restore(self._profile)
        except Exception as error:  # whatever damage makes happen; its text might repeat what is inside
            raise ValueError(f"it is damaged or of another version ({type(error).__name__})") from error

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """The settings that it ran with, as far as they matter; `given` wins.

        Raises:
            ValueError: they are damaged, or of a version that had others.
        """
        stated = {name: value for name, value in given.items() if value is not None}
        return Settings.model_validate({**self._settings, **stated})


def leave(directory: Path | None, profile: Profile, settings: Settings) -> None:
    """Leaves it, on disk when this returns. A disk that fails keeps no agent from starting: it is logged."""
    if directory is None:
        return
    try:
        if settings.sil:
            forget(directory)
        else:
            kept = settings.model_dump(mode="json", include=_SETTINGS)
            _write(_path(directory), json.dumps({"settings": kept, "profile": keep(profile)}))
    except (OSError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        structlog.get_logger("safety").error("the profile cannot be kept for the safe state", reason=reason)
        with contextlib.suppress(OSError):
            forget(directory)  # an older one would be taken for this agent's


def find(directory: Path | None) -> Left | None:
    """What an agent left; None where it left nothing, or made everything safe.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    if directory is None:
        return None
    try:
        text = _path(directory).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Left(json.loads(text))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def forget(directory: Path | None) -> None:
    """Takes it away: everything is safe.

    Raises:
        OSError: the disk does not allow it.
    """
    if directory is not None:
        _path(directory).unlink(missing_ok=True)


def _path(directory: Path) -> Path:
    return directory / "safe-state.json"


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also over a power cut."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
