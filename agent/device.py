"""One device under supervision: connect, run, reconnect; its state and its quality."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from agent import clock
from agent.batch import Batcher
from agent.changes import ChangeFilter
from agent.events import FRAMES, SAMPLES, Events, Mode
from agent.latest import LatestValues
from agent.losses import Losses
from agent.turns import Turns
from protocols.base import DeviceConfig, DeviceState, Driver, DriverError, Quality, Sample, Value

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 30.0
BACKOFF_SPREAD = 1.2
"""A pause is this much longer at most, or as much shorter: devices that went together do not come at once."""
CALM_S = 5.0
"""How long a link that is to be made anew stays for whoever makes the device safe by it."""
CLOSE_GRACE_S = 1.0
"""How long a driver may take to close."""
STEADY_S = 10.0
"""A link that held this long starts its backoff anew."""
MISSED_CYCLES = "missed-cycles"
"""The reason of a loss that is polls for which time ran out."""


class Device:
    """Owns one driver. Everything it learns goes to the latest values and, in batches, to events.

    Implements `protocols.base.Sink`.
    """

    def __init__(
        self,
        config: DeviceConfig,
        driver: Driver,
        mode: Mode,
        events: Events,
        latest: LatestValues,
        changed: Callable[[], None],
    ) -> None:
        self.config = config
        # Kept, for each sample asks for it: what pydantic holds as private costs 2 us to get.
        self.name = config.name
        self.driver = driver
        self.mode = mode
        self.turns = Turns(config.name)
        self.since_ns = clock.now_ns()
        credentials = config.credentials()
        self.caveat = "" if credentials is None else credentials.caveat
        """What is always to be said of its link."""
        self.status = DeviceState.CONNECTING if config.enabled else DeviceState.DISABLED
        self.losses = Losses()
        """What was not taken from the device and is still to be said."""
        self.taken = 0
        """Samples and batches of raw frames that the driver gave."""
        self.taken_ns = 0
        """The time of the last of them (UTC), 0 before the first."""
        self.connects = 0
        """How often its link was made."""
        self._events = events
        self._latest = latest
        self._changed = changed
        self._why = ""
        self._link: asyncio.Task[None] | None = None
        self._held = False
        self._taken_up = asyncio.Event()
        self._renewed = asyncio.Event()
        self._renewed.set()
        self._turned = asyncio.Event()
        self._linked = False
        self._linked_at: float | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._due: float | None = None
        self._filter = ChangeFilter(config.refresh) if config.report == "change" else None
        self._batch = Batcher(config.batch, self._emit)
        self._log = structlog.get_logger("device").bind(device=config.name)

    @property
    def reason(self) -> str:
        """Why it is as it is, in words."""
        return "; ".join(filter(None, (self._why, self.caveat)))

    @property
    def tried(self) -> bool:
        """Whether the first attempt to reach it has ended, well or not."""
        return self.status is not DeviceState.CONNECTING

    @property
    def usable(self) -> bool:
        """Whether commands to it may succeed."""
        return self.status in (DeviceState.ONLINE, DeviceState.DEGRADED)

    @property
    def stuck(self) -> str:
        """Why its supervisor does not go on, in words; empty while it does, also when no device answers."""
        if self._supervisor is not None and self._supervisor.done():
            return f"the supervisor of device {self.name} has ended"
        if self._due is not None and time.monotonic() > self._due:
            return f"the supervisor of device {self.name} hangs"
        return ""

    # -- Sink -----------------------------------------------------------------------------------

    def sample(self, sample: Sample) -> None:
        """Takes readings from the driver."""
        self.taken += 1
        self.taken_ns = sample.time_ns
        self._latest.update(self.name, sample)
        if sample.values and self.status in (DeviceState.CONNECTING, DeviceState.OFFLINE):
            self._set(DeviceState.ONLINE)
        if self._filter is None:
            self._batch.add(sample)
        elif (changed := self._filter.changed(sample)) is not None:
            self._batch.add(changed)

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Takes what the driver thinks of a device whose link is up."""
        self._set(state, reason)

    def frames(self, body: bytes, time_ns: int) -> None:
        """Takes raw bus frames; the driver has gathered them."""
        self.taken += 1
        self.taken_ns = time_ns
        if self.status in (DeviceState.CONNECTING, DeviceState.OFFLINE):
            self._set(DeviceState.ONLINE)
        self._emit(body, time_ns, FRAMES)

    def missed(self, cycles: int, period: float) -> None:
        """Counts skipped poll cycles; the next heartbeat says them as a loss."""
        now = clock.now_ns()
        self.losses.count(MISSED_CYCLES, cycles, now - int(cycles * period * 1e9), now)

    def lost(self, count: int, reason: str) -> None:
        """Counts what could not be taken from the device; the next heartbeat says it."""
        now = clock.now_ns()
        self.losses.count(reason, count, now, now)

    async def kept(self) -> None:
        """Returns when all samples taken before are in the store."""
        self._batch.flush()
        await self._events.stored()

    # -- life -----------------------------------------------------------------------------------

    async def supervise(self) -> None:
        """Keeps the device connected until cancelled."""
        if not self.config.enabled:
            return
        self._supervisor = asyncio.current_task()
        backoff = BACKOFF_FIRST_S
        while True:
            self._linked_at = self._due = None
            self._taken_up.clear()
            if self._held:
                await self._taken_up.wait()
            # In a task of its own: a task group that fails may leave its task marked as cancelled.
            self._link = asyncio.create_task(self._live(), name=f"{self.name}: link")
            try:
                await self._link
            except asyncio.CancelledError:
                if not self._held:
                    raise
            except DriverError as error:
                self._lost(str(error))
            except Exception as error:  # noqa: BLE001  # reported as this device's state
                # A fault of the driver is this device's fault, never the agent's end.
                reason = f"internal error in the driver: {type(error).__name__}: {error}"
                if reason != self._why:  # said once, not at every attempt
                    self._log.exception("driver failed")
                self._lost(reason)
            finally:
                self._linked = False
                self._due = time.monotonic() + CLOSE_GRACE_S + backoff * BACKOFF_SPREAD
                await self._close()
                self._batch.flush()
                self._link = None
                self._turned.set()
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # A driver whose link goes at this very moment may say that alone: so do Python's task groups.
                raise asyncio.CancelledError
            if self._linked_at is not None and time.monotonic() - self._linked_at > STEADY_S:
                backoff = BACKOFF_FIRST_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff * random.uniform(2 - BACKOFF_SPREAD, BACKOFF_SPREAD)):
                    await self._taken_up.wait()
                    backoff = 0.0
            backoff = min(max(backoff * 2, BACKOFF_FIRST_S), BACKOFF_MOST_S)

    async def let_go(self) -> None:
        """Closes the link, which is not made again before `take_up`; the state stays meanwhile.

        Whoever is making the device safe is waited for, a moment.
        """
        await self.turns.calm(CALM_S)
        self._held = True
        self._renewed.clear()
        if self._link is not None:
            self._turned.clear()
            self._link.cancel()
            await self._turned.wait()

    async def take_up(self) -> None:
        """Makes the link again at once, and returns when it is made or cannot be."""
        self._turned.clear()
        self._held = False
        self._taken_up.set()
        try:
            await self._turned.wait()
        finally:
            self._renewed.set()

    async def renewed(self, within: float) -> None:
        """Returns when no link is being made anew any more, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._renewed.wait()

    async def _live(self) -> None:
        structlog.contextvars.bind_contextvars(device=self.name)  # for what its driver logs
        await self.driver.connect()
        self._linked, self._linked_at = True, time.monotonic()
        self._turned.set()
        self.connects += 1
        if self.status is not DeviceState.CONNECTING:
            self._log.info("connected again")
        if not any(point.readable for point in self.config.points.values()):
            self._set(DeviceState.ONLINE)
        await self.driver.run(self)
        raise DriverError("disconnected", "the driver ended by itself")

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self.driver.close()
        except Exception as error:  # noqa: BLE001  # whatever a driver does here, the agent goes on
            self._log.warning("driver did not close", reason=f"{type(error).__name__}: {error}")

    def _lost(self, reason: str) -> None:
        log = self._log.debug if self.status is DeviceState.OFFLINE else self._log.warning
        log("device is not reachable", reason=reason)
        if self.status is not DeviceState.OFFLINE:
            names = [name for name, point in self.config.points.items() if point.readable]
            self._report_bad(dict.fromkeys(names, Quality.DISCONNECTED))
        self._set(DeviceState.OFFLINE, reason)

    def _report_bad(self, bad: Mapping[str, Quality]) -> None:
        sample = Sample(clock.now_ns(), {}, bad)
        if self._filter is not None:
            self._filter.forget()
        if bad:
            self._latest.update(self.name, sample)
            self._batch.add(sample)

    # -- commands -------------------------------------------------------------------------------

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads points from the device now.

        Raises:
            DriverError: not one point could be read.
        """
        self._require_link()
        return await self.driver.read(points)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes values that were checked.

        Raises:
            DriverError: not all were written.
        """
        self._require_link()
        return await self.driver.write(values)

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of the protocol's own operations.

        Raises:
            Refused: unknown method or wrong arguments.
            DriverError: the device said no or did not answer.
        """
        self._require_link()
        return await self.driver.call(method, args)

    def rest(self) -> None:
        """Ends what a command set going and what goes on by itself."""
        if self._linked:
            self.driver.rest()

    def _require_link(self) -> None:
        if not self._linked:
            raise DriverError(
                "disconnected", f"device {self.name} is {self.status}: {self._why or 'no link yet'}"
            )

    # -- inside ---------------------------------------------------------------------------------

    def _set(self, state: DeviceState, reason: str = "") -> None:
        if (state, reason) == (self.status, self._why):
            return
        changed_state = state is not self.status
        self.status, self._why = state, reason
        if changed_state:
            self.since_ns = clock.now_ns()
            body = {"device": self.name, "state": state, "reason": self.reason, "mode": self.mode}
            self._events.device_change(self.name, body, mode=self.mode)
        self._changed()

    def _emit(self, body: bytes, time_ns: int, kind: str = SAMPLES) -> None:
        config = self.config
        self._events.device(
            self.name,
            body,
            time_ns=time_ns,
            mode=self.mode,
            ttl=config.ttl,
            durable=config.durable,
            kind=kind,
        )
