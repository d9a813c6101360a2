"""The driver of an OPC UA server: its session, and what is reported or read in it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from protocols.base import DeviceState, DriverError, Quality, Sample, Sink, Value
from protocols.opcua.calls import carry_out
from protocols.opcua.codec import Codec
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.items import Item, Readings, part_of, reasons, refused
from protocols.opcua.plan import AT_ONCE, monitored, pieces, polls_of
from protocols.opcua.publishing import Subscriptions
from protocols.opcua.session import Session
from protocols.opcua.status import Judge
from protocols.opcua.types import NodeType, types_of
from protocols.opcua.writes import write
from protocols.schedule import Schedule

_STRUCTURED = ("object", "array", "string")
"""Kinds of points whose values may be structures or node ids: of these the server is asked for the types."""


class OpcuaDriver:
    """One server, or the part of one that the points name."""

    def __init__(self, device: OpcuaDevice) -> None:
        self._device = device
        self._session = Session(device)
        self._readings = Readings(device)
        self._subscriptions = Subscriptions(self._session, self._readings)
        self._judge = Judge(device.tolerate)
        self._codecs: dict[str, Codec] = {}
        self._items: list[Item] = []
        self._known = 0
        self._unfit: dict[str, int] = {}
        """Status codes of points of which the last read said that the profile is wrong."""
        self._mute: set[float] = set()
        """Periods of polls that the server let go unanswered the last time."""
        self._lacks = self._said = ""

    # -- life -----------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Makes a session, or takes up the one that the server still holds, and finds the points' nodes.

        Raises:
            DriverError: there is no session; the text says why.
        """
        session = self._session
        await session.open()
        if self._known == session.number:
            return
        await session.find_points()
        await asyncio.sleep(0)  # with thousands of points each of these steps takes a while
        self._codecs = await self._codecs_of(session)
        for item in self._items:
            item.codec = self._codecs[item.point.name]
        self._known = session.number

    async def _codecs_of(self, session: Session) -> dict[str, Codec]:
        device = self._device
        structured = {
            name: node
            for name, point in device.points.items()
            if point.kind in _STRUCTURED
            and point.events is None
            and isinstance(node := session.found(name), ua.NodeId)
        }
        types = dict(zip(structured, await types_of(session, list(structured.values())), strict=True))
        codecs = {}
        for piece in pieces(list(device.points.items()), 0):
            for name, point in piece:
                kind = types.get(name)
                codecs[name] = Codec(point, device.tolerate, kind if isinstance(kind, NodeType) else None)
            await asyncio.sleep(0)
        return codecs

    async def run(self, sink: Sink) -> None:
        """Takes what is reported, or polls, until cancelled.

        Raises:
            DriverError: the link was lost.
        """
        _ = self._session.services
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(), name=f"{self._device.name}: link")
                if self._device.acquisition == "poll":
                    self._poll_all(group, sink)
                else:
                    group.create_task(self._subscriptions.run(sink), name=f"{self._device.name}: publish")
                    await self._subscribe(sink)
        except* DriverError as lost:
            error: BaseException = lost
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            reason = str(error)
        raise DriverError("disconnected", reason)

    async def _until_lost(self) -> None:
        raise DriverError("disconnected", await self._session.lost())

    async def _subscribe(self, sink: Sink) -> None:
        if self._subscriptions.held():
            await self._subscriptions.restore(sink)
        else:
            await self._make_items()
            await self._subscriptions.make(self._items)
        self._readings.say_slow(self._items)
        bad, why = refused(self._items, self._judge)
        lacking, lacks = self._lacking(monitored(self._device))
        if bad := {**lacking, **bad}:
            sink.sample(Sample(time.time_ns(), {}, bad))
        self._say(sink, "; ".join(filter(None, (lacks, why))))

    async def _make_items(self) -> None:
        """An item for each point whose node the server has; its place is its client handle."""
        self._readings.forget()
        items: list[Item] = []
        self._items = items
        for piece in pieces(monitored(self._device), 0):
            for name in piece:
                node = self._session.found(name)
                if isinstance(node, ua.NodeId):
                    items.append(Item(self._device.points[name], node, self._codecs[name], len(items)))
            await asyncio.sleep(0)

    def _lacking(self, names: Sequence[str]) -> tuple[Mapping[str, Quality], str]:
        """Points whose nodes the server does not have, and a sentence for people."""
        lacking: dict[str, Quality] = {}
        first = ""
        for name in names:
            try:
                self._session.node_id(name)
            except DriverError as error:
                lacking[name] = Quality.BAD_CONFIG
                first = first or str(error)
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        return lacking, first + more

    def _say(self, sink: Sink, wrong: str) -> None:
        if wrong:
            sink.state(DeviceState.DEGRADED, wrong)
        else:
            sink.state(DeviceState.ONLINE)
        self._said = wrong

    def rest(self) -> None:
        """Nothing that a client sets going is ended by it."""

    async def close(self) -> None:
        """Ends the session, unless the link was lost: then the server holds it, to be taken up again."""
        if await self._session.close():
            self._subscriptions.forget()

    # -- polling --------------------------------------------------------------------------------

    def _poll_all(self, group: asyncio.TaskGroup, sink: Sink) -> None:
        start = asyncio.get_running_loop().time()
        polls = polls_of(self._device)
        self._unfit.clear()
        self._mute.clear()
        for period, names in polls.items():
            work = self._poll(period, names, start, len(polls), sink)
            group.create_task(work, name=f"{self._device.name}: {period:g} s")
        self._lacks = self._lacking(monitored(self._device))[1]
        self._say(sink, self._lacks)

    async def _poll(self, period: float, names: Sequence[str], start: float, polls: int, sink: Sink) -> None:
        now = asyncio.get_running_loop().time
        schedule = Schedule(period, start)
        while True:
            await asyncio.sleep(schedule.due - now())
            if missed := schedule.begin(now()):
                sink.missed(missed, period)
            late: DriverError | None = None
            answered = False
            for piece in pieces(names, self._session.limits.read):
                try:
                    samples = await self._read(piece)
                    answered = True
                except DriverError as error:
                    if error.code == "disconnected":
                        raise
                    if error.code == "timeout":
                        late = error
                    else:
                        answered = True
                    samples = [Sample(time.time_ns(), {}, dict.fromkeys(piece, error.quality))]
                for sample in samples:
                    sink.sample(sample)
            if answered:
                self._mute.discard(period)
            else:
                self._mute.add(period)
            if late is not None and len(self._mute) == polls:
                raise late  # not one poll is answered: the link is as good as lost
            wrong = "; ".join(filter(None, (self._lacks, reasons(self._unfit))))
            if wrong != self._said:
                self._say(sink, wrong)

    async def _read(self, names: Sequence[str]) -> list[Sample]:
        """Present values, in as many samples as they have times.

        Raises:
            DriverError: the server did not give them.
        """
        lacking, _ = self._lacking(names)
        asked = [name for name in names if name not in lacking]
        wanted = [
            ua.ReadValueId(
                self._session.node_id(name),
                ua.IntegerId(AttributeIds.Value),
                part_of(self._device.points[name]),
            )
            for name in asked
        ]
        values = await self._session.read(wanted, ua.TimestampsToReturn.Both)
        for name, data in zip(asked, values, strict=True):
            code = data.StatusCode.value if data.StatusCode is not None else 0
            if self._judge.quality(code) is Quality.BAD_CONFIG:
                self._unfit[name] = code
            else:
                self._unfit.pop(name, None)
        codecs, now_ns = self._codecs, time.time_ns()
        known = zip(asked, values, strict=True)
        samples = self._readings.samples(((name, codecs[name], data) for name, data in known), now_ns)
        if lacking:
            samples.append(Sample(now_ns, {}, lacking))
        return samples

    # -- commands -------------------------------------------------------------------------------

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads present values now; the time is that of the newest. Events have none: they are stale.

        Raises:
            DriverError: not one point could be read.
        """
        _ = self._session.services
        events = {name: Quality.STALE for name in points if self._device.points[name].events}
        samples = await self._read([name for name in points if name not in events])
        values: dict[str, Value] = {}
        bad: dict[str, Quality] = dict(events)
        for sample in samples:
            values.update(sample.values)
            bad.update(sample.bad)
        newest = max((sample.time_ns for sample in samples), default=time.time_ns())
        if not values:
            self._say_unread(points)
        return Sample(newest, values, bad)

    def _say_unread(self, points: Sequence[str]) -> None:
        """Raises the reason, where it is that the nodes are not there."""
        for name in points:
            self._session.node_id(name)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes values, each in the type that the server has for it.

        Raises:
            DriverError: not all were written.
        """
        return await write(self._session, values)

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of `PROTOCOL.methods`.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the server said no or did not answer.
        """
        return await carry_out(method, args, self._session, self)

    def subscription_ids(self) -> Sequence[int]:
        """The server's ids of our subscriptions."""
        return [one.number for one in self._subscriptions.held()]

    async def status(self) -> Mapping[str, Any]:
        """Session and subscriptions as the server revised them, its capabilities, and its clock.

        Raises:
            DriverError: the server did not answer.
        """
        return {
            **await self._session.status(),
            "subscriptions": self._subscriptions.described(),
            "most_at_once": AT_ONCE,
        }
