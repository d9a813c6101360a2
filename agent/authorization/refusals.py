"""The audit of refusals: the first of a kind (who, code, op) at once, the flood behind it as one line."""

import asyncio
from collections.abc import Callable

import msgspec

from agent.metrics.counts import OPS, UNKNOWN
from agent.store import AuditEntry

WINDOW_S = 60.0
"""How long refusals of one kind are gathered."""
MOST_KINDS = 1000
"""Kinds that are told apart in one window; all beyond are one kind."""


class _Kind(msgspec.Struct):
    last: AuditEntry
    more: int = 0


class Refusals:
    """Audits refusals so that whoever is refused often does not fill the audit."""

    def __init__(self, audit: Callable[[AuditEntry], None]) -> None:
        self._audit = audit
        self._kinds: dict[tuple[str, str, str], _Kind] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, entry: AuditEntry) -> bool:
        """Audits a refusal, now or with others like it; False: such a one was said in this window already."""
        key = entry.who, entry.code, entry.op if entry.op in OPS else UNKNOWN
        if key not in self._kinds and len(self._kinds) >= MOST_KINDS:
            key = "", "", ""
        if (kind := self._kinds.get(key)) is not None:
            kind.last, kind.more = entry, kind.more + 1
            return False
        self._kinds[key] = _Kind(entry)
        self._audit(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_S, self.flush)
        return True

    def flush(self) -> None:
        """Audits what was gathered; each next refusal is news again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kinds, self._kinds = self._kinds, {}
        for kind in kinds.values():
            if kind.more:
                text = f"{kind.last.message} (the last of {kind.more} more within {WINDOW_S:g} s)"
                self._audit(msgspec.structs.replace(kind.last, message=text))
