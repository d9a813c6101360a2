"""The MQTT driver against a broker and a far end: what is taken, what is written, what is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mqtt_rig import device, driven, far_end, takes
from scripted import Heard, running
from waiting import until

from protocols.base import DeviceState, DriverError, Quality, Refused
from protocols.mqtt.driver import MqttDriver
from sim.mqtt.broker import Broker

VERSIONS = ["5", "3.1.1"]
SPEED = {"topic": "oven/state", "path": "fan.speed"}
TEMPERATURE = {"topic": "oven/state", "path": "temperature"}
SETTING = {"topic": "oven/setting", "encoding": "plain", "access": "rw", "write": {"topic": "oven/set"}}


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_one_message_is_one_sample_of_all_its_points(broker: Broker, version: str, qos: int) -> None:
    config = device(broker.port, {"speed": SPEED, "temperature": TEMPERATURE}, {"version": version}, qos=qos)
    async with driven(config) as (driver, heard), far_end(broker.port) as far:
        await heard.until(lambda: heard.states == [(DeviceState.ONLINE, "")])
        for number in range(5):
            await far.says("oven/state", f'{{"fan": {{"speed": {number}}}, "temperature": 20.5}}', qos)
        await heard.until(lambda: len(heard.samples) == 5)
        assert [sample.values for sample in heard.samples] == [
            {"speed": number, "temperature": 20.5} for number in range(5)
        ]
        sample = await driver.read(["speed"])
        assert (sample.values, sample.time_ns) == ({"speed": 4}, heard.samples[-1].time_ns)


async def test_what_cannot_be_read_is_bad_and_counted(broker: Broker) -> None:
    points = {"speed": SPEED, "flow": {"topic": "oven/flow", "encoding": "int16"}}
    async with (
        driven(device(broker.port, points, max_payload="1KiB")) as (driver, heard),
        far_end(broker.port) as far,
    ):
        for payload in (b"{", b"[1]", b'{"fan":{"speed":null}}', b'{"fan":{"speed":"x"}}', b" " * 2000):
            await far.says("oven/state", payload)
        await far.says("oven/flow", b"\1")
        await heard.until(lambda: len(heard.samples) == 6)
        error, wrong = Quality.DEVICE_ERROR, Quality.BAD_CONFIG
        assert takes(heard, "speed") == [error, wrong, error, wrong, error]
        assert takes(heard, "flow") == [error]
        status = await driver.call("status", {})
        assert status["not_taken"] == {
            "not-json": 1, "no-path": 1, "null": 1, "wrong-type": 1, "too-large": 1, "too-short": 1
        }  # fmt: skip
        with pytest.raises(DriverError, match="speed is device-error"):
            await driver.read(["speed"])


async def test_a_wildcard_feeds_points_by_what_it_stands_for(broker: Broker) -> None:
    probe = {"topic": "lab/+/temp/#", "encoding": "plain"}
    points = {"a": probe | {"wildcard": "p1/x"}, "b": probe | {"wildcard": "p2/x/y"}, "all": probe}
    async with driven(device(broker.port, points)) as (_, heard), far_end(broker.port) as far:
        await far.says("lab/p1/temp/x", "1")
        await far.says("lab/p2/temp/x/y", "2")
        await far.says("lab/p3/temp", "3")
        await heard.until(lambda: len(heard.samples) == 3)
        assert (takes(heard, "a"), takes(heard, "b"), takes(heard, "all")) == ([1], [2], [1, 2, 3])


@pytest.mark.parametrize("version", VERSIONS)
async def test_overlapping_topics_bring_a_message_once(broker: Broker, version: str) -> None:
    plain = {"encoding": "plain"}
    points = {
        "one": plain | {"topic": "a/+"},
        "two": plain | {"topic": "+/b"},
        "three": plain | {"topic": "a/b"},
    }
    async with driven(device(broker.port, points, {"version": version})) as (driver, heard):
        async with far_end(broker.port) as far:
            await far.says("a/b", "1")
            await far.says("a/end", "2")
            await heard.until(lambda: takes(heard, "one")[-1:] == [2])
        assert [sample.values for sample in heard.samples] == [{"one": 1, "two": 1, "three": 1}, {"one": 2}]
        assert len((await driver.call("status", {}))["granted"]) == 2


async def test_retained_values_are_taken_or_skipped(broker: Broker) -> None:
    plain = {"topic": "oven/t", "encoding": "plain"}
    points = {"taken": plain, "skipped": plain | {"retained": "skip"}}
    async with far_end(broker.port) as far:
        await far.says("oven/t", "1", retain=True)
        async with driven(device(broker.port, points)) as (_, heard):
            await heard.until(lambda: heard.samples)
            await far.says("oven/t", "2")
            await heard.until(lambda: len(heard.samples) == 2)
        assert [sample.values for sample in heard.samples] == [{"taken": 1}, {"taken": 2, "skipped": 2}]


async def test_presence_is_the_state_of_the_device(broker: Broker) -> None:
    points = {"temperature": {"topic": "oven/t", "encoding": "plain"}}
    config = device(
        broker.port,
        points,
        presence={"topic": "oven/presence", "path": "is", "online": True, "offline": False},
    )
    async with driven(config) as (driver, heard), far_end(broker.port) as far:
        await heard.until(lambda: heard.states)
        assert heard.states[0] == (
            DeviceState.DEGRADED,
            "nothing was said yet on oven/presence, its presence",
        )
        await far.says("oven/presence", '{"is": true}')
        await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))
        await far.says("oven/t", "20")
        await far.says("oven/presence", '{"is": false}')
        await heard.until(lambda: heard.states[-1][0] is DeviceState.DEGRADED)
        assert takes(heard, "temperature") == [20, Quality.DISCONNECTED]
        with pytest.raises(DriverError) as error:
            await driver.read(["temperature"])
        assert error.value.code == "disconnected"
        await far.says("oven/presence", "nonsense")
        await far.says("oven/presence", '{"is": true}')
        await heard.until(lambda: heard.states[-1] == (DeviceState.ONLINE, ""))
        assert (await driver.call("status", {}))["not_taken"] == {"unknown-presence": 1}


async def test_silence_is_stale_once_and_ends_with_the_next_word(broker: Broker) -> None:
    point = {"topic": "oven/t", "encoding": "plain", "stale_after": "200ms"}
    async with driven(device(broker.port, {"t": point})) as (driver, heard), far_end(broker.port) as far:
        await heard.until(lambda: takes(heard, "t") == [Quality.STALE])
        await far.says("oven/t", "1")
        await heard.until(lambda: takes(heard, "t") == [Quality.STALE, 1, Quality.STALE])
        with pytest.raises(DriverError, match="t is stale"):
            await driver.read(["t"])


async def test_nothing_said_is_nothing_read(broker: Broker) -> None:
    async with driven(device(broker.port, {"speed": SPEED})) as (driver, _):
        with pytest.raises(DriverError, match="speed: nothing was published since"):
            await driver.read(["speed"])


class Slow(Heard):
    """A sink whose store takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = asyncio.Event()
        self.asked = 0

    async def kept(self) -> None:
        self.asked += 1
        await self.stored.wait()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
