"""Runs checks beside each other: each part has its own time, and its own end if it fails."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from agent.doctor.case import Case, Check, Look
from agent.doctor.finding import Finding, failed
from protocols.units import format_duration

Say = Callable[[str, Finding], None]
"""Takes a finding of a check, by its name, as soon as it is there."""


async def examine(case: Case, checks: Iterable[Check], say: Say) -> None:
    """Runs the checks and says what they find; nothing that goes wrong in one ends another."""
    try:
        async with asyncio.TaskGroup() as group:
            for check in checks:
                for subject, look in _parts(check, case).items():
                    work = _look(check, subject, look, case.limit * check.turns, say)
                    group.create_task(work, name=f"check {check.name} {subject}")
    finally:
        await case.close()


def _parts(check: Check, case: Case) -> Mapping[str, Look]:
    try:
        return check.parts(case)
    except Exception as error:  # noqa: BLE001  # a fault of one check is that check's row

        async def broken(error: Exception = error) -> list[Finding]:
            raise error

        return {"": broken}


async def _look(check: Check, subject: str, look: Look, limit: float, say: Say) -> None:
    try:
        async with asyncio.timeout(limit) as time:
            findings = await look()
    except TimeoutError as error:
        text = f"it took longer than {format_duration(limit)}" if time.expired() else f"timeout: {error}"
        findings = [failed(subject, text, "give it more time with --timeout")]
    except Exception as error:  # noqa: BLE001  # a fault of one check is that check's row
        findings = [failed(subject, f"the check itself failed: {type(error).__name__}: {error}")]
    for finding in findings:
        say(check.name, finding)
