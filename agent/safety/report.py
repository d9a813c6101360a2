"""What came of one drive to the safe state: its event, the faults that follow, and its line in the audit."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from agent import clock
from agent.events import SAFETY, Events, Mode
from agent.safety.driving import PointOutcome
from agent.safety.faults import Faults
from agent.store import AuditEntry, Store
from protocols.timestamps import rfc3339

Cause = Literal["command", "lease-end", "dead-man", "stop", "crash", "broker-lost", "reconnected"]
"""Why devices are made safe."""
MAX_REASON = 256
"""Characters kept of a reason that somebody gave."""


class Report(msgspec.Struct, frozen=True):
    """A drive that is over; times are UTC in nanoseconds, outcomes in the order in which they came."""

    cause: Cause
    reason: str
    started_ns: int
    finished_ns: int
    outcomes: Sequence[PointOutcome]

    @property
    def bad(self) -> Mapping[str, str]:
        """Why points are not safe, by `device.point`."""
        return {f"{one.device}.{one.point}": one.reason for one in self.outcomes if not one.good}

    def body(self) -> Mapping[str, Any]:
        """The body of the `safety` event (wire.md, `io.hilgate.safety.v1`)."""
        return {
            "cause": self.cause,
            "reason": self.reason,
            "safe": not self.bad,
            "started": rfc3339(self.started_ns),
            "finished": rfc3339(self.finished_ns),
            "points": msgspec.to_builtins(self.outcomes),
        }

    def record(self, store: Store, faults: Faults, events: Events, mode: Mode) -> None:
        """Stores the event and what follows from it, all or nothing."""
        with store.together():
            faults.judge(self.outcomes)
            events.bench(SAFETY, self.body(), mode=mode)
            if self.cause != "command":  # a command has its own line
                store.audit(self._audited())

    def _audited(self) -> AuditEntry:
        return AuditEntry(
            time_ns=self.started_ns,
            finished_ns=self.finished_ns,
            who="agent",
            op="safe",
            status="failed" if self.bad else "ok",
            code="device-error" if self.bad else "",
            message="; ".join(f"{point}: {why}" for point, why in self.bad.items()),
            what=msgspec.json.encode({"cause": self.cause, "reason": self.reason}).decode(),
        )


def report(cause: Cause, reason: str, started_ns: int, outcomes: Sequence[PointOutcome]) -> Report:
    """The report of a drive that ends now."""
    return Report(cause, reason[:MAX_REASON], started_ns, clock.now_ns(), outcomes)
