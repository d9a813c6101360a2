"""KubeEdge's device twins: what is taken, asked and wanted."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_host import ScriptedHost
from pydantic import ValidationError

from protocols.base import DeviceState, DriverError, Quality, Refused
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.kubeedge import KubeEdge
from protocols.mqtt.message import Message

NOW_NS = 1_700_000_000_000_000_000
BASE = "$hw/events/device/pump/"


def device(name: str = "pump") -> MqttDevice:
    points = {
        "speed": {"property": "Speed", "access": "rw"},
        "on": {"property": "On", "type": "boolean", "access": "rw"},
        "name": {"property": "Name", "type": "string", "access": "wo"},
    }
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "broker.example"},
        "payload": "kubeedge",
        "kubeedge": {"device": name},
        "points": points,
        "timeout": "20s",
    }
    return MqttDevice.model_validate(whole).named("pump")


def actual(value: str, at_ms: int = 5000) -> dict[str, Any]:
    return {"actual": {"value": value, "metadata": {"timestamp": at_ms}}}


class Twin:
    """A twin, and what the gateway makes of it."""

    def __init__(self) -> None:
        self.host = ScriptedHost()
        self.it = KubeEdge(device())

    def says(self, topic: str, content: dict[str, Any]) -> None:
        self.it.take(Message(BASE + topic, msgspec.json.encode(content), NOW_NS))

    def sent(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.host.published[-1].payload)
        return said

    async def read(self, **twins: Any) -> "Twin":
        await self.it.begin(self.host)
        twins = {"Speed": actual("1.5"), "On": actual("true"), "Name": {}} | twins
        self.says("twin/get/result", {"event_id": self.sent()["event_id"], "timestamp": 1, "twin": twins})
        return self

    async def answered(self, task: "asyncio.Task[Any]", count: int, content: dict[str, Any]) -> None:
        async with asyncio.timeout(20):
            while len(self.host.published) < count:
                await asyncio.sleep(0)
        topic = self.host.published[-1].topic.removeprefix(BASE) + "/result"
        self.says(topic, {"event_id": self.sent()["event_id"], "timestamp": 1, **content})


async def test_the_twin_is_read_at_the_beginning() -> None:
    twin = await Twin().read()
    assert twin.host.published[0].topic == BASE + "twin/get"
    assert twin.host.states[-1][0] is DeviceState.ONLINE
    values = {name: value for sample in twin.host.samples for name, value in sample.values.items()}
    assert values == {"speed": 1.5, "on": True}
    assert {sample.time_ns for sample in twin.host.samples} == {5_000_000_000}
    await twin.it.end()


async def test_documents_are_samples_where_something_was_reported_anew() -> None:
    twin = await Twin().read()
    before = len(twin.host.samples)
    wanted = {**actual("1.5"), "expected": {"value": "9"}}
    twin.says("twin/update/document", {"twin": {"Speed": {"last": None, "current": wanted}}})
    assert len(twin.host.samples) == before
    twin.says("twin/update/document", {"twin": {"Speed": {"last": None, "current": actual("9", 6000)}}})
    assert twin.host.samples[-1].values == {"speed": 9}
    twin.says("twin/update/document", {"twin": {"Speed": {"last": None, "current": actual("9", 7000)}}})
    assert twin.host.samples[-1].time_ns == 7_000_000_000
    await twin.it.end()


async def test_what_is_no_value_of_the_point_and_what_was_never_reported() -> None:
    twin = await Twin().read(Speed=actual("fast"), On={})
    bad = {name: quality for sample in twin.host.samples for name, quality in sample.bad.items()}
    assert bad == {"speed": Quality.BAD_CONFIG, "on": Quality.DISCONNECTED}
    await twin.it.end()


async def test_a_property_that_the_twin_does_not_have() -> None:
    twin = Twin()
    await twin.it.begin(twin.host)
    twin.says("twin/get/result", {"twin": {"Speed": actual("1")}})
    assert twin.host.samples[-1].bad == {"on": Quality.BAD_CONFIG}
    assert twin.host.states[-1] == (DeviceState.DEGRADED, "twin of pump has no property Name, On")
    with pytest.raises(DriverError, match="nothing was published"):
        await twin.it.write({"on": True})
    await twin.it.end()


async def test_a_write_is_done_when_the_device_reports_it() -> None:
    twin = await Twin().read()
    task = asyncio.create_task(twin.it.write({"speed": 2e20, "on": False}))
    await twin.answered(task, 2, {"twin": {}})
    assert twin.host.published[-1].topic == BASE + "twin/update"
    assert twin.sent()["twin"] == {
        "Speed": {"expected": {"value": "2e20"}},
        "On": {"expected": {"value": "false"}},
    }
    await asyncio.sleep(0)
    assert not task.done()
    current = {"Speed": {"current": actual("2e20", 1)}, "On": {"current": actual("false", 1)}}
    twin.says("twin/update/document", {"twin": current})
    assert (await task).values == {"speed": 2e20, "on": False}
    await twin.it.end()


async def test_a_write_that_edgecore_refuses() -> None:
    twin = await Twin().read()
    task = asyncio.create_task(twin.it.write({"speed": 2}))
    await twin.answered(task, 2, {"code": 400, "reason": "the value is not int"})
    with pytest.raises(DriverError, match="not int") as caught:
        await task
    assert (caught.value.code, caught.value.written) == ("device-error", {})
    await twin.it.end()


async def test_a_device_that_does_not_follow_is_a_mismatch() -> None:
    twin = await Twin().read()
    twin.it._device = twin.it._device.model_copy(update={"timeout": 0.2})
    task = asyncio.create_task(twin.it.write({"speed": 2}))
    await twin.answered(task, 2, {"twin": {}})
    with pytest.raises(DriverError) as caught:
        await task
    assert caught.value.code in ("verify-mismatch", "timeout")  # on a stalled machine the answer may be late
    await twin.it.end()


async def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    twin = await Twin().read()
    twin.it._device = twin.it._device.model_copy(update={"timeout": 0.01})
    with pytest.raises(DriverError) as caught:
        await twin.it.read(["speed"])
    assert caught.value.code == "timeout"
    await twin.it.end()


async def test_a_text_that_edgecore_does_not_take_is_refused() -> None:
    twin = await Twin().read()
    with pytest.raises(Refused, match="no value of a KubeEdge twin"):
        await twin.it.write({"name": "two words"})
    assert len(twin.host.published) == 1
    await twin.it.end()


async def test_an_offline_device_and_one_that_is_back() -> None:
    twin = await Twin().read()
    twin.says("state/update/result", {"device": {"name": "pump", "state": "offline"}})
    assert twin.host.samples[-1].bad == {"speed": Quality.DISCONNECTED, "on": Quality.DISCONNECTED}
    before = len(twin.host.samples)
    twin.says("twin/get/result", {"twin": {"Speed": actual("1.5"), "On": actual("true"), "Name": {}}})
    assert len(twin.host.samples) == before
    twin.says("state/update/result", {"device": {"name": "pump", "state": "online"}})
    twin.says("twin/get/result", {"twin": {"Speed": actual("1.5"), "On": actual("true"), "Name": {}}})
    assert twin.host.samples[-1].values
    assert twin.host.states[-1][0] is DeviceState.ONLINE
    await twin.it.end()


@pytest.mark.parametrize("name", ["default/pump", "pump"])
def test_a_device_may_have_a_namespace(name: str) -> None:
    assert device(name).kubeedge is not None


@pytest.mark.parametrize("name", ["a/b/c", "/pump", "a+", "#"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        device(name)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["twin", "Speed", "current", "actual", "value", "metadata", "timestamp", "device"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)
_TOPICS = ("twin/get/result", "twin/update/result", "twin/update/document", "state/update/result", "other")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_TOPICS), _JSON.map(json.dumps) | st.text(max_size=9)), max_size=6))
def test_whatever_comes_it_does_not_raise(messages: list[tuple[str, str]]) -> None:
    async def run() -> None:
        twin = Twin()
        await twin.it.begin(twin.host)
        for topic, text in messages:
            twin.it.take(Message(BASE + topic, text.encode(errors="replace"), NOW_NS))
        await twin.it.end()

    asyncio.run(run())


@pytest.mark.parametrize(
    "payload", [b'{"twin": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
async def test_hostile_payloads_are_counted_and_the_next_is_taken(payload: bytes) -> None:
    twin = await Twin().read()
    twin.it.take(Message(BASE + "twin/update/document", payload, NOW_NS))
    assert twin.host.losses == [(1, "malformed")]
    twin.says("twin/update/document", {"twin": {"Speed": {"current": actual("9", 6000)}}})
    assert twin.host.samples[-1].values == {"speed": 9}
    await twin.it.end()


async def test_what_is_larger_than_max_payload_is_not_read() -> None:
    twin = await Twin().read()
    before = len(twin.host.samples)
    padding = " " * 1024 * 1024
    twin.says("twin/update/document", {"twin": {"Speed": {"current": actual("9", 6000)}}, "x": padding})
    assert (twin.host.losses, len(twin.host.samples)) == ([(1, "too-large")], before)
    await twin.it.end()


async def test_a_reading_is_as_old_as_the_oldest_report_of_it() -> None:
    twin = await Twin().read(Speed=actual("1.5", 9000))
    task = asyncio.create_task(twin.it.read(["speed", "on"]))
    twins = {"Speed": actual("1.5", 9000), "On": actual("true"), "Name": {}}
    await twin.answered(task, 2, {"twin": twins})
    sample = await task
    assert (sample.values, sample.time_ns) == ({"speed": 1.5, "on": True}, 5_000_000_000)
    await twin.it.end()


async def test_a_link_that_ends_under_a_command_fails_it_and_cancels_nobody() -> None:
    twin = await Twin().read()
    task = asyncio.create_task(twin.it.write({"speed": 3}))
    async with asyncio.timeout(20):
        while len(twin.host.published) < 2:
            await asyncio.sleep(0)
    await twin.it.end()
    with pytest.raises(DriverError, match=r"the link was lost .* whether it took it is not known") as error:
        await task
    assert error.value.code == "disconnected"
