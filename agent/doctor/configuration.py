"""The checks `profile` and `settings`: whether they are valid, and every mistake with its place."""

from collections.abc import Iterator, Mapping, Sequence

from agent.doctor import issuer
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, not_checked, ok
from agent.problems import Place, Problem


def mistakes(problems: Sequence[Problem]) -> Iterator[Finding]:
    """A row for each mistake, at its place."""
    for problem in problems:
        place = str(Place(problem.file, problem.line))
        found = ": ".join(part for part in (problem.field, problem.message) if part)
        yield failed(place, found, problem.hint or "mend it there")


def judge_profile(case: Case) -> Iterator[Finding]:
    """What is to be said of the profile."""
    if case.profile is not None:
        enabled = sum(device.enabled for device in case.profile.devices.values())
        count = len(case.profile.devices)
        found = f"{case.profile.profile}: {count} devices, {enabled} of them enabled"
        yield ok(str(case.profile.path), found)
    elif case.profile_problems:
        yield from mistakes(case.profile_problems)
    else:
        yield not_checked("", "no profile was given", "hilgate doctor PROFILE")


def judge_settings(case: Case) -> Iterator[Finding]:
    """What is to be said of the settings."""
    if case.settings is not None:
        yield ok("", f"bench {case.settings.bench}, broker {case.settings.broker}")
    elif case.settings_problems:
        yield from mistakes(case.settings_problems)
    else:
        yield not_checked("", "no settings were given", "hilgate doctor PROFILE --settings FILE")


def profile(case: Case) -> Mapping[str, Look]:
    """One look at the profile."""

    async def look() -> list[Finding]:
        return list(judge_profile(case))

    return {"": look}


def settings(case: Case) -> Mapping[str, Look]:
    """One look at the settings, and one at the keys of tokens that they name."""

    async def look() -> list[Finding]:
        return list(judge_settings(case))

    return {"": look, **issuer.parts(case)}
