"""The check `certificates`: each file of settings and profile: how long it lasts, and whose key is whose."""

import asyncio
import datetime
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.doctor.case import Case, Look
from agent.doctor.files import NamedFile, hidden_from_service, named_files
from agent.doctor.finding import Finding, failed, not_checked, ok, warning
from agent.doctor.host import SERVICE_USER
from protocols import tls
from protocols.tls import UnusableFile, Validity

SOON_DAYS = 30
_DAY_S = 86400.0
_DER = 0x30
_NEW = "have your authority issue a new one and put it in its place: a running agent takes it up by itself"


class Facts(msgspec.Struct, frozen=True):
    """What a file of certificates holds."""

    subject: str
    certificates: tuple[Validity, ...] = ()
    error: str = ""
    """Why it cannot be used, in words."""
    authority: bool = False
    """It holds those that others are checked against: one that lasts is enough."""


def judge(facts: Facts, now: float) -> Finding:
    """What is to be said of a file: of a chain what ends first counts, of authorities what ends last."""
    if facts.error:
        return failed(facts.subject, facts.error, "put a file there that the agent's user can read and use")
    pick = max if facts.authority else min
    return judge_validity(facts.subject, pick(facts.certificates, key=lambda one: one.not_after), now, _NEW)


def judge_validity(subject: str, one: Validity, now: float, todo: str) -> Finding:
    """What is to be said of how long a certificate is valid; times are UTC in seconds since 1970."""
    days = (one.not_after - now) / _DAY_S
    if one.not_before > now:
        return failed(
            subject, f"it is not valid before {_day(one.not_before)}", "is this host's clock right?"
        )
    if days < 0:
        return failed(subject, f"it has expired on {_day(one.not_after)}, {-days:.0f} days ago", todo)
    found = f"valid for {days:.0f} more days, until {_day(one.not_after)}"
    return warning(subject, found, todo) if days < SOON_DAYS else ok(subject, found)


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def parts(case: Case) -> Mapping[str, Look]:
    """One look at all files."""

    async def look() -> list[Finding]:
        return await asyncio.to_thread(_findings, case)

    return {"": look}


def _findings(case: Case) -> list[Finding]:
    files = [file for file in named_files(case) if file.role in ("certificate", "authority")]
    if not files:
        return [not_checked("", "neither settings nor profile name a certificate")]
    return [judge(_gather(file), time.time()) for file in files]


def _gather(file: NamedFile) -> Facts:
    subject = f"{file.where} ({file.path})"
    field = file.where.rpartition(".")[2]
    try:
        found = _certificates(file.path, field)
        now = time.time()
        if file.key is not None and all(one.not_before <= now <= one.not_after for one in found):
            _pair(file.path, file.key)
    except UnusableFile as error:
        return Facts(subject, error=str(error))
    if hidden_from_service(file.path):
        return Facts(subject, error=f"the service's user {SERVICE_USER} may not read it")
    return Facts(subject, found, authority=file.role == "authority")


def _certificates(path: Path, field: str) -> tuple[Validity, ...]:
    data = tls.read_file(path, field)
    if data[:1] != bytes([_DER]):
        return tuple(tls.certificates_in(path, field))
    try:
        return (tls.validity(data),)
    except ValueError as error:
        raise UnusableFile(f"{field}: {path} {error}") from error


def _pair(cert: Path, key: Path) -> None:
    """Certificate and key belong together.

    Raises:
        UnusableFile: they do not, or the key cannot be used.
    """
    if cert.read_bytes()[:1] != bytes([_DER]):  # OpenSSL takes pairs in PEM only
        tls.client_context(tls.Files(cert=cert, key=key))
