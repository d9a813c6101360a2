"""The check `secrets`: files of keys and passwords: there, and readable by nobody else."""

import asyncio
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.doctor.case import Case, Look
from agent.doctor.files import hidden_from_service, named_files
from agent.doctor.finding import Finding, failed, not_checked, ok, warning
from agent.doctor.host import SERVICE_USER


class Facts(msgspec.Struct, frozen=True):
    """One file that should be a secret."""

    where: str
    path: Path
    mode: int = 0
    owner: int = 0
    empty: bool = False
    error: str = ""
    hidden: bool = False
    """From the service, though not from who looks."""


def judge(facts: Facts) -> Finding:
    """What is to be said of it."""
    subject = f"{facts.where} ({facts.path})"
    if facts.error:
        return failed(subject, f"it cannot be read: {facts.error}", "let the agent's user read it")
    if facts.empty:
        return failed(subject, "it is empty", "its first line should be the secret")
    if facts.hidden:
        file = shlex.quote(str(facts.path))
        found = f"the service's user {SERVICE_USER} may not read it, or not pass a folder on the way"
        return failed(subject, found, f"chgrp {SERVICE_USER} {file} && chmod 640 {file}")
    shown = f"mode {stat.S_IMODE(facts.mode):04o}"
    if facts.mode & stat.S_IRWXO:
        todo = f"chmod o= {shlex.quote(str(facts.path))}"
        return warning(subject, f"every user of this host can read or write it ({shown})", todo)
    return ok(subject, f"not for everybody ({shown})")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at all files."""

    async def look() -> list[Finding]:
        return await asyncio.to_thread(_findings, case)

    return {"": look}


def _findings(case: Case) -> list[Finding]:
    secrets = {file.path: file.where for file in named_files(case) if file.role in ("key", "secret")}
    # A certificate without a key of its own stands in one file with it.
    secrets |= {file.path: file.where for file in named_files(case) if file.key == file.path}
    if not secrets:
        return [not_checked("", "neither settings nor profile name a key or a password")]
    return [judge(_gather(where, path)) for path, where in secrets.items()]


def _gather(where: str, path: Path) -> Facts:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
        status = path.stat()
    except OSError as error:
        return Facts(where, path, error=error.strerror or str(error))
    return Facts(where, path, status.st_mode, status.st_uid, empty, hidden=hidden_from_service(path))
