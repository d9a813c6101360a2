"""What a bus says of itself: state, error counters, load and loss, for points and for `call status`."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from protocols.base import Quality, Sample, Value
from protocols.can.bus import Bus, BusStatus
from protocols.can.config import CanDevice
from protocols.can.frame import Frame
from protocols.can.load import Load
from protocols.can.point import BusFigure

_LOAD_LEAST_S = 0.1
"""Least time over which a load is measured."""


class Figures:
    """Measures one bus."""

    def __init__(self, device: CanDevice, bus: Bus) -> None:
        self._bus = bus
        self._connection = device.connection
        self.points: Mapping[str, BusFigure] = {
            name: point.bus for name, point in device.points.items() if point.bus is not None
        }
        self.wants_load = "load" in self.points.values()
        """Whether every frame has to be seen, so that the load can be known."""
        self._load: Load | None = None
        self._since = self._opened = 0.0
        self._last: float | None = None
        self._shown: tuple[float, float] | None = None
        """When `ratio` was last asked for, and for how long the bus had been in use then."""

    def restart(self) -> None:
        """Begins anew with a bus that was just opened."""
        status = self._bus.status()
        bitrate = status.bitrate or self._connection.bitrate
        self._load = self._last = self._shown = None
        if self.wants_load and bitrate is not None:
            self._load = Load(bitrate, status.data_bitrate or self._connection.data_bitrate)
            self._since = self._opened = asyncio.get_running_loop().time()

    def count(self, batch: Sequence[Frame]) -> None:
        """Counts frames for the load."""
        if self._load is not None:
            for frame in batch:
                self._load.add(frame)

    def sample(self, names: Sequence[str] | None = None) -> Sample:
        """The points of the bus, or some of them, now."""
        found = self._found(self._bus.status())
        figures = {name: found[self.points[name]] for name in (self.points if names is None else names)}
        values = {name: value for name, value in figures.items() if value is not None}
        # What the interface cannot tell is not zero. A load not measured yet is no report, but an answer.
        bad = {name: Quality.DEVICE_ERROR for name, value in figures.items() if value is None}
        for name in [name for name in bad if self.points[name] == "load" and self._load is not None]:
            if names is None:
                del bad[name]
            else:
                bad[name] = Quality.TIMEOUT
        return Sample(time.time_ns(), values, bad)

    def ratio(self) -> float | None:
        """The share of the time since it was last asked for, or since the bus was opened, that frames took.

        None where it is not known: no point of the profile is the load, so that not every frame is seen, or
        nobody says the bit rate.
        """
        if self._load is None:
            return None
        now, busy = asyncio.get_running_loop().time(), self._load.busy_s
        since, before = self._shown or (self._opened, 0.0)
        self._shown = (now, busy)
        return min(1.0, (busy - before) / (now - since)) if now > since else 0.0

    def described(self) -> dict[str, Any]:
        """All figures, and the bit rates, for `call status`; null for what is not known."""
        status = self._bus.status()
        rates = {"bitrate": status.bitrate, "data_bitrate": status.data_bitrate}
        return {name.replace("-", "_"): value for name, value in self._found(status).items()} | rates

    def _found(self, status: BusStatus) -> Mapping[BusFigure, Value | None]:
        return {
            "state": str(status.state),
            "load": self._take_load(),
            "tx-errors": status.tx_errors,
            "rx-errors": status.rx_errors,
            "restarts": status.restarts,
            "dropped": status.dropped,
        }

    def _take_load(self) -> float | None:
        """Percent since it was last measured; what was measured a moment ago is said again."""
        if self._load is None:
            return None
        now = asyncio.get_running_loop().time()
        if now - self._since >= _LOAD_LEAST_S:
            self._last = round(self._load.take(now - self._since), 2)
            self._since = now
        return self._last
