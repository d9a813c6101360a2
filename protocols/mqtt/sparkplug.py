"""Sparkplug B: an edge node, or a device of one, as its births, data and deaths tell (Sparkplug 3.0.0).

Births say which metrics there are, of which types and under which aliases; data without a birth before it
mean nothing. The sequence numbers run over all messages of the edge node, so all of them are listened to.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocols.base import DeviceState, DriverError, Refused, Sample, Value
from protocols.mqtt import tahu
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.encodings import UnreadableError, json_of
from protocols.mqtt.message import Host, Message, Publication, Subscription
from protocols.mqtt.sparkplug_metrics import Metrics
from protocols.mqtt.tahu import Payload
from protocols.mqtt.tahu_values import DataType, Malformed
from protocols.units import format_duration

NAMESPACE: Final = "spBv1.0"
REBIRTH: Final = "Node Control/Rebirth"
BD_SEQ: Final = "bdSeq"
SEQUENCE: Final = 256
REORDER_S: Final = 2.0
"""How long a message may come later than its follower (the Reorder Timeout of chapter 5)."""


def state_publication(host_id: str, online: bool, time_ms: int) -> Publication:
    """What a host application says of itself, as its birth or death (Sparkplug 3.0.0, chapter 4)."""
    payload = msgspec.json.encode({"online": online, "timestamp": time_ms})
    return Publication(f"{NAMESPACE}/STATE/{host_id}", payload, 1, True)


class Sparkplug:
    """The `Payloads` of a device with `payload: sparkplug`."""

    def __init__(self, device: MqttDevice, reorder: float = REORDER_S) -> None:
        assert device.sparkplug is not None
        self._device, self._place, self._reorder = device, device.sparkplug, reorder
        self._what = f"edge node {self._place.group}/{self._place.edge_node}"
        if self._place.device is not None:
            self._what = f"device {self._place.device} of {self._what}"
        self._since_ms = time.time_ns() // 1_000_000
        self.will = state_publication(self._place.host, False, self._since_ms) if self._place.host else None
        self._host: Host | None = None
        self._ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._first: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at: float | None = None
        self._born = asyncio.Event()
        self._reborn = asyncio.Event()
        self._node_alive = False
        self._bd_seq: int | None = None
        self._next = 0
        self._early: dict[int, tuple[str, Payload, Message]] = {}
        self._skipped: Counter[str] = Counter()
        self._metrics = Metrics(device, self._skipped)
        self._said: tuple[DeviceState, str] | None = None

    # -- the session ------------------------------------------------------------------------------------

    def subscriptions(self) -> Sequence[Subscription]:
        """All that the edge node and its devices publish; and our own STATE, where we have one."""
        group, node, qos = self._place.group, self._place.edge_node, self._device.qos
        kinds = [(f"{kind}/{node}", qos) for kind in ("NBIRTH", "NDEATH", "NDATA")]
        kinds += [(f"{kind}/{node}/+", qos) for kind in ("DBIRTH", "DDEATH", "DDATA")]
        made = [Subscription(f"{NAMESPACE}/{group}/{rest}", qos) for rest, qos in kinds]
        if self._place.host is not None:
            made.append(Subscription(f"{NAMESPACE}/STATE/{self._place.host}", 1))
        return made

    async def begin(self, host: Host) -> None:
        """Says that we are there, and asks for births: brokers do not keep them.

        Raises:
            DriverError: the broker cannot be spoken to.
        """
        self._host = host
        self._say(DeviceState.DEGRADED, f"{self._what} has not been born")
        if self._place.host is not None:
            await host.publish(state_publication(self._place.host, True, self._since_ms))
        self._asked_at = asyncio.get_running_loop().time()
        await host.publish(self._rebirth())
        self._first = asyncio.get_running_loop().call_later(self._device.timeout, self._unborn)

    async def end(self) -> None:
        """Says that we are gone, and lets go of what still runs."""
        self._ended = True
        self._stop_waiting()
        if self._first is not None:
            self._first.cancel()
        for task in self._tasks:
            task.cancel()
        if self._place.host is not None and self._host is not None:
            now_ms = time.time_ns() // 1_000_000
            await self._host.publish(state_publication(self._place.host, False, now_ms))

    def _rebirth(self) -> Publication:
        topic = f"{NAMESPACE}/{self._place.group}/NCMD/{self._place.edge_node}"
        now_ms = time.time_ns() // 1_000_000
        return Publication(topic, tahu.encode([(REBIRTH, None, DataType.Boolean, True)], now_ms))

    def _ask(self) -> None:
        """Asks for births, unless that was done less than `timeout` ago."""
        now = asyncio.get_running_loop().time()
        if self._asked_at is None or now - self._asked_at >= self._device.timeout:
            self._asked_at = now
            self._publish(self._rebirth())

    def _publish(self, publication: Publication) -> None:
        async def publish() -> None:
            try:
                await self._linked().publish(publication)
            except DriverError:
                self._skipped["not-published"] += 1  # the lost link ends the session, and the next one asks

        task = asyncio.get_running_loop().create_task(publish(), name=f"sparkplug {publication.topic}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _linked(self) -> Host:
        if self._host is None:
            raise DriverError("disconnected", f"{self._what}: there is no session with the broker")
        return self._host

    def _unborn(self) -> None:
        """Nobody answered the first request for births."""
        if not self._born.is_set() and not self._ended:
            self._gone(f"{self._what} does not answer: no birth", time.time_ns())

    # -- what comes -------------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Takes a message of the edge node in the order of its sequence number."""
        if self._ended:
            return
        namespace, group, kind, *rest = (*message.topic.split("/"), "", "")
        if namespace == NAMESPACE and group == "STATE":
            self._state_said(message)
            return
        if message.retain:
            self._drop("retained")  # births and data are live; this may be years old
            return
        if len(message.payload) > self._device.max_payload:
            self._drop("too-large")
            return
        try:
            payload = tahu.parse(message.payload)
        except Malformed:
            self._drop("malformed")
            return
        if kind == "NDEATH":
            self._node_died(payload, message)
        elif payload.seq is None or payload.seq >= SEQUENCE:
            self._drop("malformed")
        elif kind == "NBIRTH":
            self._node_born(payload, message)
        else:
            self._numbered(payload.seq, f"{kind}/{rest[1] if kind[0] == 'D' else ''}", payload, message)

    def _numbered(self, seq: int, what: str, payload: Payload, message: Message) -> None:
        if not self._node_alive:
            self._drop("before-birth")
            self._ask()
        elif seq != self._next:
            self._keep(seq, what, payload, message)
        else:
            self._in_order(what, payload, message)
            while (early := self._early.pop(self._next, None)) is not None:
                self._in_order(*early)
            if not self._early:
                self._stop_waiting()

    def _drop(self, reason: str) -> None:
        self._skipped[reason] += 1
        self._linked().lost(1, reason)

    def _keep(self, seq: int, what: str, payload: Payload, message: Message) -> None:
        """Keeps what came before its predecessor, for as long as that one may still come."""
        if seq in self._early:
            self._drop("sequence")
        self._early[seq] = (what, payload, message)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._reorder, self._hole)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_early(self) -> None:
        """What waited for its predecessor waits for nothing any more: it was of another life of the node."""
        self._stop_waiting()
        if self._early:
            self._skipped["sequence"] += len(self._early)
            self._linked().lost(len(self._early), "sequence")
            self._early.clear()

    def _hole(self) -> None:
        """What is missing does not come any more. What came after it may rest on a birth that we missed."""
        self._timer = None
        if self._ended or not self._early:
            return
        missing = min((seq - self._next) % SEQUENCE for seq in self._early)
        count = missing + len(self._early)
        self._skipped["sequence"] += count
        self._linked().lost(count, "sequence")
        self._early.clear()
        self._node_alive = False
        self._born.clear()
        self._say(DeviceState.DEGRADED, f"messages of {self._what} are missing; it was asked for a rebirth")
        self._ask()

    def _in_order(self, what: str, payload: Payload, message: Message) -> None:
        self._next = ((payload.seq or 0) + 1) % SEQUENCE
        kind, _, name = what.partition("/")
        if name != (self._place.device or ""):
            return
        if kind == "DBIRTH":
            self._birth(payload, message)
        elif kind == "DDEATH":
            self._gone(f"{self._what} died", message.time_ns)
        elif not self._born.is_set():
            self._drop("before-birth")
            self._ask()
        elif kind in ("NDATA", "DDATA"):
            self._values(payload, message)

    def _node_born(self, payload: Payload, message: Message) -> None:
        self._forget_early()
        self._node_alive, self._asked_at = True, None
        self._next = ((payload.seq or 0) + 1) % SEQUENCE
        self._bd_seq = _bd_seq(payload)
        self._born.clear()
        if self._place.device is None:
            self._birth(payload, message)
        else:
            # its DBIRTH follows; until then what the device's points are is not known
            self._say(DeviceState.DEGRADED, f"{self._what} has not been born")

    def _node_died(self, payload: Payload, message: Message) -> None:
        """A death counts where its bdSeq is that of the birth: an old will may come late."""
        bd_seq = _bd_seq(payload)
        if self._node_alive and None not in (bd_seq, self._bd_seq) and bd_seq != self._bd_seq:
            self._skipped["old-death"] += 1
            return
        self._forget_early()
        self._node_alive = False
        self._gone(f"{self._what}: the edge node died", message.time_ns)

    def _birth(self, payload: Payload, message: Message) -> None:
        missing = self._metrics.born(payload)
        self._born.set()
        self._reborn.set()
        self._values(payload, message)
        if missing:
            self._sample(self._metrics.unborn(missing, message.time_ns))
            self._say(DeviceState.DEGRADED, f"{self._what} has no metric {', '.join(missing[:3])}")
        else:
            self._say(DeviceState.ONLINE, "")

    def _values(self, payload: Payload, message: Message) -> None:
        for sample in self._metrics.samples(payload, message):
            self._sample(sample)

    def _sample(self, sample: Sample | None) -> None:
        if sample is not None:
            self._linked().sample(sample)

    def _gone(self, reason: str, time_ns: int) -> None:
        self._born.clear()
        self._sample(self._metrics.gone(time_ns))
        self._say(DeviceState.DEGRADED, reason)

    def _say(self, state: DeviceState, reason: str) -> None:
        if self._said != (state, reason):
            self._said = (state, reason)
            self._linked().state(state, reason)

    def _state_said(self, message: Message) -> None:
        """An old will of ours may say that we are gone: then it is said anew that we are there."""
        try:
            said = json_of(message.payload)
        except UnreadableError:
            said = None
        online = isinstance(said, dict) and said.get("online") is True
        if not online and self._place.host is not None:
            self._publish(state_publication(self._place.host, True, self._since_ms))

    # -- commands ---------------------------------------------------------------------------------------

    async def read(self, points: Sequence[str]) -> Sample:
        """What was last said of the points, with the oldest of its times.

        Raises:
            DriverError: `disconnected`: nothing was.
        """
        why = self._said[1] if self._said and self._said[1] else f"{self._what} has not said a value"
        return self._metrics.read(points, why)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Publishes a command, and waits until the device reports the values of the points that are read.

        Nobody answers a command, which goes by QoS 0. `ok` says of a point that is `wo` that it went out, of
        one that is `rw` that the device shows the value.

        Raises:
            Refused: the metric's type cannot hold a value; nothing was sent.
            DriverError: `disconnected` or `device-error`: nothing was sent; `verify-mismatch`: it went out,
                and the device does not show it within `timeout`.
        """
        if not self._born.is_set():
            raise DriverError("disconnected", f"{self._what} has not been born; nothing was published")
        payload, waiting = self._metrics.command(values)
        place = self._place
        topic = f"{NAMESPACE}/{place.group}/{'DCMD' if place.device else 'NCMD'}/{place.edge_node}"
        topic += f"/{place.device}" if place.device else ""
        self._metrics.writes.append(waiting)
        try:
            await self._linked().publish(Publication(topic, payload))
            if waiting.wanted:
                async with asyncio.timeout(self._device.timeout):
                    await waiting.done.wait()
        except TimeoutError:
            text = (
                f"the command went out; {self._what} does not report {', '.join(waiting.wanted)} as written"
            )
            text += f" in {format_duration(self._device.timeout)}"
            raise DriverError("verify-mismatch", text, values, list(waiting.wanted)) from None
        finally:
            self._metrics.writes.remove(waiting)
        return Sample(time.time_ns(), dict(values))

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """`rebirth`: asks for births and waits for them.

        Raises:
            Refused: another method, or arguments.
            DriverError: `timeout`: there was none.
        """
        if method != "rebirth":
            raise Refused("unknown-op", f"a sparkplug device has no method {method!r:.60}; it has rebirth")
        if args:
            raise Refused("malformed", "rebirth takes no arguments")
        self._reborn.clear()  # not `_born`: until the new birth comes, what it says still means something
        await self._linked().publish(self._rebirth())
        try:
            async with asyncio.timeout(self._device.timeout):
                await self._reborn.wait()
        except TimeoutError:
            text = f"{self._what} was asked for a rebirth and was not born in"
            raise DriverError("timeout", f"{text} {format_duration(self._device.timeout)}") from None
        return {"metrics": len(self._metrics.types), "bd_seq": self._bd_seq}

    def status(self) -> Mapping[str, Any]:
        """What is known of the device, and what was skipped, by reason."""
        return {
            "born": self._born.is_set(),
            "edge_node_alive": self._node_alive,
            "bd_seq": self._bd_seq,
            "next_sequence": self._next,
            "metrics": len(self._metrics.types),
            "waiting": len(self._early),
            "skipped": dict(self._skipped),
        }


def _bd_seq(payload: Payload) -> int | None:
    """The number that ties a death to its birth, as an Int64 or (before 3.0) a UInt64."""
    for metric in payload.metrics:
        if metric.name == BD_SEQ:
            try:
                value = metric.value(DataType.UInt64)
            except Malformed:
                return None
            return value if isinstance(value, int) else None
    return None