async def test_the_broker_keeps_what_was_not_stored(broker: Broker, version: str, qos: int) -> None:
    """An agent that is killed before it kept a message gets it again; one that kept it does not."""
    kept = {"version": version, "client_id": "me", "session_expiry": "1h"}
    config = device(broker.port, {"t": {"topic": "oven/t", "encoding": "plain"}}, kept, qos=qos)
    async with far_end(broker.port) as far:
        async with driven(config, slow := Slow()) as (killed, _):
            await far.says("oven/t", "1", qos)
            await slow.until(lambda: slow.samples and slow.asked)
            assert killed._client is not None
            assert killed._client._stream is not None
            killed._client._stream.abort()
            await asyncio.wait([slow.run])
        async with driven(config, second := Heard()) as (driver, _):
            await second.until(lambda: takes(second, "t") == [1])
            await far.says("oven/t", "2", qos)
            await second.until(lambda: takes(second, "t") == [1, 2])
            session, _ = broker._sessions["me"]
            await until(lambda: not session._inflight)
            assert (await driver.call("status", {}))["session_present"]
        async with driven(config, third := Heard()):
            await far.says("oven/t", "3", qos)
            await third.until(lambda: third.samples)
            assert takes(third, "t") == [3]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_write_is_published_as_the_profile_says(broker: Broker, version: str) -> None:
    template = {
        "topic": "oven/order",
        "template": '{"p": "{point}", "v": {value}, "t": "{text}"}',
        "retain": True,
        "qos": 2,
    }
    points = {"setting": SETTING, "other": SETTING | {"write": template}}
    async with (
        driven(device(broker.port, points, {"version": version})) as (driver, _),
        far_end(broker.port) as far,
    ):
        await far.hears("oven/#")
        sample = await driver.write({"setting": 21.5, "other": 7})
        assert sample.values == {"setting": 21.5, "other": 7}
        await until(lambda: len(far.heard) == 2)
        found = {one.topic: (one.payload, one.qos) for one in far.heard}
        assert found == {"oven/set": (b"21.5", 1), "oven/order": (b'{"p": "other", "v": 7, "t": "7"}', 2)}


