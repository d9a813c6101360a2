"""KubeEdge's device twins, spoken to over the broker beside EdgeCore as an application there does.

EdgeCore's device twin module keeps of each property what was reported (`actual`) and what is wanted
(`expected`). A mapper reports and follows; we read what was reported and say what is wanted. Topics and
payloads: KubeEdge, edge/pkg/devicetwin (dtcommon/common.go, dttype/types.go, dtmanager/twin.go).
"""

import asyncio
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.base import DeviceState, DriverError, Quality, Refused, Sample, Value
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.encodings import UnreadableError, json_of
from protocols.mqtt.message import Host, Message, Publication, Subscription
from protocols.units import format_duration

PREFIX: Final = "$hw/events/device/"
_LATEST_MS = 253402300799999  # the last millisecond of the year 9999
_SENDABLE = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,512}")
_GONE = ("offline",)
_HERE = ("online", "ok")


def text_of(value: Value) -> str:
    """A value as twins hold it: always a text.

    Raises:
        Refused: `out-of-range`: EdgeCore takes no such text (ValidateTwinValue of dtcommon/util.go), and says
            so on no topic of the device.
    """
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode().replace("e+", "e")
    if not _SENDABLE.fullmatch(text):
        allowed = "up to 512 letters, digits and - _ . , : / @ #"
        raise Refused("out-of-range", f"{text!r:.60} is no value of a KubeEdge twin, which is {allowed}")
    return text


