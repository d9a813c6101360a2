"""The safety of one bench: when its devices are made safe, and what may be written."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import structlog

from agent import clock
from agent.bench import Bench
from agent.device import Device
from agent.events import Events
from agent.safety.driving import PointOutcome, make_safe, safe_values, share
from agent.safety.faults import Faults
from agent.safety.interlocks import Readings, broken
from agent.safety.rates import Rates
from agent.safety.report import Cause, report
from agent.safety.watch import BrokerWatch, ReturnWatch
from agent.store import Store
from protocols.base import DriverError, Quality, Refused, Sample, Value, number
from protocols.interlock import Interlock

OVERTAKE_GRACE_S = 0.5
"""How long a drive waits for the command that a device is at."""
LOOK_S = 0.25
"""How often the broker link and unsafe devices are looked at."""


class Safety:
    """Drives safe values, guards writes, and keeps what could not be made safe."""

    def __init__(
        self,
        bench: Bench,
        store: Store,
        events: Events,
        *,
        changed: Callable[[], None],
        connected: Callable[[], bool],
        broker_loss: float | None,
    ) -> None:
        self._bench = bench
        self._store = store
        self._events = events
        self._changed = changed
        self._connected = connected
        self._broker_loss = broker_loss
        self._faults = Faults(store, bench.mode)
        self.drives: Counter[tuple[Cause, bool]] = Counter()
        """How often devices were made safe since the agent started, by cause and by whether all were."""
        self._returns = ReturnWatch(self._faults.unsafe)
        self._rates = Rates()
        self._log = structlog.get_logger("safety")

    # -- faults ---------------------------------------------------------------------------------

    @property
    def faults(self) -> Mapping[str, str]:
        """What is wrong until it is put right or a person has looked: key to a sentence."""
        return self._faults.texts

    @property
    def unsafe(self) -> Collection[str]:
        """The devices that could not be made safe."""
        return self._faults.unsafe

    def fault(self, key: str, text: str) -> None:
        """Notes a fault, also for later runs; the bench is in state `fault` while there is one."""
        self._log.error("fault", key=key, reason=text)
        self._faults.set(key, text)
        self._changed()

    def clear(self) -> None:
        """Forgets all faults: a person has looked (op `enable`)."""
        self._faults.clear()
        self._changed()

    # -- safe values ----------------------------------------------------------------------------

    async def drive(
        self,
        cause: Cause,
        devices: Collection[str] | None = None,
        reason: str = "",
        *,
        within: float = 10.0,
    ) -> Mapping[str, Any]:
        """Drives the safe values of some devices (None: all), within so many seconds.

        Returns:
            The body of the `safety` event, which was sent. Whatever went wrong stands in it.
        """
        started_ns, loop = clock.now_ns(), asyncio.get_running_loop()
        deadline = loop.time() + within
        outcomes: list[PointOutcome] = []
        chosen = self._in_order(devices)
        for place, device in enumerate(chosen):
            limit = share(deadline - loop.time(), len(chosen) - place)
            outcomes += await self._make_safe(device, limit)
        done = report(cause, reason, started_ns, outcomes)
        self.drives[cause, not done.bad] += 1
        done.record(self._store, self._faults, self._events, self._bench.mode)
        if done.bad:
            self._log.error("not made safe", cause=cause, reason=done.reason, bad=done.bad)
        else:
            self._log.info("made safe", cause=cause, reason=done.reason)
        self._changed()
        return done.body()

    def _in_order(self, names: Collection[str] | None) -> Sequence[Device]:
        """As the profile has them, but those whose link is down come last."""
        chosen = [
            device
            for name, device in self._bench.devices.items()
            if (names is None or name in names) and (safe_values(device.config) or device.config.lasting)
        ]
        return sorted(chosen, key=lambda device: not device.usable)

    async def _make_safe(self, device: Device, limit: float) -> Sequence[PointOutcome]:
        clock_s = asyncio.get_running_loop().time
        end = clock_s() + limit
        async with device.turns.overtaken(min(OVERTAKE_GRACE_S, limit / 4)):
            await device.renewed(limit / 2)  # a link that is just made anew only says that it is away
            self._rest(device)
            outcomes = await make_safe(device, device.config, max(0.0, end - clock_s()))
        self.wrote(device, {outcome.point: outcome.value for outcome in outcomes if outcome.reached})
        return outcomes

    def _rest(self, device: Device) -> None:
        try:
            device.rest()
        except Exception as error:  # noqa: BLE001  # a driver's fault must not keep the rest from being made safe
            text = f"what commands set going may go on: {type(error).__name__}: {error}"
            self.fault(f"{device.name}: rest", f"device {device.name}: {text}")

    # -- watches --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watches the broker link, and devices that could not be made safe, until cancelled."""
        broker = BrokerWatch(self._broker_loss, time.monotonic())
        while True:
            # Looked at rather than waited for: it must hold also where nobody thinks of telling it.
            await asyncio.sleep(LOOK_S)
            if broker.lost(self._connected(), time.monotonic()):
                await self.drive("broker-lost", reason=f"no broker for {self._broker_loss:g} s")
            usable = {name for name, device in self._bench.devices.items() if device.usable}
            if back := self._returns.back(self._faults.unsafe, usable):
                await self.drive("reconnected", back, "could not be made safe before")

    # -- writes ---------------------------------------------------------------------------------

    async def write(self, device: Device, values: Mapping[str, Value]) -> Sample:
        """Writes values that were accepted, if rates and interlocks allow it now; in a command's turn.

        Raises:
            Refused: they do not; nothing was written.
            DriverError: not all were written.
        """
        await self.check(device, values)
        try:
            written = await device.write(values)
        except DriverError as error:
            self.wrote(device, error.written)
            raise
        self.wrote(device, written.values)
        return written

    async def check(self, device: Device, values: Mapping[str, Value]) -> None:
        """Checks `max_rate` and interlocks from fresh readings; belongs right before the write.

        Interlocks do not bind the writing of a point's safe value.

        Raises:
            Refused: `out-of-range` (too fast) or `disabled` (an interlock does not hold).
            DriverError: the value that is to change could not be read; nothing was written.
        """
        points = device.config.points
        interlocks = {
            name: list(points[name].interlocks(device.name))
            for name, value in values.items()
            if value != points[name].safe
        }
        limited = [name for name in values if points[name].max_rate is not None]
        readings = await self._read(device.name, interlocks.values(), limited)
        for name, conditions in interlocks.items():
            if said := broken(conditions, readings):
                raise Refused("disabled", f"interlock of {device.name}.{name}: {'; '.join(said)}")
        for name in limited:
            self._check_rate(device, name, values[name], readings[device.name])

    async def _read(
        self, own: str, interlocks: Iterable[Sequence[Interlock]], limited: Sequence[str]
    ) -> Readings:
        """Reads, of all devices at once, what interlocks and rates are judged by."""
        wanted: dict[str, dict[str, None]] = {own: dict.fromkeys(limited)} if limited else {}
        for interlock in (one for conditions in interlocks for one in conditions):
            wanted.setdefault(interlock.device, {})[interlock.point] = None
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(
                    _reading(self._bench.devices[name], list(points)), name=f"check {name}"
                )
                for name, points in wanted.items()
            }
        return {name: task.result() for name, task in tasks.items()}

    def _check_rate(self, device: Device, name: str, value: Value, reading: Sample | DriverError) -> None:
        point, key, now = device.config.points[name], (device.name, name), time.monotonic()
        if isinstance(reading, DriverError):
            raise DriverError(
                reading.code, f"nothing was written: max_rate needs what {name} is now: {reading}"
            )
        if name not in reading.values:
            raise _unknown(name, reading.bad.get(name, Quality.DEVICE_ERROR))
        current, wanted = number(reading.values[name]), number(value)
        self._rates.saw(key, current, now)
        assert point.max_rate is not None  # chosen for it
        span = self._rates.allowed(key, point.max_rate, now)
        if span.holds(wanted) or wanted == current:
            return
        raise Refused(
            "out-of-range",
            f"{name} = {value} would change too fast: it is {current:.9g} now, "
            f"max_rate is {point.max_rate:g} a second; it takes {span.within(point.min, point.max)}",
        )

    def wrote(self, device: Device, values: Mapping[str, Value]) -> None:
        """Takes what was written, also of a write that failed partway, for `max_rate`."""
        now = time.monotonic()
        for name, value in values.items():
            if device.config.points[name].max_rate is not None:
                self._rates.wrote((device.name, name), number(value), now)


async def _reading(device: Device, points: Sequence[str]) -> Sample | DriverError:
    try:
        return await device.read(points)
    except DriverError as error:
        return error


def _unknown(name: str, quality: Quality) -> DriverError:
    codes: Mapping[Quality, Literal["timeout", "disconnected"]] = {
        Quality.TIMEOUT: "timeout",
        Quality.DISCONNECTED: "disconnected",
    }
    text = f"nothing was written: max_rate needs what {name} is now, and it could not be read: {quality}"
    return DriverError(codes.get(quality, "device-error"), text)
