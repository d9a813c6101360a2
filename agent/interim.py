"""Stands in until leases and safety are wired."""

from typing import Any

from agent.lease.keeper import Leases


class InterimLeases(Leases):
    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def run(self) -> None: ...

    def check(self, *_: Any) -> None: ...

    def shown(self) -> None: ...

    def covers_all(self) -> bool:
        return False

    def whose(self, *_: Any) -> tuple[str, str]:
        return "", ""
