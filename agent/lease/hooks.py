"""Hooks: what the profile has done before a lease begins and after it ended."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
import structlog

from agent import clock
from agent.bench import Bench
from agent.device import Device
from agent.lease.book import Lease
from agent.lease.program import run
from agent.profile.hooks import Hook
from agent.safety import Safety
from agent.store import Store
from agent.store.base import AuditEntry
from agent.turns import Overtaken
from protocols.base import DriverError, Refused

_OWN = "HILGATE_"
"""How the agent's own variables begin; passwords are among them, so no program gets them."""


class Hooks:
    """Carries out the hooks of a bench's profile; each is audited."""

    def __init__(self, bench_id: str, bench: Bench, store: Store, safety: Safety) -> None:
        self._bench_id = bench_id
        self._bench = bench
        self._store = store
        self._safety = safety
        self._log = structlog.get_logger("hooks")

    async def before(self, lease: Lease) -> None:
        """Prepares the bench for a lease.

        Raises:
            DriverError: a hook failed; those behind it were not carried out.
        """
        # What makes the bench safe ends the preparing of it, also between two hooks.
        came = {name: device.turns.overtakes for name, device in self._bench.devices.items()}
        await self._series("before_lease", self._bench.profile.hooks.before_lease, lease, came)

    async def after(self, lease: Lease) -> None:
        """Cleans up after a lease.

        Raises:
            DriverError: a hook failed; those behind it were not carried out.
        """
        await self._series("after_lease", self._bench.profile.hooks.after_lease, lease)

    async def _series(
        self, name: str, hooks: Sequence[Hook], lease: Lease, came: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Carries out hooks; `came`: how often each device had been overtaken when they were asked for."""
        for number, hook in enumerate(hooks):
            device = None if hook.device is None else self._bench.devices[hook.device]
            if device is not None and not (device.config.enabled and lease.covers(device.name)):
                continue
            began_ns = clock.now_ns()
            try:
                await self._carry_out(hook, device, lease, came)
            except DriverError as error:
                text = f"hook {name}.{number} failed: {error}"
                self._audit(hook, lease, began_ns, "failed", error.code, text)
                raise DriverError(error.code, text) from error
            self._audit(hook, lease, began_ns, "ok")

    async def _carry_out(
        self, hook: Hook, device: Device | None, lease: Lease, came: Mapping[str, int]
    ) -> None:
        """One hook, within its time.

        Raises:
            DriverError: it failed.
        """
        if hook.run is not None:
            folder = self._bench.profile.path.parent
            await run(hook.run, self._environment(lease), folder, hook.timeout)
            return
        assert device is not None  # the other kinds of hooks have one
        overtakes = came.get(device.name, device.turns.overtakes)
        try:
            async with asyncio.timeout(hook.timeout), device.turns.commanded(overtakes):
                await self._move(hook, device)
        except (Refused, Overtaken) as error:
            raise DriverError("device-error", str(error)) from error
        except TimeoutError:
            raise DriverError("timeout", f"{device.name} took longer than {hook.timeout:g} s") from None
        except DriverError:
            raise
        except Exception as error:  # a driver's fault is this hook's, never the agent's end
            self._log.exception("hook failed by a fault of the driver", lease_id=lease.id)
            text = f"internal error in the driver: {type(error).__name__}: {error}"
            raise DriverError("device-error", text) from error

    async def _move(self, hook: Hook, device: Device) -> None:
        if hook.call is not None:
            await device.call(hook.call.method, hook.call.args)
        if hook.write is not None:
            points = device.config.points
            values = {name: points[name].accept(value) for name, value in hook.write.values.items()}
            await self._safety.write(device, values)

    def _environment(self, lease: Lease) -> Mapping[str, str]:
        names = [name for name, device in self._bench.devices.items() if device.config.enabled]
        own = {
            "BENCH": self._bench_id,
            "MODE": self._bench.mode,
            "LEASE_ID": lease.id,
            "LEASE_HOLDER": lease.holder,
            "LEASE_DTE": lease.dte,
            "LEASE_DEVICES": " ".join(name for name in names if lease.covers(name)),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        return inherited | {_OWN + name: value for name, value in own.items()}

    def _audit(
        self, hook: Hook, lease: Lease, began_ns: int, status: str, code: str = "", text: str = ""
    ) -> None:
        log = self._log.info if status == "ok" else self._log.warning
        what = hook.model_dump(mode="json", exclude_unset=True)
        log("hook", lease_id=lease.id, hook=what, status=status, reason=text)
        entry = AuditEntry(
            time_ns=began_ns,
            finished_ns=clock.now_ns(),
            who="agent",
            op="hook",
            status=status,
            code=code,
            message=text,
            device=hook.device or "",
            lease=lease.id,
            holder=lease.holder,
            what=msgspec.json.encode(what).decode(),
        )
        self._store.audit(entry)
