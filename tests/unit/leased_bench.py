"""A scripted bench with leases, and clocks that a test sets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from scripted_bench import Rig

from agent import clock
from agent.lease import Hooks, Leases, keeper
from agent.profile.hooks import LeaseHooks
from agent.safety import driving
from agent.store import SqliteStore, Store
from protocols.base import Refused

DEVICES: Mapping[str, Mapping[str, Any]] = {
    "pump": {"speed": {"safe": 0}, "lamp": {}},
    "valve": {"spool": {"safe": 5}, "lamp": {}},
}

HOOKS = {
    "before_lease": [
        {"write": {"device": "pump", "values": {"lamp": 1}}},
        {"write": {"device": "valve", "values": {"lamp": 1}}},
    ],
    "after_lease": [
        {"write": {"device": "pump", "values": {"lamp": 2}}},
        {"write": {"device": "valve", "values": {"lamp": 2}}},
    ],
}


class Clock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self.steady = 1000.0
        self.wall = 1_700_000_000.0

    def go_on(self, seconds: float) -> None:
        """Lets time pass."""
        self.steady += seconds
        self.wall += seconds


def set_clocks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Clocks that stand still until they are set; drives to the safe state do not wait long either."""
    one = Clock()
    monkeypatch.setattr(clock, "steady", lambda: one.steady)
    monkeypatch.setattr(clock, "now_ns", lambda: round(one.wall * 1e9))
    monkeypatch.setattr(keeper, "MOST_SLEEP_S", 0.01)
    monkeypatch.setattr(driving, "DEVICE_LIMIT_S", 0.2)
    return one


def open_store(path: Path) -> SqliteStore:
    """The store of a test's agent, as it was left."""
    return SqliteStore(path / "store", 10**6, 3600)


class LeasedRig(Rig):
    """A bench with a pump and a valve, its safety and its leases."""

    def __init__(
        self,
        store: Store,
        hooks: Mapping[str, Any] | None = None,
        *,
        devices: Mapping[str, Mapping[str, Any]] = DEVICES,
        required: bool = False,
    ) -> None:
        super().__init__(store, devices)
        around = LeaseHooks.model_validate(hooks or {})
        self.bench.profile = self.bench.profile.model_copy(update={"hooks": around})
        self.bench.made.set()
        self.bench.tried.set()
        self.leases = Leases(
            self.bench,
            store,
            self.events,
            self.safety,
            Hooks("rig", self.bench, store, self.safety),
            changed=self._changed,
            required=required,
            longest=3600.0,
        )

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Supervises devices and leases; leaving it is like the agent's end: nothing is tidied."""
        async with self.running():
            keeping = asyncio.create_task(self.leases.run())
            await asyncio.sleep(0)
            try:
                yield
            finally:
                keeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeping

    async def reserve(self, holder: str = "ci", *devices: str, ttl_s: float = 60, **fields: Any) -> str:
        """Reserves, and returns the token."""
        chosen = {"devices": list(devices)} if devices else {}
        asked = {"op": "reserve", "holder": holder, "ttl_s": ttl_s} | chosen | fields
        return str((await self.leases.reserve(asked))["lease"])

    async def renew(self, token: str) -> str:
        """Renews, and returns the new end."""
        return str((await self.leases.renew({"op": "renew", "lease": token}))["expires"])

    async def release(self, token: str) -> str:
        """Releases, and returns when it ended."""
        return str((await self.leases.release({"op": "release", "lease": token}))["expires"])

    def may(self, device: str, token: str | None) -> str:
        """`ok`, or the code by which a write to a device is refused."""
        try:
            self.leases.check(device, token)
        except Refused as refused:
            return refused.code
        return "ok"

    def story(self) -> list[str]:
        """What was said of leases and drives, in order: `held ci`, `drive lease-end`."""
        told = []
        for kind, body, _ in self.events.said:
            if kind == "io.hilgate.lease.v1":
                told.append(f"{body['state']} {body['holder']}")
            elif kind == "io.hilgate.safety.v1":
                told.append(f"drive {body['cause']}")
        return told

    def writes(self) -> list[str]:
        """What the devices were told, in order."""
        return [line for line in self.log if " read " not in line]
