"""podman and buildah of this machine, on the storage of this checkout: what the tests of the image share."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tests" / "tools"
BASE = ROOT / ".cache" / "peers" / "roots" / "container.tar"
IMAGE = "localhost/hilgate:test"
GET = "as root: apt-get install podman buildah runc netavark && tests/tools/get-peers container"
BUILD_S = 270
"""Less than after what time pytest ends a run; tests/tools/get-peers has built all but the last layers."""
STEP_S = 120
"""How long a test waits for one step of podman, or for what the container does, on a machine that is busy."""


def why_missing() -> str | None:
    """Why no image can be built and run here; None where it can."""
    if os.geteuid() != 0:
        return "only root can build and run it"
    for program in ("podman", "buildah", "runc"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None if BASE.exists() else f"{BASE.name} is missing"


def tool(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs podman or buildah to its end, with the settings in tests/tools/containers.sh."""
    program = f'. "{TOOLS}/containers.sh" && exec "$@"'
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def build() -> None:
    """Builds the image; what did not change since the last time comes from its layers."""
    labels = ("revision=0123abc", "created=2026-01-02T03:04:05Z")
    options = [word for label in labels for word in ("--label", f"org.opencontainers.image.{label}")]
    done = subprocess.run(
        [TOOLS / "build-image", IMAGE, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, "\n".join((done.stdout + done.stderr).splitlines()[-60:])
    # What builds of other files left; younger layers are what makes the next build quick.
    tool("podman", "image", "prune", "--force", "--filter", "until=24h")


@contextlib.contextmanager
def tree(image: str = IMAGE) -> Iterator[Path]:
    """An image's file tree, mounted during the body."""
    name = tool("buildah", "from", "--pull-never", image).stdout.strip()
    try:
        yield Path(tool("buildah", "mount", name).stdout.strip())
    finally:
        tool("buildah", "rm", name)


class Container:
    """One that runs: read-only, without capabilities, as a user nobody knows, in group 0, bounded."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def podman(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a podman command beside the event loop."""
        return await asyncio.to_thread(tool, "podman", *words, check=check)

    async def state(self) -> dict[str, Any]:
        """What podman knows of how it is."""
        found = json.loads((await self.podman("inspect", self.name)).stdout)[0]["State"]
        assert isinstance(found, dict)
        return found

    async def logs(self) -> str:
        """What it has said so far, both streams."""
        said = await self.podman("logs", self.name)
        return said.stdout + said.stderr

    async def python(self, program: str) -> str:
        """Runs a program inside, with the image's Python, and gives what it prints."""
        done = await self.podman("exec", self.name, "/opt/hilgate/bin/python", "-c", program)
        return done.stdout


@contextlib.asynccontextmanager
async def container(*words: str) -> AsyncIterator[Container]:
    """`podman run OPTIONS IMAGE ARGUMENTS` during the body; it is removed afterwards."""
    name = f"hilgate-test-{os.getpid()}-{os.urandom(3).hex()}"
    limits = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", "12345:0")
    bounds = ("--memory", "512m", "--pids-limit", "100", "--network", "host")
    one = Container(name)
    try:
        await one.podman("run", "--detach", "--name", name, *limits, *bounds, *words)
        yield one
    finally:
        await one.podman("rm", "--force", "--time", "0", name, check=False)
