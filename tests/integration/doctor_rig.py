"""What tests of `hilgate doctor` share: its findings by check and subject."""

from collections.abc import Mapping
from typing import Any

from agent.doctor.case import Case
from agent.doctor.checks import CHECKS
from agent.doctor.examine import examine
from agent.doctor.finding import Finding
from agent.profile import Profile
from agent.settings import Settings

LIMIT_S = 20.0


async def findings(
    check: str, *, profile: Profile | None = None, limit: float = LIMIT_S, **settings: Any
) -> Mapping[str, Finding]:
    """What one check finds, by subject; settings only where there is a broker."""
    chosen = Settings.model_validate({"bench": "rig-07", **settings}) if "broker" in settings else None
    found: dict[str, Finding] = {}

    def say(name: str, finding: Finding) -> None:
        assert name == check
        assert finding.subject not in found, "one row a subject"
        found[finding.subject] = finding

    await examine(Case(profile, chosen, limit), [one for one in CHECKS if one.name == check], say)
    return found


def verdicts(found: Mapping[str, Finding]) -> dict[str, str]:
    """The verdict on each subject."""
    return {subject: finding.verdict.value for subject, finding in found.items()}