ANSWERS: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "whatever", None),
    ({"answer_ok": "done"}, "done", None),
    ({"answer_ok": "done"}, "failed", "device-error"),
    ({"answer_path": "r", "answer_ok": "done"}, '{"r": "done"}', None),
    ({"answer_path": "r", "answer_ok": "done"}, '{"x": "done"}', "device-error"),
    ({"answer_path": "r", "answer_ok": "done"}, "done", "device-error"),
    ({"answer_path": "r"}, '{"r": 5}', None),
    ({"answer_path": "r"}, '{"r": 4}', "verify-mismatch"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("how", "answer", "code"), ANSWERS)
async def test_the_answer_says_whether_a_value_was_taken(
    broker: Broker, version: str, how: dict[str, Any], answer: str, code: str | None
) -> None:
    point = SETTING | {"write": {"topic": "oven/set", "answer": "oven/answer", **how}}
    config = device(broker.port, {"setting": point}, {"version": version})
    async with driven(config) as (driver, _), far_end(broker.port) as far:
        await far.hears("oven/set")
        writing = asyncio.create_task(driver.write({"setting": 5}))
        await until(lambda: far.heard)
        order = far.heard[0]
        await far.says("oven/answer", answer, correlation=order.correlation)
        if code is None:
            assert (await writing).values == {"setting": 5}
            return
        with pytest.raises(DriverError) as error:
            await writing
        assert error.value.code == code


async def test_an_answer_that_is_lost_leaves_it_unknown_and_is_not_asked_for_again(broker: Broker) -> None:
    point = SETTING | {"write": {"topic": "oven/set", "answer": "oven/answer"}}
    config = device(broker.port, {"setting": point, "plain": SETTING}, timeout="200ms")
    async with driven(config) as (driver, _), far_end(broker.port) as far:
        await far.hears("oven/set")
        with pytest.raises(DriverError, match="is not known, and it is not repeated") as error:
            await driver.write({"plain": 1, "setting": 5})
        assert (error.value.code, error.value.written) == ("timeout", {"plain": 1})
        await far.says("oven/set", "end")
        await until(lambda: far.heard[-1].payload == b"end")
        assert [one.payload for one in far.heard] == [b"1", b"5", b"end"]


async def test_a_request_by_hand_carries_what_mqtt_5_has_for_it(broker: Broker) -> None:
    async with driven(device(broker.port, {"speed": SPEED})) as (driver, _), far_end(broker.port) as far:
        await far.hears("oven/ask")
        args = {"topic": "oven/ask", "payload": {"a": 1}, "response_topic": "oven/reply", "timeout_s": 10}
        asking = asyncio.create_task(driver.call("request", args))
        await until(lambda: far.heard)
        order = far.heard[0]
        assert (order.payload, order.response_topic) == (b'{"a":1}', "oven/reply")
        await far.says("oven/reply", "another's", correlation=b"other")
        await far.says("oven/reply", '{"b": 2}', correlation=order.correlation)
        assert (await asking)["payload"] == {"b": 2}
        assert "oven/reply" not in (await driver.call("status", {}))["granted"]


@pytest.mark.parametrize(
    ("method", "args", "text"),
    [
        ("publish", {"topic": "a/+"}, "topic"),
        ("publish", {"topic": "a", "qos": 3}, "qos"),
        ("publish", {"topic": "a", "x": 3}, "no argument 'x'"),
        ("request", {"topic": "a"}, "response_topic"),
        ("request", {"topic": "a", "response_topic": "b", "timeout_s": -1}, "timeout_s"),
        ("rebirth", {}, "no method"),
    ],
)
async def test_wrong_calls_are_refused(broker: Broker, method: str, args: dict[str, Any], text: str) -> None:
    async with driven(device(broker.port, {"speed": SPEED})) as (driver, _):
        with pytest.raises(Refused, match=text):
            await driver.call(method, args)


