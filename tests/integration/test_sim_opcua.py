"""Simulated OPC UA servers, seen by a client that knows nothing of the profile."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaStatusCodeError
from waiting import until

from protocols.opcua.config import OpcuaDevice
from sim.opcua.devices import Served, serving
from sim.opcua.services import OVERFLOW, standard

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICE = OpcuaDevice.model_validate(
    {
        "protocol": "opcua",
        "connection": {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}},
        "points": {
            "setpoint": {"node": "ns=2;s=Setpoint", "min": 0, "max": 200, "unit": "bar", "access": "rw"},
            "pressure": {"node": "/Objects/3:Plant/3:Pressure", "min": 0, "max": 100, "unit": "bar"},
            "level": {"node": "nsu=urn:plant.example;i=7", "scale": 0.1, "min": 0, "max": 10},
            "mode": {
                "node": "ns=2;s=Mode",
                "type": "enumeration",
                "labels": {0: "off", 1: "on"},
                "access": "rw",
            },
            "profile": {"node": "ns=2;s=Profile", "type": "array", "access": "rw"},
            "second": {"node": "ns=2;s=Profile", "index_range": "1"},
            "recipe": {
                "node": "ns=2;s=Recipe",
                "type": "object",
                "fields": {"name": "String", "steps": "UInt16"},
                "access": "rw",
            },
            "command": {"node": "ns=2;s=Command", "type": "integer", "data_type": "UInt16", "access": "wo"},
            "clock": {"node": "i=2258", "type": "string"},
            "alarms": {"node": "/Objects/3:Plant", "type": "object", "events": "alarms"},
        },
        "methods": {
            "start": {
                "object": "ns=2;s=Pump",
                "method": "ns=2;s=Pump.Start",
                "inputs": {"setpoint": "Double", "who": "String"},
                "outputs": {"who": "String", "code": "Int32"},
            }
        },
        "sim": {
            "pressure": {"follow": "setpoint"},
            "profile": [1.0, 2.0, 3.0],
            "recipe": {"constant": {"name": "rinse", "steps": 3}},
            "level": {"constant": 5},
        },
    }
).named("cell")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(DEVICE) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def client(served: Served) -> AsyncIterator[Client]:
    made = Client(served.device.connection.url, timeout=30)
    made.session_timeout = 600_000
    async with made:
        yield made


async def test_namespaces_are_those_of_the_profile(client: Client) -> None:
    uris = await client.get_namespace_array()
    assert len(uris) == 5
    assert uris[4] == "urn:plant.example"


async def test_ranges_and_units_stand_at_their_variables_in_the_nodes_own_unit(client: Client) -> None:
    node = client.get_node("ns=4;i=7")
    assert await node.read_value() == 50
    assert await node.read_type_definition() == standard(ObjectIds.AnalogItemType)
    span = await (await node.get_child("0:EURange")).read_value()
    assert (span.Low, span.High) == (0, 100)
    path = ["0:Objects", "3:Plant", "3:Pressure", "0:EngineeringUnits"]
    unit = await (await client.nodes.root.get_child(path)).read_value()
    assert unit.DisplayName.Text == "bar"


async def test_an_enumeration_has_its_labels(client: Client) -> None:
    node = client.get_node("ns=2;s=Mode")
    kind = client.get_node(await node.read_data_type())
    strings = await (await kind.get_child("0:EnumStrings")).read_value()
    assert [text.Text for text in strings] == ["off", "on"]
    definition: Any = await kind.read_data_type_definition()
    assert [field.Name for field in definition.Fields] == ["off", "on"]


async def test_an_object_is_a_structure_that_clients_can_read_and_write(client: Client) -> None:
    node = client.get_node("ns=2;s=Recipe")
    recipe = await node.read_value()
    assert (recipe.name, recipe.steps) == ("rinse", 3)
    definition: Any = await client.get_node(await node.read_data_type()).read_data_type_definition()
    assert [(field.Name, field.DataType) for field in definition.Fields] == [
        ("name", standard(ObjectIds.String)),
        ("steps", standard(ObjectIds.UInt16)),
    ]
    recipe.steps = 4
    await node.write_value(recipe)
    assert (await node.read_value()).steps == 4


async def test_access_is_the_profiles(client: Client) -> None:
    command, pressure = client.get_node("ns=2;s=Command"), "ns=4;i=7"
    with pytest.raises(UaStatusCodeError, match="BadNotReadable"):
        await command.read_value()
    await command.write_value(ua.Variant(7, ua.VariantType.UInt16))
    with pytest.raises(UaStatusCodeError, match="BadUserAccessDenied"):
        await client.get_node(pressure).write_value(1.0)
    with pytest.raises(UaStatusCodeError, match="BadTypeMismatch"):
        await command.write_value(ua.Variant(7, ua.VariantType.Int16))


async def read_part(client: Client, node: str, index_range: str) -> ua.DataValue:
    wanted = ua.ReadValueId(ua.NodeId.from_string(node), ua.IntegerId(AttributeIds.Value))
    wanted.IndexRange = ua.String(index_range)
    params = ua.ReadParameters()
    params.NodesToRead = [wanted]
    (value,) = await client.uaclient.read(params)
    assert isinstance(value, ua.DataValue)
    return value


async def code_of_part(client: Client, node: str, index_range: str) -> str:
    code = (await read_part(client, node, index_range)).StatusCode
    return "Good" if code is None else str(code.name)


async def write_part(client: Client, node: str, index_range: str, values: list[float]) -> str:
    value = ua.DataValue(ua.Variant(values, ua.VariantType.Double))
    wanted = ua.WriteValue(ua.NodeId.from_string(node), ua.IntegerId(AttributeIds.Value))
    wanted.IndexRange, wanted.Value = ua.String(index_range), value
    params = ua.WriteParameters()
    params.NodesToWrite = [wanted]
    (code,) = await client.uaclient.write(params)
    return str(code.name)


async def test_parts_of_arrays_are_read_and_written(client: Client) -> None:
    node = "ns=2;s=Profile"
    whole = await client.get_node(node).read_value()
    assert whole[1] == 0.0  # what the point of that element says
    assert await write_part(client, node, "1:2", [8.0, 9.0]) == "Good"
    assert (await read_part(client, node, "0:1")).Value == ua.Variant([1.0, 8.0], ua.VariantType.Double)
    assert await client.get_node(node).read_value() == [1.0, 8.0, 9.0]
    assert await write_part(client, node, "1:2", [8.0]) == "BadIndexRangeDataMismatch"
    assert await write_part(client, node, "2:3", [8.0, 9.0]) == "BadIndexRangeNoData"
    assert (await code_of_part(client, node, "7")) == "BadIndexRangeNoData"
    assert (await code_of_part(client, node, "2:1")) == "BadIndexRangeInvalid"


async def test_a_point_that_follows_goes_to_what_was_written(client: Client) -> None:
    pressure = await client.nodes.root.get_child(["0:Objects", "3:Plant", "3:Pressure"])
    await client.get_node("ns=2;s=Setpoint").write_value(42.0)
    async with asyncio.timeout(30):
        while await pressure.read_value() != 42.0:
            await asyncio.sleep(0.02)
    value = await pressure.read_data_value()
    assert value.SourceTimestamp is not None


async def test_a_method_gives_back_what_it_got_and_writes_the_point_of_its_inputs_name(
    client: Client,
) -> None:
    pump, start = client.get_node("ns=2;s=Pump"), ua.NodeId.from_string("ns=2;s=Pump.Start")
    assert await pump.call_method(start, 17.0, "joe") == ["joe", 0]
    assert await client.get_node("ns=2;s=Setpoint").read_value() == 17.0
    names = await (await client.get_node(start).get_child("0:InputArguments")).read_value()
    assert [argument.Name for argument in names] == ["setpoint", "who"]
    for args, code in (
        ([17.0], "BadArgumentsMissing"),
        ([17.0, "joe", 1], "BadTooManyArguments"),
        (["17", "joe"], "BadInvalidArgument"),
    ):
        with pytest.raises(UaStatusCodeError, match=code):
            await pump.call_method(start, *args)


async def test_history_has_what_was_written(client: Client) -> None:
    node = client.get_node("ns=2;s=Setpoint")
    for value in (1.0, 2.0, 3.0):
        await node.write_value(value)
    found = await node.read_raw_history(numvalues=3)
    assert [value.Value.Value for value in found if value.Value is not None] == [3.0, 2.0, 1.0]


class Handler:
    """Keeps what a subscription brings."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, int]] = []
        self.events: list[Any] = []

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        code = data.monitored_item.Value.StatusCode
        self.values.append((value, code.value if code is not None else 0))

    def event_notification(self, event: Any) -> None:
        self.events.append(event)


