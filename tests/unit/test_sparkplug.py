"""Sparkplug B's session: order, holes, births and deaths, quality, commands."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_host import ScriptedHost

from protocols.base import DeviceState, DriverError, Quality, Refused
from protocols.mqtt import tahu
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.message import Message
from protocols.mqtt.sparkplug import BD_SEQ, REBIRTH, Sparkplug
from protocols.mqtt.tahu_values import DataType

D = DataType
NOW_NS = 1_700_000_000_000_000_000
POINTS: dict[str, Any] = {
    "speed": {"metric": "Speed", "access": "rw"},
    "level": {"metric": "Level", "type": "integer", "access": "rw"},
    "reset": {"metric": "Reset", "type": "boolean", "access": "wo"},
}
BORN = [("Speed", 1, D.Float, 1.5), ("Level", 2, D.Int8, 7), ("Reset", 3, D.Boolean, False)]


def device(**more: Any) -> MqttDevice:
    whole = {
        "protocol": "mqtt",
        "connection": {"transport": "tcp", "host": "broker.example"},
        "payload": "sparkplug",
        "sparkplug": {"group": "g", "edge_node": "n", "device": "d", **more},
        "points": POINTS,
        "timeout": "20s",
    }
    return MqttDevice.model_validate(whole).named("rig")


class Node:
    """An edge node with one device, and what the gateway makes of it."""

    def __init__(self, reorder: float = 20.0, **more: Any) -> None:
        self.host = ScriptedHost()
        self.it = Sparkplug(device(**more), reorder)
        self.seq = 0

    def says(self, kind: str, metrics: Any = (), seq: int | None = None, **more: Any) -> None:
        number = self.seq if seq is None else seq
        if kind != "NDEATH" and seq is None:
            self.seq = (self.seq + 1) % 256
        body = tahu.encode(metrics, 1000, None if kind == "NDEATH" else number, **more)
        self.raw(kind, body)

    def raw(self, kind: str, body: bytes, **more: Any) -> None:
        self.it.take(Message(f"spBv1.0/g/{kind}/n{'/d' if kind[0] == 'D' else ''}", body, NOW_NS, **more))

    async def born(self) -> "Node":
        await self.it.begin(self.host)
        self.birth()
        return self

    def birth(self, bd_seq: int = 4) -> None:
        self.seq = 0
        self.says("NBIRTH", [(BD_SEQ, None, D.Int64, bd_seq), (REBIRTH, None, D.Boolean, False)])
        self.says("DBIRTH", BORN)

    def rebirths(self) -> int:
        return sum(
            one.name == REBIRTH and "/NCMD/" in publication.topic
            for publication in self.host.published
            for one in tahu.parse(publication.payload).metrics
        )


async def test_a_birth_says_all_and_data_go_by_alias() -> None:
    node = await Node().born()
    assert node.rebirths() == 1
    assert node.host.states[-1][0] is DeviceState.ONLINE
    assert node.host.samples[-1].values == {"speed": 1.5, "level": 7}
    assert node.host.samples[-1].time_ns == 1_000_000_000
    node.says("DDATA", [(None, 2, D.Int8, -8)], typed=False)
    assert node.host.samples[-1].values == {"level": -8}
    assert (await node.it.read(["speed", "level"])).values == {"speed": 1.5, "level": -8}
    await node.it.end()


async def test_metrics_of_different_times_are_samples_of_their_own() -> None:
    node = await Node().born()
    before = len(node.host.samples)
    metrics = [("Speed", None, D.Float, 2.0), ("Level", None, D.Int8, 1), ("Speed", None, D.Float, 3.0)]
    node.says("DDATA", metrics, times={"Level": 2000})
    found = [(one.time_ns // 1_000_000, one.values) for one in node.host.samples[before:]]
    assert found == [(1000, {"speed": 2.0}), (2000, {"level": 1}), (1000, {"speed": 3.0})]
    await node.it.end()


async def test_a_message_that_is_late_is_waited_for() -> None:
    node = await Node().born()
    for seq, value in ((3, 3.0), (4, 4.0), (2, 2.0)):
        node.says("DDATA", [("Speed", None, D.Float, value)], seq=seq)
    assert [one.values["speed"] for one in node.host.samples[-3:]] == [2.0, 3.0, 4.0]
    assert node.host.losses == []
    await node.it.end()


async def test_a_message_that_is_missing_is_a_loss_and_asks_for_a_rebirth() -> None:
    node = await Node(reorder=0.0).born()
    node.says("DDATA", [("Speed", None, D.Float, 9.0)], seq=4)
    async with asyncio.timeout(20):
        while node.rebirths() < 2:
            await asyncio.sleep(0)
    assert node.host.losses == [(3, "sequence")]  # 2 and 3 never came, 4 rests on them
    assert "missing" in node.host.states[-1][1]
    assert 9.0 not in [one.values.get("speed") for one in node.host.samples]
    node.birth()
    assert node.host.states[-1][0] is DeviceState.ONLINE
    await node.it.end()


async def test_sequence_numbers_begin_again_after_255() -> None:
    node = await Node().born()
    for n in range(600):
        node.says("DDATA", [("Level", None, D.Int8, n % 100)])
    assert node.host.losses == []
    assert node.host.samples[-1].values == {"level": 99}
    await node.it.end()


async def test_data_before_a_birth_mean_nothing() -> None:
    node = Node()
    await node.it.begin(node.host)
    node.says("DDATA", [("Speed", 1, D.Float, 5.0)], seq=17)
    assert node.host.samples == []
    assert node.host.losses == [(1, "before-birth")]
    with pytest.raises(DriverError, match="nothing was published"):
        await node.it.write({"speed": 1.0})
    with pytest.raises(DriverError):
        await node.it.read(["speed"])
    await node.it.end()


@pytest.mark.parametrize(("bd_seq", "dead"), [(4, True), (3, False)])
async def test_only_a_death_of_this_birth_counts(bd_seq: int, dead: bool) -> None:
    node = await Node().born()
    node.says("NDEATH", [(BD_SEQ, None, D.Int64, bd_seq)])
    assert (node.host.states[-1][0] is DeviceState.DEGRADED) is dead
    assert (node.host.samples[-1].bad.get("speed") is Quality.DISCONNECTED) is dead
    assert "reset" not in node.host.samples[-1].bad
    await node.it.end()


async def test_a_device_may_die_alone_and_come_back() -> None:
    node = await Node().born()
    node.says("DDEATH")
    assert node.host.samples[-1].bad == dict.fromkeys(("speed", "level"), Quality.DISCONNECTED)
    node.says("DBIRTH", BORN)
    assert node.host.states[-1][0] is DeviceState.ONLINE
    assert node.host.losses == []
    await node.it.end()


async def test_null_other_types_and_unknown_metrics() -> None:
    node = await Node().born()
    node.says(
        "DDATA", [("Speed", None, D.Float, None), ("Level", None, D.String, "x"), ("New", None, D.Int8, 1)]
    )
    assert node.host.samples[-1].bad == {"speed": Quality.DEVICE_ERROR, "level": Quality.BAD_CONFIG}
    skipped = node.it.status()["skipped"]
    assert (skipped["other-type"], skipped["unknown-metric"]) == (1, 1)
    await node.it.end()


async def test_a_metric_that_the_birth_does_not_have_is_bad() -> None:
    node = Node()
    await node.it.begin(node.host)
    node.says("NBIRTH", [(BD_SEQ, None, D.Int64, 1)])
    node.says("DBIRTH", BORN[:1])
    assert node.host.samples[-1].bad == {"level": Quality.BAD_CONFIG}
    assert "Level" in node.host.states[-1][1]
    await node.it.end()


async def test_malformed_and_retained_messages_are_counted() -> None:
    node = await Node().born()
    before = len(node.host.samples)
    node.raw("DDATA", b"\xff")
    node.raw("DDATA", tahu.encode(BORN, 1, 2), retain=True)
    assert node.host.losses == [(1, "malformed"), (1, "retained")]
    assert len(node.host.samples) == before
    await node.it.end()


async def _until_published(node: Node, count: int) -> None:
    async with asyncio.timeout(20):
        while len(node.host.published) < count:
            await asyncio.sleep(0)


async def test_a_command_has_the_births_type_and_waits_for_the_device() -> None:
    node = await Node().born()
    count = len(node.host.published)
    task = asyncio.create_task(node.it.write({"speed": 0.1, "level": 5}))
    await _until_published(node, count + 1)
    sent = node.host.published[-1]
    assert (sent.topic, sent.qos, sent.retain) == ("spBv1.0/g/DCMD/n/d", 0, False)
    assert [(m.name, m.datatype) for m in tahu.parse(sent.payload).metrics] == [
        ("Speed", D.Float),
        ("Level", D.Int8),
    ]
    node.says("DDATA", [("Speed", None, D.Float, 0.1)])
    await asyncio.sleep(0)
    assert not task.done()
    node.says("DDATA", [("Level", None, D.Int8, 5)])
    assert (await task).values == {"speed": 0.1, "level": 5}
    await node.it.write({"reset": True})  # nothing is read of it: it went out
    await node.it.end()


async def test_a_device_that_does_not_follow_is_a_mismatch() -> None:
    node = await Node().born()
    node.it._device = node.it._device.model_copy(update={"timeout": 0.01})
    with pytest.raises(DriverError) as caught:
        await node.it.write({"speed": 50.0})
    assert (caught.value.code, caught.value.written) == ("verify-mismatch", {"speed": 50.0})
    assert list(caught.value.unverified) == ["speed"]
    await node.it.end()


async def test_a_value_that_the_type_cannot_hold_is_refused() -> None:
    node = await Node().born()
    count = len(node.host.published)
    with pytest.raises(Refused, match="Int8"):
        await node.it.write({"level": 300})
    assert len(node.host.published) == count
    await node.it.end()


@pytest.mark.parametrize(("method", "args"), [("other", {}), ("rebirth", {"x": 1})])
async def test_other_calls_are_refused(method: str, args: dict[str, Any]) -> None:
    node = await Node().born()
    with pytest.raises(Refused):
        await node.it.call(method, args)
    await node.it.end()


async def test_the_primary_host_has_a_will_and_contradicts_an_old_one() -> None:
    node = Node(host="hil")
    assert node.it.will is not None
    assert (node.it.will.topic, node.it.will.qos, node.it.will.retain) == ("spBv1.0/STATE/hil", 1, True)
    await node.born()
    assert b'"online":true' in node.host.published[0].payload
    count = len(node.host.published)
    node.it.take(Message("spBv1.0/STATE/hil", b'{"online":false}', NOW_NS))
    await _until_published(node, count + 1)
    assert b'"online":true' in node.host.published[-1].payload
    await node.it.end()
    assert b'"online":false' in node.host.published[-1].payload


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["NBIRTH", "DBIRTH", "DDATA", "NDATA", "DDEATH", "NDEATH", "XX"]),
            st.one_of(
                st.binary(max_size=40),
                st.builds(
                    lambda seq, kind, value: tahu.encode([("Speed", 1, kind, value)], 5, seq),
                    st.integers(0, 300),
                    st.sampled_from([D.Double, D.Float]),
                    st.floats(width=32),
                ),
            ),
        ),
        max_size=12,
    )
)
def test_whatever_comes_it_does_not_raise(messages: list[tuple[str, bytes]]) -> None:
    async def run() -> None:
        node = Node()
        await node.it.begin(node.host)
        for kind, body in messages:
            node.raw(kind, body)
        await node.it.end()

    asyncio.run(run())


async def test_a_reading_is_as_old_as_the_oldest_of_its_values() -> None:
    node = await Node().born()
    node.raw("DDATA", tahu.encode([(None, 2, D.Int8, 8)], 5000, node.seq, typed=False))
    sample = await node.it.read(["speed", "level"])
    assert (sample.values, sample.time_ns) == ({"speed": 1.5, "level": 8}, 1_000_000_000)
    await node.it.end()


async def test_data_that_come_while_a_rebirth_is_asked_for_are_taken() -> None:
    node = await Node().born()
    task = asyncio.create_task(node.it.call("rebirth", {}))
    async with asyncio.timeout(20):
        while node.rebirths() < 2:
            await asyncio.sleep(0)
    node.says("DDATA", [(None, 2, D.Int8, 8)], typed=False)
    assert node.host.samples[-1].values == {"level": 8}
    assert node.host.losses == []
    assert not task.done()
    node.birth()
    assert (await task)["metrics"] == 3
    await node.it.end()


async def test_what_waited_for_its_predecessor_when_the_node_died_is_a_loss() -> None:
    node = await Node().born()
    node.seq += 1
    node.says("DDATA", [(None, 2, D.Int8, 8)], typed=False)
    node.says("NDEATH", [(BD_SEQ, None, D.Int64, 4)])
    assert node.host.losses == [(1, "sequence")]
    await node.it.end()


async def test_what_is_larger_than_max_payload_is_not_read() -> None:
    node = await Node().born()
    node.raw("DDATA", bytes(1024 * 1024 + 1))
    assert node.host.losses == [(1, "too-large")]
    await node.it.end()


@pytest.mark.parametrize("payload", [b'"\xff"', b"[" * 100_000])
async def test_a_hostile_state_of_ours_is_said_anew(payload: bytes) -> None:
    node = Node(host="h")
    await node.it.begin(node.host)
    before = len(node.host.published)
    node.it.take(Message("spBv1.0/STATE/h", payload, NOW_NS, retain=True))
    async with asyncio.timeout(20):
        while len(node.host.published) == before:
            await asyncio.sleep(0)
    assert node.host.published[-1].topic == "spBv1.0/STATE/h"
    await node.it.end()
