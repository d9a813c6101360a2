"""What a check says: a verdict, what was found, and what to do about it."""

import enum

import msgspec


class Verdict(enum.StrEnum):
    """How one thing is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should look at it."""
    FAILED = "failed"
    NOT_CHECKED = "not-checked"
    """It could not or should not be looked at; what was found says why."""


class Finding(msgspec.Struct, frozen=True):
    """One row: `found` in words, `todo` the way out, with the exact command where there is one."""

    verdict: Verdict
    subject: str
    """What was looked at: an interface, a file, a device; empty where the check's name says it."""
    found: str
    todo: str = ""


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, subject, found)


def warning(subject: str, found: str, todo: str) -> Finding:
    """It works, but."""
    return Finding(Verdict.WARNING, subject, found, todo)


def failed(subject: str, found: str, todo: str = "") -> Finding:
    """It does not work."""
    return Finding(Verdict.FAILED, subject, found, todo)


def not_checked(subject: str, why: str, todo: str = "") -> Finding:
    """It was not looked at, and why."""
    return Finding(Verdict.NOT_CHECKED, subject, why, todo)


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1024**2:,.0f} MiB"
