"""Alarms of a simulated server: reported, acknowledged, confirmed and refreshed; and other events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from protocols.base import DriverError, Refused
from protocols.opcua import alarms
from protocols.opcua.calls import carry_out
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.session import Session
from protocols.opcua.types import dictionary_of
from protocols.opcua.writes import write
from sim.opcua.devices import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LEVEL = {"node": "nsu=urn:plant.example;s=Level", "access": "rw", "min": 0, "max": 10}
_EVENTS = {"node": "i=2253", "type": "object"}
_POINTS = {
    "level": _LEVEL,
    "alarms": _EVENTS | {"events": "alarms"},
    "severe": _EVENTS | {"events": "alarms", "severity": 600},
    "all": _EVENTS | {"events": "all"},
}


class _Watch:
    """Event items of a session, and what came for each of them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed = asyncio.Event()
        self._ids: list[int] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._looked = 0

    def subscription_ids(self) -> Sequence[int]:
        return self._ids

    async def status(self) -> Mapping[str, Any]:
        return {}

    async def start(self) -> None:
        points = [(name, point) for name, point in self._session.device.points.items() if point.events]

        def publish(result: ua.PublishResult) -> None:
            for notification in result.NotificationMessage.NotificationData or ():
                for event in getattr(notification, "Events", ()):
                    name, point = points[event.ClientHandle]
                    dictionary = dictionary_of(self._session)
                    taken = alarms.taken(point, event.EventFields, "source", 1, dictionary)
                    if taken is not None:
                        assert isinstance(taken.value, dict)
                        self.events.append((name, taken.value | {"time_ns": taken.time_ns}))
                        self._changed.set()

        parameters = ua.CreateSubscriptionParameters(RequestedPublishingInterval=ua.Duration(50))
        services = self._session.services
        made = await services.create_subscription(parameters, publish)
        self._ids.append(made.SubscriptionId)
        items = [
            ua.MonitoredItemCreateRequest(
                ua.ReadValueId(
                    self._session.node_id(name), AttributeId=ua.IntegerId(AttributeIds.EventNotifier)
                ),
                ua.MonitoringMode.Reporting,
                ua.MonitoringParameters(
                    ClientHandle=ua.IntegerId(place),
                    Filter=alarms.event_filter(point),
                    QueueSize=ua.Counter(100),
                ),
            )
            for place, (name, point) in enumerate(points)
        ]
        wanted = ua.CreateMonitoredItemsParameters(
            SubscriptionId=made.SubscriptionId,
            TimestampsToReturn=ua.TimestampsToReturn.Both,
            ItemsToCreate=items,
        )
        for result in await services.create_monitored_items(wanted):
            result.StatusCode.check()

    async def next(self, name: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event of a point that is as wanted, of those after the last that was looked for."""
        async with asyncio.timeout(30):
            while True:
                for place in range(self._looked, len(self.events)):
                    point, event = self.events[place]
                    if point == name and wanted(event):
                        self._looked = place + 1
                        return event
                self._changed.clear()
                await self._changed.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched() -> AsyncIterator[tuple[Session, _Watch]]:
    """A session with a simulated server that has an alarm, and event items in it."""
    connection = {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}}
    slow = {"timeout": "30s", "connect_timeout": "30s"}
    written = {"protocol": "opcua", "connection": connection, "points": _POINTS} | slow
    async with serving(OpcuaDevice.model_validate(written).named("plc")) as served:
        session = Session(served.device)
        await session.open()
        try:
            await session.find_points()
            watch = _Watch(session)
            await watch.start()
            yield session, watch
        finally:
            await session.close()


async def test_an_alarm_from_its_beginning_to_its_end(watched: tuple[Session, _Watch]) -> None:
    session, watch = watched
    await write(session, {"level": 5.0})
    await write(session, {"level": 20.0})
    begun = await watch.next("alarms", lambda event: event["active"] is True)
    assert begun["type"] == "ExclusiveLevelAlarmType"
    assert (begun["source"], begun["severity"]) == ("level", 700)
    assert begun["source_node"] == "nsu=urn:plant.example;s=Level"
    assert (begun["acked"], begun["confirmed"], begun["retain"], begun["enabled"]) == (
        False,
        False,
        True,
        True,
    )
    assert "above" in begun["message"]
    assert begun["time_ns"] > 10**18
    identity = {"event_id": begun["event_id"], "condition": begun["condition"]}

    said = await carry_out("acknowledge", identity | {"comment": "seen"}, session, watch)
    assert said == {"status": "acknowledged"}
    acked = await watch.next("alarms", lambda event: event["acked"])
    assert (acked["active"], acked["confirmed"], acked["comment"]) == (True, False, "seen")

    await write(session, {"level": 5.0})
    over = await watch.next("alarms", lambda event: not event["active"])
    assert over["retain"] is True  # it is still to be confirmed
    assert await carry_out("refresh", {}, session, watch) == {"subscriptions": 1}
    again = await watch.next("alarms", lambda event: event["event_id"] == over["event_id"])
    assert (again["active"], again["acked"], again["confirmed"]) == (False, True, False)
    assert "event_id" in again

    identity = {"event_id": again["event_id"], "condition": again["condition"]}
    assert await carry_out("confirm", identity, session, watch) == {"status": "confirmed"}
    done = await watch.next("alarms", lambda event: event["confirmed"])
    assert done["retain"] is False


async def test_a_refresh_begins_and_ends_without_an_alarm(watched: tuple[Session, _Watch]) -> None:
    session, watch = watched
    await carry_out("refresh", {}, session, watch)
    end = await watch.next("all", lambda event: event["type"] == "RefreshEndEventType")
    assert set(end) >= {"event_id", "type", "severity", "time_ns"}
    assert not {"active", "condition", "acked"} & set(end)
    assert not [event for name, event in watch.events if name != "all" and "Refresh" in event["type"]]


async def test_events_below_the_severity_are_not_reported(watched: tuple[Session, _Watch]) -> None:
    session, watch = watched
    await write(session, {"level": -1.0})
    await watch.next("severe", lambda event: event["active"])
    await write(session, {"level": 5.0})
    over = await watch.next("alarms", lambda event: not event["active"])
    assert over["severity"] < 600
    await write(session, {"level": -1.0})
    await watch.next("severe", lambda event: event["active"])
    severe = [event for name, event in watch.events if name == "severe"]
    assert {event["severity"] for event in severe} == {700}


@pytest.mark.parametrize("method", ["acknowledge", "confirm"])
async def test_what_is_no_event_is_refused(watched: tuple[Session, _Watch], method: str) -> None:
    session, watch = watched
    for wrong, text in (
        ({"event_id": "xyz", "condition": "i=1"}, "event_id is the hexadecimal one of an event"),
        ({"event_id": "00", "condition": "one"}, "'one' is no node id"),
        (
            {"event_id": "00", "condition": "nsu=urn:nowhere.example;i=1"},
            "a namespace that the server has not",
        ),
        ({"event_id": "00"}, "missing required field `condition`"),
    ):
        with pytest.raises(Refused, match=text) as caught:
            await carry_out(method, wrong, session, watch)
        assert caught.value.code == "malformed"
    with pytest.raises(DriverError, match=f"the server did not {method} .*: Bad") as failed:
        await carry_out(method, {"event_id": "00", "condition": "i=1"}, session, watch)
    assert failed.value.code == "device-error"
