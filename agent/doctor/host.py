"""What several checks ask the host: whether it is a container, and what a command says."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

_ADMIN_PATH = "/usr/sbin:/sbin"


def container(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """What kind of container this process is in; empty where in none that can be told."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "Kubernetes"
    for file, kind in (("run/.containerenv", "podman"), (".dockerenv", "docker")):
        if (root / file).exists():
            return kind
    try:
        return (root / "run/systemd/container").read_text().strip()
    except OSError:
        return environ.get("container", "")


async def output(*words: str) -> tuple[int, str]:
    """The exit status of a command and what it printed; -1 where there is no such command."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_PATH}"
    program = shutil.which(words[0], path=path)
    if program is None:
        return -1, ""
    process = await asyncio.create_subprocess_exec(
        program,
        *words[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C", "PATH": path},
    )
    try:
        printed, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None  # it has ended
    return process.returncode, printed.decode(errors="replace").strip()
