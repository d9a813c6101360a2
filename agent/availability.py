"""What the bench tells the control plane: its availability, on every change and as a heartbeat."""

import asyncio
import contextlib
import platform
import socket
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Literal

import structlog

from agent import clock
from agent.bench import Bench
from agent.events import LOSS, Events
from agent.lease.keeper import Leases
from agent.rivals import Rivals
from agent.safety import Safety
from agent.store import Loss, Store
from protocols.base import DeviceState
from protocols.timestamps import rfc3339

State = Literal["starting", "available", "leased", "degraded", "fault", "maintenance", "stopping", "offline"]

TTL_INTERVALS = 3
MAX_REASON = 256
"""Characters kept of a reason that somebody gave."""
_DISABLED = "disabled"
"""The name under which the store remembers why the bench was disabled."""


class Availability:
    """Judges the bench's state and sends it (wire.md section 3). Also says what was lost meanwhile."""

    def __init__(
        self,
        bench_id: str,
        bench: Bench,
        events: Events,
        store: Store,
        rivals: Rivals,
        leases: Leases,
        safety: Safety,
        *,
        interval: float,
        connected: Callable[[], bool],
        caveat: Callable[[], str],
        labels: Mapping[str, str],
        enabled: bool = True,
    ) -> None:
        disabled = store.recall(_DISABLED)
        self.enabled = enabled and disabled is None
        self._why_disabled = (disabled or b"").decode()
        self._bench_id = bench_id
        self._bench = bench
        self._events = events
        self._store = store
        self._rivals = rivals
        self._leases = leases
        self._safety = safety
        self._interval = interval
        self._connected = connected
        self._caveat = caveat
        self.labels = labels
        self._phase: Literal["running", "stopping", "offline"] = "running"
        self._revision = 0
        self._since = (self.state, clock.now_ns())
        self._agent = {
            "version": version("hilgate"),
            "arch": platform.machine(),
            "hostname": socket.gethostname(),
        }
        self._log = structlog.get_logger("availability")

    @property
    def state(self) -> State:
        """The bench's state now."""
        if self._phase != "running":
            return self._phase
        if not self.enabled:
            return "maintenance"
        devices = [device for device in self._bench.devices.values() if device.config.enabled]
        if not self._bench.tried.is_set():
            return "starting"
        if self._safety.faults or not any(device.usable for device in devices):
            return "fault"
        troubled = self._rivals.heard() or self._store.trouble
        if troubled or any(device.status is not DeviceState.ONLINE for device in devices):
            return "degraded"
        return "leased" if self._leases.covers_all() else "available"

    @property
    def reason(self) -> str:
        """Why the state is not `available`, and what is to be known of the bench in any state, in words."""
        said = [] if self.enabled else [f"disabled{': ' if self._why_disabled else ''}{self._why_disabled}"]
        said += self._safety.faults.values()
        said += filter(None, [self._rivals.heard(), self._store.trouble])
        for name, device in self._bench.devices.items():
            if device.status not in (DeviceState.ONLINE, DeviceState.DISABLED):
                said.append(f"{name} is {device.status}{': ' if device.reason else ''}{device.reason}")
            elif device.config.enabled and device.caveat:
                said.append(f"{name}: {device.caveat}")
        if self._bench.made.is_set() and not any(d.config.enabled for d in self._bench.devices.values()):
            said.append("every device is disabled in the profile")
        return "; ".join(filter(None, (*said, self._caveat())))

    def enable(self, enabled: bool, why: str = "") -> None:
        """Opens the bench for commands that move it, or closes it, also for the agents to come."""
        self.enabled, self._why_disabled = enabled, "" if enabled else why[:MAX_REASON]
        self._store.remember(_DISABLED, None if enabled else self._why_disabled.encode())
        self.changed()

    def changed(self) -> None:
        """Has availability sent soon."""
        self._bench.changed.set()

    def leave(self, phase: Literal["stopping", "offline"]) -> None:
        """Says that the agent stops, or has stopped."""
        self._phase = phase
        # What is not said now is forgotten with the process; the outbox keeps it for the next one.
        self._say_device_losses()
        self._send()

    async def run(self) -> None:
        """Sends at once on every change and each interval, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._bench.changed.wait()
            changed = self._bench.changed.is_set()
            self._bench.changed.clear()
            beat = loop.time() >= due
            if beat:
                due += self._interval
            # A heartbeat that cannot leave now is worth nothing later, and losses go on: both wait.
            if beat and self._connected():
                self._say_losses()
                self._send()
            elif changed:
                self._send()

    def body(self) -> dict[str, Any]:
        """The message body as wire.md section 3 has it."""
        state = self.state
        if state != self._since[0]:
            self._log.info("bench is now", state=state, reason=self.reason)
            self._since = (state, clock.now_ns())
        bench, profile = self._bench, self._bench.profile
        return {
            "bench": self._bench_id,
            "epoch": self._store.epoch,
            "revision": self._revision,
            "time": rfc3339(clock.now_ns()),
            "state": state,
            "since": rfc3339(self._since[1]),
            "reason": self.reason,
            "enabled": self.enabled,
            "interval_s": self._interval,
            "lease": self._leases.shown(),
            "mode": bench.mode,
            "devices": {
                name: {
                    "protocol": device.config.protocol,
                    # After the stop nobody looks at the devices any more.
                    "state": DeviceState.OFFLINE if self._phase == "offline" else device.status,
                    "mode": device.mode,
                    "since": rfc3339(device.since_ns),
                    "reason": device.reason,
                }
                for name, device in bench.devices.items()
            },
            "labels": self.labels,
            "profile": {"name": profile.profile, "digest": profile.digest},
            "agent": self._agent,
            "clock": clock.clock_status(),
            "outbox": self._store.outbox.stats(),
        }

    def _send(self) -> None:
        self._revision += 1
        self._events.availability(self.body(), mode=self._bench.mode, ttl=TTL_INTERVALS * self._interval)

    def _say_losses(self) -> None:
        losses = self._store.outbox.losses()
        with self._store.together():
            self._store.outbox.said(losses)
            for loss in losses:
                self._events.bench(LOSS, self._of_loss(loss), mode=self._bench.mode)
        self._say_device_losses()

    def _say_device_losses(self) -> None:
        for name, device in self._bench.devices.items():
            for lost in device.losses.take():
                body = {
                    "source": self._events.device_source(name),
                    "reason": lost.reason,
                    "count": lost.count,
                    "first_time": rfc3339(lost.first_ns),
                    "last_time": rfc3339(lost.last_ns),
                }
                self._events.bench(LOSS, body, mode=device.mode)

    def _of_loss(self, loss: Loss) -> dict[str, Any]:
        # What a store held that cannot be read any more, nobody can count.
        known = {"first": str(loss.first), "last": str(loss.last)} if loss.count else {}
        return {
            "source": loss.source if loss.count else self._events.bench_source,
            "reason": loss.reason,
            "count": loss.count,
            **known,
            "first_time": rfc3339(loss.first_time_ns),
            "last_time": rfc3339(loss.last_time_ns),
        }