class KubeEdge:
    """The `Payloads` of a device with `payload: kubeedge`."""

    def __init__(self, device: MqttDevice) -> None:
        assert device.kubeedge is not None
        self.will: Publication | None = None
        self._device = device
        self._what = f"twin of {device.kubeedge.device}"
        self._base = f"{PREFIX}{device.kubeedge.device}/"
        self._host: Host | None = None
        self._first: asyncio.TimerHandle | None = None
        self._answers: dict[str, asyncio.Future[Mapping[str, Any] | None]] = {}
        self._twins: set[str] | None = None
        self._seen: dict[str, tuple[str, int | None]] = {}
        self._latest: dict[str, Value | Quality] = {}
        self._times: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._skipped: Counter[str] = Counter()
        self._device_state = ""
        self._asking: asyncio.Task[None] | None = None

    def subscriptions(self) -> Sequence[Subscription]:
        """What EdgeCore answers and reports."""
        topics = ("twin/get/result", "twin/update/result", "twin/update/document", "state/update/result")
        return [Subscription(self._base + topic, self._device.qos) for topic in topics]

    async def begin(self, host: Host) -> None:
        """Asks for the twin as it is.

        Raises:
            DriverError: the broker cannot be spoken to.
        """
        self._host = host
        host.state(DeviceState.DEGRADED, f"{self._what} has not been read")
        self._first = asyncio.get_running_loop().call_later(self._device.timeout, self._unanswered)
        await host.publish(self._get(uuid.uuid4().hex))

    async def end(self) -> None:
        """Lets go of what waits."""
        if self._first is not None:
            self._first.cancel()
        if self._asking is not None:
            self._asking.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(None)

    def _get(self, event_id: str) -> Publication:
        return self._publication("twin/get", {"event_id": event_id})

    def _publication(self, topic: str, content: dict[str, Any]) -> Publication:
        payload = {**content, "timestamp": time.time_ns() // 1_000_000}
        return Publication(self._base + topic, msgspec.json.encode(payload), self._device.qos)

    def _linked(self) -> Host:
        if self._host is None:
            raise DriverError("disconnected", f"{self._what}: there is no session with the broker")
        return self._host

    def _unanswered(self) -> None:
        if self._twins is None:
            self._all_bad(Quality.DISCONNECTED, time.time_ns(), f"{self._what}: EdgeCore does not answer")

    # -- what comes -------------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Takes what EdgeCore says."""
        topic = message.topic.removeprefix(self._base)
        if len(message.payload) > self._device.max_payload:
            self._drop("too-large")
            return
        try:
            said = json_of(message.payload)
        except UnreadableError:
            said = None
        if not isinstance(said, dict):
            self._drop()
            return
        if topic == "state/update/result":
            self._state_said(said, message)
        elif topic in ("twin/get/result", "twin/update/result"):
            self._answered(topic, said, message)
        elif topic == "twin/update/document":
            twins = _mapping(said.get("twin"))
            self._take_twins(
                {name: _mapping(one).get("current") for name, one in twins.items()}, said, message
            )

    def _drop(self, reason: str = "malformed") -> None:
        self._skipped[reason] += 1
        self._linked().lost(1, reason)

    def _answered(self, topic: str, said: dict[str, Any], message: Message) -> None:
        answer = self._answers.get(str(said.get("event_id")))
        if answer is not None and not answer.done():
            answer.set_result(said)
        if topic == "twin/update/result":
            return  # what it changed comes as a document
        if isinstance(said.get("twin"), dict):
            self._take_all(said["twin"], said, message)
        elif "code" in said:
            reason = f"{self._what}: EdgeCore says {said.get('reason')!r:.200}"
            self._all_bad(Quality.DISCONNECTED, message.time_ns, reason)
        else:
            self._drop()

    def _take_all(self, twins: dict[str, Any], said: dict[str, Any], message: Message) -> None:
        """The whole twin: what it does not have does not exist."""
        self._twins = set(twins)
        if self._device_state not in _GONE:  # else what was reported is of before
            self._take_twins(twins, said, message)
        missing = {n: p.property for n, p in self._device.points.items() if p.property not in twins}
        bad = {n: Quality.BAD_CONFIG for n in missing if self._device.points[n].readable}
        self._emit(message.time_ns, {}, bad)
        if missing:
            names = ", ".join(sorted({str(name) for name in missing.values()})[:3])
            self._linked().state(DeviceState.DEGRADED, f"{self._what} has no property {names}")
        elif self._device_state not in _GONE:
            self._linked().state(DeviceState.ONLINE)

    def _take_twins(self, twins: Mapping[str, Any], said: dict[str, Any], message: Message) -> None:
        """Those that were reported anew; a change of `expected` repeats what was reported before."""
        for name, point in self._device.points.items():
            if point.property is None or point.property not in twins or not point.readable:
                continue
            actual = _mapping(_mapping(twins[point.property]).get("actual"))
            text, reported_ms = actual.get("value"), _mapping(actual.get("metadata")).get("timestamp")
            if text is None:
                if name not in self._latest:
                    self._emit(message.time_ns, {}, {name: Quality.DISCONNECTED})
                continue
            seen = (str(text), reported_ms if isinstance(reported_ms, int) else None)
            if self._seen.get(name) == seen and not isinstance(self._latest.get(name), Quality):
                continue
            self._seen[name] = seen
            value = self._value(name, text)
            time_ns = _time(reported_ms, said.get("timestamp"), message)
            if isinstance(value, Quality):
                self._emit(time_ns, {}, {name: value})
            else:
                self._emit(time_ns, {name: value}, {})
        self._changed.set()

    def _value(self, name: str, text: Any) -> Value | Quality:
        point = self._device.points[name]
        raw = text
        if point.kind in ("array", "object") and isinstance(text, str):
            try:
                raw = json_of(text.encode())
            except UnreadableError:
                raw = None
        value = point.engineering(raw)
        if value is Quality.BAD_CONFIG:
            self._skipped["other-type"] += 1
        return value

    def _state_said(self, said: dict[str, Any], message: Message) -> None:
        self._device_state = str(_mapping(said.get("device")).get("state", "")).lower()
        if self._device_state in _HERE:
            self._refresh()
        elif self._device_state in _GONE:
            self._all_bad(Quality.DISCONNECTED, message.time_ns, f"{self._what}: the device is offline")
        elif self._device_state:
            word = self._device_state
            self._linked().state(DeviceState.DEGRADED, f"{self._what}: the device is {word:.60}")
        else:
            self._drop()

    def _refresh(self) -> None:
        """Asks for the twin of a device that is back; the answer makes it online."""

        async def ask() -> None:
            try:
                await self._linked().publish(self._get(uuid.uuid4().hex))
            except DriverError:
                self._skipped["not-published"] += 1  # the lost link ends the session, and the next one asks

        self._asking = asyncio.get_running_loop().create_task(ask(), name=f"{self._what}: get")

    def _all_bad(self, quality: Quality, time_ns: int, reason: str) -> None:
        readable = [name for name, point in self._device.points.items() if point.readable]
        self._emit(time_ns, {}, dict.fromkeys(readable, quality))
        self._linked().state(DeviceState.DEGRADED, reason)

    def _emit(self, time_ns: int, values: dict[str, Value], bad: dict[str, Quality]) -> None:
        if values or bad:
            self._latest.update({**values, **bad})
            self._times.update(dict.fromkeys((*values, *bad), time_ns))
            self._linked().sample(Sample(time_ns, values, bad))

    # -- commands ---------------------------------------------------------------------------------------

    async def _ask(self, publication: Publication, event_id: str) -> Mapping[str, Any]:
        """EdgeCore's answer to what has this event_id.

        Raises:
            DriverError: `timeout`: there was none; `device-error`: it says no.
        """
        answer: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._answers[event_id] = answer
        try:
            await self._linked().publish(publication)
            async with asyncio.timeout(self._device.timeout):
                said = await answer
        except TimeoutError:
            text = f"{self._what}: EdgeCore did not answer in {format_duration(self._device.timeout)}"
            raise DriverError("timeout", f"{text}; whether it took it is not known") from None
        finally:
            del self._answers[event_id]
        if said is None:
            text = (
                f"{self._what}: the link was lost before EdgeCore answered; whether it took it is not known"
            )
            raise DriverError("disconnected", text)
        if "code" in said:
            raise DriverError("device-error", f"{self._what}: EdgeCore says {said.get('reason')!r:.200}")
        return said

    async def read(self, points: Sequence[str]) -> Sample:
        """Asks for the twin, and gives what was reported of the points, with the oldest of its times.

        Raises:
            DriverError: EdgeCore did not answer, or said no; `disconnected`: not one has a value.
        """
        event_id = uuid.uuid4().hex
        await self._ask(self._get(event_id), event_id)
        latest = {name: self._latest.get(name, Quality.DISCONNECTED) for name in points}
        values = {name: value for name, value in latest.items() if not isinstance(value, Quality)}
        if not values:
            raise DriverError("disconnected", f"{self._what}: nothing was reported of {', '.join(points)}")
        bad = {name: value for name, value in latest.items() if isinstance(value, Quality)}
        return Sample(min(self._times[name] for name in values), values, bad)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Sets what is wanted, and waits until the device reports it of the points that are read.

        `ok` says of a point that is `wo` that EdgeCore keeps it as wanted, of one that is `rw` that the
        device reports it.

        Raises:
            Refused: a value that twins cannot hold; nothing was sent.
            DriverError: EdgeCore did not answer, or said no; `verify-mismatch`: it keeps it as wanted, and
                the device does not report it within `timeout`.
        """
        wanted = {}
        for name, value in values.items():
            point = self._device.points[name]
            if self._twins is None or point.property not in self._twins:
                # EdgeCore would make a twin of any name
                text = f"{self._what} has no property {point.property} that we know of"
                raise DriverError("device-error", f"{text}; nothing was published")
            wanted[point.property] = {"expected": {"value": text_of(point.raw(value))}}
        event_id = uuid.uuid4().hex
        update = self._publication("twin/update", {"event_id": event_id, "twin": wanted})
        await self._ask(update, event_id)
        waiting: list[str] = []
        try:
            async with asyncio.timeout(self._device.timeout):
                while waiting := [
                    name
                    for name, value in values.items()
                    if self._device.points[name].readable and self._latest.get(name) != value
                ]:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            limit = format_duration(self._device.timeout)
            text = f"EdgeCore keeps it as wanted; the device does not report {', '.join(waiting)} as written"
            raise DriverError("verify-mismatch", f"{text} in {limit}", values, waiting) from None
        return Sample(time.time_ns(), dict(values))

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """A twin has no methods of its own.

        Raises:
            Refused: always.
        """
        raise Refused("unknown-op", f"a kubeedge device has no method {method!r:.60}")

    def status(self) -> Mapping[str, Any]:
        """What is known of the twin, and what was skipped, by reason."""
        return {
            "twins": sorted(self._twins or ()),
            "state": self._device_state or "unknown",
            "skipped": dict(self._skipped),
        }


def _mapping(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, dict) else {}


def _time(reported_ms: Any, said_ms: Any, message: Message) -> int:
    for milliseconds in (reported_ms, said_ms):
        if type(milliseconds) is int and 0 < milliseconds <= _LATEST_MS:
            return milliseconds * 1_000_000
    return message.time_ns
