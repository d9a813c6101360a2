"""Makes one device safe: writes its safe values, reads them back, and says of each point what came of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from agent.safety.readback import Readable, read_back
from protocols.base import DeviceConfig, DriverError, Sample, Value

DEVICE_LIMIT_S = 2.0
"""Most time that one device may take to be made safe."""

READ_AGAIN_S = 0.05
"""Pause before a safe value that does not show yet is read again."""


class Target(Readable, Protocol):
    """A device, or its driver alone."""

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes values; raises DriverError where not all were written."""


class PointOutcome(msgspec.Struct):
    """What came of one safe value: an entry of a `safety` event's `points`."""

    device: str
    point: str
    value: Value
    reached: bool = False
    verified: bool | None = None
    """Whether it read back so; None where it was not reached or cannot be read."""
    reason: str = ""

    @property
    def good(self) -> bool:
        """Reached, and nothing speaks against it."""
        return self.reached and self.verified is not False


def safe_values(config: DeviceConfig) -> Mapping[str, Value]:
    """The safe values of a device, in the profile's order; none of a device that is to be left alone."""
    points = config.points.items() if config.enabled else ()
    return {name: point.safe for name, point in points if point.safe is not None}


def share(left: float, devices: int) -> float:
    """What one of so many devices may take of the seconds that are left."""
    return max(0.0, min(DEVICE_LIMIT_S, left / devices))


def unreached(config: DeviceConfig, reason: str) -> list[PointOutcome]:
    """The outcome of a device that could not even be tried."""
    return [
        PointOutcome(config.name, name, value, reason=reason) for name, value in safe_values(config).items()
    ]


async def make_safe(device: Target, config: DeviceConfig, limit: float) -> Sequence[PointOutcome]:
    """Drives the safe values of a device and reads them back, in at most `limit` seconds."""
    if not safe_values(config):
        return []
    attempt = _Attempt(device, config, limit)
    try:
        async with asyncio.timeout(limit):
            await attempt.write()
            await attempt.verify()
    except TimeoutError:
        pass  # each outcome says how far it came
    return list(attempt.outcomes.values())


class _Attempt:
    def __init__(self, device: Target, config: DeviceConfig, limit: float) -> None:
        self._device = device
        self._points = config.points
        self._late = f"within {limit:.2g} s"
        self._written: dict[str, Value] = {}
        self._unverified: set[str] = set()
        """Written, and the driver has found that the field did not follow, whatever they read back as."""
        self.outcomes = {outcome.point: outcome for outcome in unreached(config, f"no answer {self._late}")}

    async def write(self) -> None:
        """All at once; then, one by one, what that left out."""
        await self._write(list(self.outcomes))
        for name in [name for name in self.outcomes if name not in self._written]:
            await self._write([name])

    async def _write(self, names: Sequence[str]) -> None:
        failure = ""
        try:
            written = (await self._device.write({name: self.outcomes[name].value for name in names})).values
        except DriverError as error:
            written, failure = error.written, str(error)
            self._unverified.update(error.unverified)
        except Exception as error:  # noqa: BLE001  # a driver's fault must not keep the rest from being made safe
            written, failure = {}, f"internal error in the driver: {type(error).__name__}: {error}"
        self._written |= written
        for name in names:
            outcome = self.outcomes[name]
            outcome.reached, outcome.reason = name in written, failure
            if name in self._unverified:
                outcome.verified = False
            elif outcome.reached:
                self._judge(outcome, f"not read back {self._late}")

    def _judge(self, outcome: PointOutcome, differs: str) -> None:
        if self._points[outcome.point].readable:
            outcome.verified, outcome.reason = not differs, differs
        else:
            outcome.reason = ""

    async def verify(self) -> None:
        """Reads back what was written and can be read, until it is so or the time is over."""
        written = {
            name: value
            for name, value in self._written.items()
            if self._points[name].readable and name not in self._unverified
        }
        while written:
            differs = await self._differing(written)
            for name in written:
                self._judge(self.outcomes[name], differs.get(name, ""))
            if not differs:
                return
            # A device may show late what it was told.
            await asyncio.sleep(READ_AGAIN_S)

    async def _differing(self, written: Mapping[str, Value]) -> Mapping[str, str]:
        try:
            return (await read_back(self._device, written)).differs
        except DriverError as error:
            return dict.fromkeys(written, f"written, but not read back: {error}")
        except Exception as error:  # noqa: BLE001  # as above
            return dict.fromkeys(written, f"written, but not read back: {type(error).__name__}: {error}")
