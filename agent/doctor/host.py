"""What several checks ask the host: whether it is a container, and what a command says."""

import asyncio
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SERVICE_USER = "hilgate"
"""Who the service is: systemd/sysusers.d makes this user, and DynamicUser= takes it."""
_ADMIN_PATH = "/usr/sbin:/sbin"
_ASKING_S = 5.0


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


def service_may(path: Path | str, *, write: bool = False) -> bool:
    """Whether the service's user may read a file, and write it; asked by root, who may everything himself.

    True where it cannot be asked: by others, where there is no such user, or where the file system hangs.
    """
    if os.geteuid() != 0:
        return True
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return True
    where = os.path.abspath(path)
    words = ["test", "-r", where, *(["-a", "-w", where] if write else [])]
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    try:
        asked = subprocess.run(
            words, user=user.pw_uid, group=user.pw_gid, extra_groups=groups, timeout=_ASKING_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    return asked.returncode != 1


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
