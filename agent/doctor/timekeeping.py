"""The check `clock`: whether a time service keeps the clock, for every sample bears its time."""

from collections.abc import Mapping

from agent import clock
from agent.clock import ClockStatus
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, ok, warning

_FAR_S = 0.1
"""An offset at which times of several benches do not go together any more."""


def judge(status: ClockStatus, container: str) -> Finding:
    """What is to be said of the clock."""
    offset = f"{status.offset_s * 1e3:.3f} ms off at its last correction"
    if not status.synchronised:
        where = "on the host: " if container else ""
        todo = f"{where}apt-get install chrony, or timedatectl set-ntp true"
        return warning("", "no time service keeps the clock: samples bear wrong times", todo)
    if abs(status.offset_s) > _FAR_S:
        return warning("", f"synchronised, but {offset}", "chronyc tracking (is its server near?)")
    return ok("", f"synchronised, {offset}")


def parts(case: Case) -> Mapping[str, Look]:
    """One look at the kernel's clock."""

    async def look() -> list[Finding]:
        return [judge(clock.clock_status(), case.container)]

    return {"": look}
