"""The `safety` event (wire.md, `io.hilgate.safety.v1`), and the faults that come with it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from agent import clock
from agent.events import SAFETY, Events, Mode
from agent.safety.driving import PointOutcome
from agent.safety.faults import Faults
from agent.store import Store
from protocols.timestamps import rfc3339

Cause = Literal["command", "lease-end", "dead-man", "stop", "crash", "broker-lost", "reconnected"]
"""Why devices are made safe."""
MAX_REASON = 256
"""Characters kept of a reason that somebody gave."""


def body(cause: Cause, reason: str, started_ns: int, outcomes: Sequence[PointOutcome]) -> Mapping[str, Any]:
    """The event's body, of a drive that is finished now."""
    return {
        "cause": cause,
        "reason": reason[:MAX_REASON],
        "safe": all(outcome.good for outcome in outcomes),
        "started": rfc3339(started_ns),
        "finished": rfc3339(clock.now_ns()),
        "points": msgspec.to_builtins(outcomes),
    }


def record(
    said: Mapping[str, Any],
    outcomes: Sequence[PointOutcome],
    *,
    store: Store,
    faults: Faults,
    events: Events,
    mode: Mode,
) -> None:
    """Stores the event and the faults that follow from it, both or neither."""
    with store.together():
        faults.judge(outcomes)
        events.bench(SAFETY, said, mode=mode)