async def test_the_clock_goes_on(client: Client) -> None:
    handler = Handler()
    subscription = await client.create_subscription(50, handler)
    await subscription.subscribe_data_change(client.get_node("i=2258"))
    await until(lambda: len(handler.values) >= 2)
    await subscription.delete()


def filtered(kind: ua.DeadbandType, value: float) -> ua.DataChangeFilter:
    made = ua.DataChangeFilter()
    made.Trigger = ua.DataChangeTrigger.StatusValue
    made.DeadbandType, made.DeadbandValue = ua.UInt32(kind), ua.Double(value)
    return made


async def monitored(
    client: Client, handler: Handler, interval: float, queue: int, wanted: ua.DataChangeFilter | None
) -> Any:
    subscription = await client.create_subscription(interval, handler)
    node = client.get_node("ns=2;s=Setpoint")
    request = subscription._make_monitored_item_request(
        node, AttributeIds.Value, wanted, queue, ua.MonitoringMode.Reporting, ua.Double(0)
    )
    (made,) = await subscription.create_monitored_items([request])
    assert isinstance(made, int)
    return subscription


@pytest.mark.parametrize(
    "wanted", [filtered(ua.DeadbandType.Absolute, 20), filtered(ua.DeadbandType.Percent, 10)]
)
async def test_a_deadband_counts_from_what_was_reported_last(
    client: Client, wanted: ua.DataChangeFilter
) -> None:
    node = client.get_node("ns=2;s=Setpoint")
    await node.write_value(0.0)
    handler = Handler()
    subscription = await monitored(client, handler, 50, 100, wanted)
    await until(lambda: handler.values)
    for value in (10.0, 20.0, 30.0, 40.0, 51.0):  # steps of less than the deadband that add up to more
        await node.write_value(value)
    await until(lambda: handler.values[-1][0] == 51.0)
    assert [value for value, _ in handler.values] == [0.0, 30.0, 51.0]
    await subscription.delete()


