"""The metrics of an edge node or device as its birth defined them: values of points, and commands. Pure."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from protocols.base import DriverError, Quality, Refused, Sample, Value
from protocols.mqtt import tahu
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Message
from protocols.mqtt.tahu import Metric, Payload
from protocols.mqtt.tahu_values import LATEST_MS, Malformed, integers

_GOOD = 192
_STALE = 500


class Waiting:
    """A write whose metrics have to show the values that were asked for."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        """What is not yet shown, by point."""
        self.done = asyncio.Event()

    def see(self, point: str, raw: Any) -> None:
        """Takes what the device reports of a point."""
        if point in self.wanted and self.wanted[point] == raw:
            del self.wanted[point]
        if not self.wanted:
            self.done.set()


class Metrics:
    """What was born, under which names, aliases and types, and what was last said of it."""

    def __init__(self, device: MqttDevice, skipped: Counter[str]) -> None:
        self.types: dict[str, int] = {}
        """Data types by name of the metric, from the birth."""
        self._aliases: dict[int, str] = {}
        self._device, self._skipped = device, skipped
        self._points: dict[str, list[str]] = {}
        for name, point in device.points.items():
            self._points.setdefault(point.metric or "", []).append(name)
        self._readable = [name for name, point in device.points.items() if point.readable]
        self._latest: dict[str, tuple[int, Value | Quality]] = {}
        self._raw: dict[str, Any] = {}
        self.writes: list[Waiting] = []

    def born(self, payload: Payload) -> list[str]:
        """Takes what a birth defines; returns the profile's metrics that it does not have."""
        self.types, self._aliases = {}, {}
        for metric in payload.metrics:
            if metric.name is None or metric.datatype is None:
                self._skipped["malformed-metric"] += 1
                continue
            self.types[metric.name] = metric.datatype
            if metric.alias is not None:
                self._aliases[metric.alias] = metric.name
        return [name for name in self._points if name not in self.types]

    def samples(self, payload: Payload, message: Message) -> list[Sample]:
        """The values of a birth or of data: one sample for each time that it has, in its order."""
        groups: list[tuple[int, dict[str, Value], dict[str, Quality]]] = []
        for metric in payload.metrics:
            name = self._name(metric)
            if name not in self.types:
                self._skipped["unknown-metric"] += 1
                continue
            for point in self._points.get(name, ()):
                if not self._device.points[point].readable:
                    continue
                time_ns = self._time(metric, payload, message)
                value = self._value(point, metric, self.types[name])
                if not groups or groups[-1][0] != time_ns or point in groups[-1][1] or point in groups[-1][2]:
                    groups.append((time_ns, {}, {}))
                if isinstance(value, Quality):
                    groups[-1][2][point] = value
                else:
                    groups[-1][1][point] = value
                if not metric.historical:
                    self._latest[point] = (time_ns, value)
        return [Sample(*group) for group in groups]

    def unborn(self, names: Sequence[str], time_ns: int) -> Sample | None:
        """The points of metrics that the birth did not have."""
        points = [point for name in names for point in self._points[name]]
        return self._all_bad([one for one in points if one in self._readable], Quality.BAD_CONFIG, time_ns)

    def gone(self, time_ns: int) -> Sample | None:
        """All points, when the device has died."""
        self._raw.clear()
        return self._all_bad(self._readable, Quality.DISCONNECTED, time_ns)

    def _all_bad(self, points: Sequence[str], quality: Quality, time_ns: int) -> Sample | None:
        self._latest.update(dict.fromkeys(points, (time_ns, quality)))
        return Sample(time_ns, {}, dict.fromkeys(points, quality)) if points else None

    def _name(self, metric: Metric) -> str:
        if metric.name is not None:
            return metric.name
        return "" if metric.alias is None else self._aliases.get(metric.alias, "")

    def _time(self, metric: Metric, payload: Payload, message: Message) -> int:
        said = payload.time_ms if metric.time_ms is None else metric.time_ms
        if said is not None and 0 < said <= LATEST_MS:
            return said * 1_000_000
        self._skipped["no-time"] += 1
        return message.time_ns

    def _value(self, point: str, metric: Metric, datatype: int) -> Value | Quality:
        """A null has no value; quality 500 is stale, and all but 192 bad (chapter 6, Quality Codes)."""
        if metric.null:
            return Quality.DEVICE_ERROR
        if metric.datatype is not None and metric.datatype != datatype:
            self._skipped["other-type"] += 1
            return Quality.BAD_CONFIG
        try:
            raw = metric.value(datatype)
        except Malformed:
            self._skipped["malformed-metric"] += 1
            return Quality.BAD_CONFIG
        if metric.quality == _STALE:
            return Quality.STALE
        if metric.quality not in (None, _GOOD):
            return Quality.DEVICE_ERROR
        if not metric.historical:
            self._raw[point] = raw
            for waiting in self.writes:
                waiting.see(point, raw)
        return self._device.points[point].engineering(raw)

    def read(self, points: Sequence[str], why: str) -> Sample:
        """What was last said of the points, with the oldest of its times.

        Raises:
            DriverError: `disconnected`, with `why`: not one has a value.
        """
        known = {name: self._latest[name] for name in points if name in self._latest}
        values = {name: value for name, (_, value) in known.items() if not isinstance(value, Quality)}
        if not values:
            raise DriverError("disconnected", why)
        bad = {name: known[name][1] if name in known else Quality.DISCONNECTED for name in points}
        return Sample(
            min(known[name][0] for name in values),
            values,
            {name: quality for name, quality in bad.items() if isinstance(quality, Quality)},
        )

    def command(self, values: Mapping[str, Value]) -> tuple[bytes, Waiting]:
        """The payload of a command, and what the device has to show for it.

        Raises:
            Refused: `out-of-range`: the metric's type cannot hold a value.
            DriverError: `device-error`: the device has no such metric.
        """
        metrics: list[tuple[str | None, int | None, int, Any]] = []
        for name, value in values.items():
            metric = self._device.points[name].metric or ""
            if metric not in self.types:
                raise DriverError("device-error", f"it has no metric {metric}; nothing was published")
            raw, datatype = self._device.points[name].raw(value), self.types[metric]
            if isinstance(raw, float) and raw.is_integer() and integers(datatype) is not None:
                raw = int(raw)
            metrics.append((metric, None, datatype, raw))
        try:
            payload = tahu.encode(metrics, time.time_ns() // 1_000_000)
        except Malformed as error:
            raise Refused("out-of-range", f"{error}; nothing was published") from error
        wanted = {}
        for name, metric_sent in zip(values, tahu.parse(payload).metrics, strict=True):
            raw = metric_sent.value(metric_sent.datatype or 0)
            if self._device.points[name].readable and not (name in self._raw and self._raw[name] == raw):
                wanted[name] = raw
        return payload, Waiting(wanted)