async def test_our_own_will_says_whether_we_are_there(broker: Broker) -> None:
    config = device(broker.port, {"speed": SPEED}, will={"topic": "agents/oven"})
    async with far_end(broker.port) as far:
        await far.hears("agents/oven")
        async with driven(config):
            await until(lambda: [one.payload for one in far.heard] == [b"online"])
        await until(lambda: [one.payload for one in far.heard] == [b"online", b"offline"])
        driver = MqttDriver(config)
        await driver.connect()
        assert driver._client is not None
        assert driver._client._stream is not None
        driver._client._stream.abort()
        await until(lambda: [one.payload for one in far.heard][2:] == [b"online", b"offline"])
        await driver.close()


async def test_a_shared_subscription_divides_messages(broker: Broker) -> None:
    point = {"t": {"topic": "oven/t", "encoding": "plain"}}
    config = device(broker.port, point, share="agents")
    async with driven(config) as (_, one), driven(config) as (_, other), far_end(broker.port) as far:
        for number in range(20):
            await far.says("oven/t", str(number))
        await until(lambda: len(one.samples) + len(other.samples) == 20)
        assert sorted([*takes(one, "t"), *takes(other, "t")], key=str) == sorted(range(20), key=str)


async def test_what_came_before_run_is_not_lost_with_the_link_at_qos_2(broker: Broker) -> None:
    """The broker sends it again: it is not to be taken for a repetition."""
    where = {"client_id": "oven", "session_expiry": "1h"}
    config = device(broker.port, {"t": {"topic": "oven/t", "encoding": "plain"}}, where, qos=2)
    driver = MqttDriver(config)
    async with far_end(broker.port) as far:
        await driver.connect()
        await far.says("oven/t", "2", 2)
        await until(lambda: driver._received)
        await driver.connect()
        async with running(driver) as heard:
            await heard.until(lambda: takes(heard, "t") == [2])
        await driver.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_one_answer_is_of_one_request(broker: Broker, version: str) -> None:
    async with driven(device(broker.port, {"speed": SPEED}, {"version": version})) as (driver, _):
        async with far_end(broker.port) as far:
            await far.hears("oven/ask")
            ask = {"topic": "oven/ask", "response_topic": "oven/said", "payload": "x", "timeout_s": 20}
            asked = [asyncio.create_task(driver.call("request", ask)) for _ in range(2)]
            await until(lambda: len(far.heard) == 2)
            await far.says("oven/said", "1")
            await until(lambda: any(one.done() for one in asked))
            assert sum(one.done() for one in asked) == 1
            await far.says("oven/said", "2")
            assert sorted([(await one)["payload"] for one in asked]) == [1, 2]


async def test_a_request_that_ends_leaves_another_its_subscription(broker: Broker) -> None:
    """Also one that has only begun to subscribe."""
    async with driven(device(broker.port, {"speed": SPEED})) as (driver, _), far_end(broker.port) as far:
        await far.hears("oven/ask")
        ask = {"topic": "oven/ask", "response_topic": "oven/said", "timeout_s": 20}
        first = asyncio.create_task(driver.call("request", ask))
        await until(lambda: len(far.heard) == 1)
        second = asyncio.create_task(driver.call("request", ask))
        await asyncio.sleep(0)  # it has asked for its subscription
        first.cancel()
        await until(lambda: len(far.heard) == 2)
        await far.says("oven/said", "2")
        assert (await second)["payload"] == 2
        assert "oven/said" not in (await driver.call("status", {}))["granted"]


async def test_a_reading_after_a_write_waits_for_the_device_to_say_it(broker: Broker) -> None:
    config = device(broker.port, {"s": SETTING})
    async with driven(config) as (driver, heard), far_end(broker.port) as far:
        await far.hears("oven/set")
        await far.says("oven/setting", "1")
        await heard.until(lambda: takes(heard, "s") == [1])
        await driver.write({"s": 2})
        reading = asyncio.create_task(driver.read(["s"]))
        await until(lambda: far.heard)
        await far.says("oven/setting", "1")  # it had said that before it heard of the write
        await heard.until(lambda: takes(heard, "s") == [1, 1])
        await far.says("oven/setting", "2")
        assert (await reading).values == {"s": 2}


async def test_a_device_that_does_not_say_what_was_written_is_read_as_it_says(broker: Broker) -> None:
    config = device(broker.port, {"s": SETTING}, timeout="300ms")
    async with driven(config) as (driver, heard), far_end(broker.port) as far:
        await far.says("oven/setting", "1")
        await heard.until(lambda: takes(heard, "s") == [1])
        await driver.write({"s": 2})
        assert (await driver.read(["s"])).values == {"s": 1}
        assert (await driver.read(["s"])).values == {"s": 1}
