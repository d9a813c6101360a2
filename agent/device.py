"""One device under supervision: connect, run, reconnect; its state and its quality."""

import asyncio
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
CLOSE_GRACE_S = 1.0
"""How long a driver may take to close."""
STEADY_S = 10.0
"""A link that held this long starts its backoff anew."""


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
        self.reason = ""
        self.status = DeviceState.CONNECTING if config.enabled else DeviceState.DISABLED
        self.losses = Losses()
        """What was not taken from the device and is still to be said."""
        self._events = events
        self._latest = latest
        self._changed = changed
        self._linked = False
        self._linked_at: float | None = None
        self._filter = ChangeFilter(config.refresh) if config.report == "change" else None
        self._batch = Batcher(config.batch, self._emit)
        self._log = structlog.get_logger("device").bind(device=config.name)

    @property
    def tried(self) -> bool:
        """Whether the first attempt to reach it has ended, well or not."""
        return self.status is not DeviceState.CONNECTING

    @property
    def usable(self) -> bool:
        """Whether commands to it may succeed."""
        return self.status in (DeviceState.ONLINE, DeviceState.DEGRADED)

    # -- Sink -----------------------------------------------------------------------------------

    def sample(self, sample: Sample) -> None:
        """Takes readings from the driver."""
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
        if self.status in (DeviceState.CONNECTING, DeviceState.OFFLINE):
            self._set(DeviceState.ONLINE)
        self._emit(body, time_ns, FRAMES)

    def missed(self, cycles: int, period: float) -> None:
        """Counts skipped poll cycles; the next heartbeat says them as a loss."""
        now = clock.now_ns()
        self.losses.count("missed-cycles", cycles, now - int(cycles * period * 1e9), now)

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
        backoff = BACKOFF_FIRST_S
        while True:
            self._linked_at = None
            try:
                # In a task of its own: a task group that fails may leave its task marked as cancelled.
                await asyncio.create_task(self._live(), name=f"{self.name}: link")
            except DriverError as error:
                self._lost(str(error))
            except Exception as error:  # noqa: BLE001  # reported as this device's state
                # A fault of the driver is this device's fault, never the agent's end.
                reason = f"internal error in the driver: {type(error).__name__}: {error}"
                if reason != self.reason:  # said once, not at every attempt
                    self._log.exception("driver failed")
                self._lost(reason)
            finally:
                self._linked = False
                await self._close()
                self._batch.flush()
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # A driver whose link goes at this very moment may say that alone: so do Python's task groups.
                raise asyncio.CancelledError
            if self._linked_at is not None and time.monotonic() - self._linked_at > STEADY_S:
                backoff = BACKOFF_FIRST_S
            await asyncio.sleep(backoff * random.uniform(0.8, 1.2))
            backoff = min(backoff * 2, BACKOFF_MOST_S)

    async def _live(self) -> None:
        await self.driver.connect()
        self._linked, self._linked_at = True, time.monotonic()
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
                "disconnected", f"device {self.name} is {self.status}: {self.reason or 'no link yet'}"
            )

    # -- inside ---------------------------------------------------------------------------------

    def _set(self, state: DeviceState, reason: str = "") -> None:
        if (state, reason) == (self.status, self.reason):
            return
        changed_state = state is not self.status
        self.status, self.reason = state, reason
        if changed_state:
            self.since_ns = clock.now_ns()
            body = {"device": self.name, "state": state, "reason": reason, "mode": self.mode}
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