async def test_a_full_queue_says_that_it_overflowed(client: Client) -> None:
    node = client.get_node("ns=2;s=Setpoint")
    await node.write_value(0.0)
    handler = Handler()
    subscription = await monitored(client, handler, 1000, 2, None)
    await until(lambda: handler.values)
    # In one request, so that the server does not report in between.
    params = ua.WriteParameters()
    for value in (1.0, 2.0, 3.0, 4.0):
        one = ua.WriteValue(node.nodeid, ua.IntegerId(AttributeIds.Value))
        one.Value = ua.DataValue(ua.Variant(value, ua.VariantType.Double))
        params.NodesToWrite.append(one)
    await client.uaclient.write(params)
    await until(lambda: handler.values[-1][0] == 4.0)
    assert handler.values[1:] == [(3.0, OVERFLOW), (4.0, 0)]
    await subscription.delete()


async def test_an_alarm_goes_on_is_acknowledged_and_confirmed_and_is_over(client: Client) -> None:
    setpoint = client.get_node("ns=2;s=Setpoint")
    await setpoint.write_value(50.0)
    handler = Handler()
    subscription = await client.create_subscription(50, handler)
    plant = await client.nodes.root.get_child(["0:Objects", "3:Plant"])
    await subscription.subscribe_events(plant, [client.get_node(standard(ObjectIds.AlarmConditionType))])
    await setpoint.write_value(150.0)

    def last(key: str, value: bool) -> Any:
        return handler.events and getattr(handler.events[-1], key) is value

    await until(lambda: last("ActiveState/Id", True))
    alarm = handler.events[-1]
    assert (alarm.SourceName, alarm.Retain, getattr(alarm, "AckedState/Id")) == ("pressure", True, False)
    condition, comment = client.get_node(alarm.NodeId), ua.LocalizedText("seen")
    acknowledge = standard(ObjectIds.AcknowledgeableConditionType_Acknowledge)
    confirm = standard(ObjectIds.AcknowledgeableConditionType_Confirm)
    with pytest.raises(UaStatusCodeError, match="BadEventIdUnknown"):
        await condition.call_method(acknowledge, b"none", comment)
    await condition.call_method(acknowledge, alarm.EventId, comment)
    await until(lambda: last("AckedState/Id", True))
    assert handler.events[-1].Comment.Text == "seen"
    with pytest.raises(UaStatusCodeError, match="BadConditionBranchAlreadyAcked"):
        await condition.call_method(acknowledge, handler.events[-1].EventId, comment)

    before = len(handler.events)
    number = ua.Variant(subscription.subscription_id, ua.VariantType.UInt32)
    refresh = standard(ObjectIds.ConditionType_ConditionRefresh)
    await client.get_node(standard(ObjectIds.ConditionType)).call_method(refresh, number)
    await until(lambda: len(handler.events) == before + 3)
    start, held, end = handler.events[before:]
    assert start.EventType == standard(ObjectIds.RefreshStartEventType)
    assert end.EventType == standard(ObjectIds.RefreshEndEventType)
    assert held.NodeId == alarm.NodeId

    await condition.call_method(confirm, held.EventId, comment)
    await until(lambda: last("ConfirmedState/Id", True))
    assert handler.events[-1].Retain is True  # it is still active
    await setpoint.write_value(50.0)
    await until(lambda: last("ActiveState/Id", False))
    assert handler.events[-1].Retain is False
    await subscription.delete()
