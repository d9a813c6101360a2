"""The profiles that come with hilgate, by name."""

from pathlib import Path

import bench_profiles
from agent.problems import ConfigErrors, Problem, did_you_mean


def shipped() -> dict[str, Path]:
    """Name to file of each shipped profile."""
    folder = Path(bench_profiles.__file__).parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_profile(profile: Path | str) -> Path:
    """The file of a profile that was given as a path or as the name of a shipped one; a file goes first.

    Raises:
        ConfigErrors: it is neither.
    """
    path = Path(profile)
    if path.suffix or path.parent != Path() or path.exists():
        return path
    known = shipped()
    if str(profile) in known:
        return known[str(profile)]
    hint = did_you_mean(str(profile), known)
    raise ConfigErrors([Problem(str(profile), 0, 0, "", "is neither a file nor a shipped profile", hint)])
