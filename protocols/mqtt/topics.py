"""Devices with topics of their own: JSON, text or binary numbers, on the topics that the profile names."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.base import DeviceState, DriverError, Quality, Refused, Sample, Value
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.encodings import UnreadableError, decoded, json_of, text_of, time_ns
from protocols.mqtt.message import Host, Message, Publication, Subscription
from protocols.mqtt.paths import MISSING, Step, follow, steps_of
from protocols.mqtt.plan import feeds, points_of, subscriptions_of
from protocols.mqtt.point import MqttPoint
from protocols.mqtt.writes import publish_values

_TOPICS: Final = 10_000
"""Topics of which it is remembered whom they feed: a hostile device could name ever new ones."""


class _Feed(msgspec.Struct, frozen=True):
    """A point that a topic feeds, as far as it can be worked out beforehand."""

    name: str
    point: MqttPoint
    path: tuple[Step, ...]
    time_path: tuple[Step, ...] | None


class _Said(msgspec.Struct, frozen=True):
    """What was last heard of a point."""

    value: Value | Quality
    time_ns: int


class Topics:
    """Implements `protocols.mqtt.message.Payloads`.

    `had` outlives it: the points whose path some message had. Until then a message that lacks it says that
    the profile may be wrong; afterwards, that nothing changed.
    """

    def __init__(self, device: MqttDevice, had: set[str]) -> None:
        self._device = device
        self._had = had
        own = device.will
        self.will = None if own is None else Publication(own.topic, own.offline.encode(), own.qos, own.retain)
        self._subscriptions = subscriptions_of(device)
        self._feeds: dict[str, tuple[_Feed, ...]] = {}
        self._host: Host | None = None
        self._said: dict[str, _Said] = {}
        self._heard: dict[str, float] = {}
        self._due: dict[str, Value] = {}
        """Values that were published, until the device says them or a reading has waited for them."""
        self._news = asyncio.Event()
        self._offline = ""
        self._untaken: Counter[str] = Counter()
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # -- Payloads -------------------------------------------------------------------------------

    def subscriptions(self) -> Sequence[Subscription]:
        """One for each topic that no other one covers."""
        return self._subscriptions

    async def begin(self, host: Host) -> None:
        """Says that we are there, where the profile wants that, and what the broker refused."""
        self._host = host
        for one in self._subscriptions:
            if one.filter in host.refused and (names := points_of(self._device, one.filter)):
                self._give(time.time_ns(), dict.fromkeys(names, Quality.BAD_CONFIG))
        if self._device.presence is not None:
            self._offline = f"nothing was said yet on {self._device.presence.topic}, its presence"
        self._tell_state()
        now = self._loop.time()
        points = self._device.points.items()
        self._heard = {name: now for name, point in points if point.stale_after and point.readable}
        self._look_for_silence()
        if (own := self._device.will) is not None:
            await host.publish(Publication(own.topic, own.online.encode(), own.qos, own.retain))

    def take(self, message: Message) -> None:
        """Takes values out of a message; what cannot be read is bad, and counted by its reason."""
        presence = self._device.presence
        known = presence is not None and message.topic == presence.topic
        if known:
            self._take_presence(message)
        feeds_ = self._feeds.get(message.topic)
        if feeds_ is None:
            feeds_ = self._feeds_of(message.topic)
        if message.retain:
            feeds_ = tuple(one for one in feeds_ if one.point.retained == "take")
        elif not feeds_ and not known:
            self._untaken["unknown-topic"] += 1
        if feeds_:
            self._take_values(message, feeds_)

    async def read(self, points: Sequence[str]) -> Sample:
        """What was last said: values with the oldest of their times, so that none is made newer than it is.

        A value that was written is waited for, once: the device says it when it has taken it.

        Raises:
            DriverError: not one has a value; `disconnected` where the device's presence says so.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._device.timeout):
                while self._host is not None and not self._due.keys().isdisjoint(points):
                    self._news.clear()
                    await self._news.wait()
        for name in points:
            self._due.pop(name, None)
        said = {name: self._said[name] for name in points if name in self._said}
        good = {name: one.value for name, one in said.items() if not isinstance(one.value, Quality)}
        bad = {name: one.value for name, one in said.items() if isinstance(one.value, Quality)}
        bad |= {name: Quality.STALE for name in points if name not in said}
        if not good:
            if self._offline:
                raise DriverError("disconnected", f"{self._device.name}: {self._offline}")
            silent = [name for name in points if name not in said]
            text = f"{', '.join(silent)}: nothing was published since the broker was connected"
            if not silent:
                text = ", ".join(f"{name} is {quality}" for name, quality in bad.items())
            raise DriverError("device-error", f"{self._device.name}: {text}")
        return Sample(min(said[name].time_ns for name in good), good, bad)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Publishes one value after the other; the first that fails ends it.

        Raises:
            Refused: a value has no representation; nothing was published.
            DriverError: not all were written; `written` has those that were.
        """
        sample = await publish_values(self._device, self._linked(), values)
        for name, value in values.items():
            said = self._said.get(name)
            if self._device.points[name].readable and (said is None or said.value != value):
                self._due[name] = value
        return sample

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """It has no methods of its own."""
        raise Refused("unknown-op", f"a device with payload: topics has no method {method!r:.60}")

    def status(self) -> Mapping[str, Any]:
        """Whether the device is there, and messages or values not taken, by reason."""
        said: dict[str, Any] = {"not_taken": dict(self._untaken)}
        if self._device.presence is not None:
            said["presence"] = "offline" if self._offline else "online"
        return said

    async def end(self) -> None:
        """Says that we go, where the profile wants that."""
        host, self._host = self._host, None
        self._news.set()
        if self._watch is not None:
            self._watch.cancel()
        if host is not None and self.will is not None:
            await host.publish(self.will)

    # -- inside ---------------------------------------------------------------------------------

    def _linked(self) -> Host:
        if self._host is None:
            raise DriverError("disconnected", f"{self._device.name} is not connected")
        return self._host

    def _feeds_of(self, topic: str) -> tuple[_Feed, ...]:
        found = tuple(
            _Feed(
                name,
                point,
                steps_of(point.path) if point.path is not None else (),
                steps_of(point.time_path) if point.time_path is not None else None,
            )
            for name, point in self._device.points.items()
            if feeds(point, topic)
        )
        if len(self._feeds) >= _TOPICS:
            self._feeds.clear()
        self._feeds[topic] = found
        return found

    def _take_values(self, message: Message, feeds_: Sequence[_Feed]) -> None:
        """All points that a message feeds, its payload parsed once for each encoding."""
        if len(message.payload) > self._device.max_payload:
            self._untaken["too-large"] += 1
            self._give(message.time_ns, dict.fromkeys((one.name for one in feeds_), Quality.DEVICE_ERROR))
            return
        parsed: dict[tuple[str, int], Any] = {}
        takes: dict[int, dict[str, Value | Quality]] = {}
        for one in feeds_:
            point = one.point
            key = point.encoding, point.offset_bytes
            if key not in parsed:
                try:
                    parsed[key] = decoded(point.encoding, message.payload, point.offset_bytes)
                except UnreadableError as error:
                    self._untaken[str(error)] += 1
                    parsed[key] = Quality.DEVICE_ERROR
            document = parsed[key]
            at_ns = message.time_ns
            if one.time_path is not None and not isinstance(document, Quality):
                at_ns = self._time(document, one.time_path, point.time_unit, at_ns)
            if (value := self._value(document, one)) is not None:
                takes.setdefault(at_ns, {})[one.name] = value
        for at_ns, values in takes.items():
            self._give(at_ns, values)

    def _value(self, document: Any, one: _Feed) -> Value | Quality | None:
        """None: the message says nothing of the point."""
        if isinstance(document, Quality):
            return document
        raw = follow(document, one.path) if one.path else document
        if raw is MISSING:
            if one.name in self._had:
                return None
            self._untaken["no-path"] += 1
            return Quality.BAD_CONFIG
        self._had.add(one.name)
        if raw is None:
            self._untaken["null"] += 1
            return Quality.DEVICE_ERROR
        value = one.point.engineering(raw)
        if isinstance(value, Quality):
            self._untaken[_REASONS.get(value, value)] += 1
        return value

    def _time(self, document: Any, path: tuple[Step, ...], unit: str, arrived: int) -> int:
        try:
            return time_ns(follow(document, path), unit)
        except UnreadableError as error:
            self._untaken[str(error)] += 1
            return arrived

    def _give(self, at_ns: int, takes: Mapping[str, Value | Quality]) -> None:
        now = self._loop.time()
        for name, value in takes.items():
            self._said[name] = _Said(value, at_ns)
            if self._due and self._due.get(name) == value:
                del self._due[name]
            if name in self._heard:
                self._heard[name] = now
        good = {name: value for name, value in takes.items() if not isinstance(value, Quality)}
        bad = {name: value for name, value in takes.items() if isinstance(value, Quality)}
        self._news.set()
        if self._host is not None:
            self._host.sample(Sample(at_ns, good, bad))

    def _take_presence(self, message: Message) -> None:
        presence = self._device.presence
        assert presence is not None
        try:
            word: Any = message.payload.decode() if presence.path is None else json_of(message.payload)
        except (UnicodeDecodeError, UnreadableError):
            word = MISSING
        if presence.path is not None and word is not MISSING:
            word = follow(word, steps_of(presence.path))
        text = text_of(word) if word is not MISSING else None
        if text == text_of(presence.online):
            offline = ""
        elif text == text_of(presence.offline):
            offline = f"it said {text!r:.60} on {presence.topic}, or its last will did"
        else:
            self._untaken["unknown-presence"] += 1
            return
        if offline and offline != self._offline:
            names = [name for name, point in self._device.points.items() if point.readable]
            self._give(message.time_ns, dict.fromkeys(names, Quality.DISCONNECTED))
        self._offline = offline
        self._tell_state()

    def _tell_state(self) -> None:
        state = DeviceState.DEGRADED if self._offline else DeviceState.ONLINE
        self._linked().state(state, self._offline)

    def _look_for_silence(self) -> None:
        """Points that nothing was said of for `stale_after` are stale, once, until something is."""
        now = self._loop.time()
        stale: dict[str, Value | Quality] = {}
        later: list[float] = []
        for name, heard in self._heard.items():
            after = self._device.points[name].stale_after
            assert after is not None, "only such points are watched"
            if heard + after > now:
                later.append(heard + after)
            else:
                later.append(now + after)
                said = self._said.get(name)
                if said is None or not isinstance(said.value, Quality):
                    stale[name] = Quality.STALE
        if stale:
            self._give(time.time_ns(), stale)
        if later:
            self._watch = self._loop.call_at(min(later), self._look_for_silence)


_REASONS: Final[Mapping[Quality, str]] = {Quality.BAD_CONFIG: "wrong-type"}
"""Words for what a value that was read turned out to be, where the quality is not one."""
