"""The simulated broker, spoken to by paho: an MQTT client that we did not make."""

import asyncio
import contextlib
import queue
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from waiting import until

from sim.mqtt.broker import Broker

WAIT_S = 30.0
VERSIONS = (paho.MQTTv311, paho.MQTTv5)


class Client:
    """A paho client in a thread of its own."""

    def __init__(self, broker: Broker, version: int = paho.MQTTv5, name: str = "", **options: Any) -> None:
        if version == paho.MQTTv311:
            options.setdefault("clean_session", True)
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion(version), **options
        )
        self.broker = broker
        self.version = version
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self.paho.on_message = lambda _client, _data, message: self.messages.put(message)
        self.paho.on_connect = lambda _c, _d, flags, reason, _p: self._answers.put((flags, reason))
        self.paho.on_subscribe = lambda _c, _d, _m, reasons, _p: self._answers.put(reasons)
        self.paho.on_unsubscribe = lambda _c, _d, _m, reasons, _p: self._answers.put(reasons)

    async def connect(self, **options: Any) -> Any:
        """Connects; gives CONNACK's flags and reason."""
        await asyncio.to_thread(self.paho.connect, self.broker.host, self.broker.port, 30, **options)
        self.paho.loop_start()
        return await self.answer()

    async def answer(self) -> Any:
        return await asyncio.to_thread(self._answers.get, True, WAIT_S)

    async def subscribe(self, *filters: tuple[str, Any]) -> list[int]:
        self.paho.subscribe(list(filters))
        return [reason.value for reason in await self.answer()]

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **options: Any) -> None:
        """Publishes and waits until the broker has it."""
        info = self.paho.publish(topic, payload, qos, **options)
        await asyncio.to_thread(info.wait_for_publish, WAIT_S)
        assert info.is_published()

    async def next(self) -> paho.MQTTMessage:
        return await asyncio.to_thread(self.messages.get, True, WAIT_S)

    async def stop(self, *, rudely: bool = False) -> None:
        if rudely:
            sock = self.paho.socket()
            assert sock is not None
            self.paho.loop_stop()
            sock.close()
        else:
            self.paho.disconnect()
            await asyncio.to_thread(self.paho.loop_stop)
        del self.paho  # it closes sockets of its own when nothing refers to it


def properties(kind: int, **values: Any) -> Properties:
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker()
    await made.start()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def client(broker: Broker, *args: Any, **options: Any) -> AsyncIterator[Client]:
    made = Client(broker, *args, **options)
    _, reason = await made.connect()
    assert not reason.is_failure
    try:
        yield made
    finally:
        await made.stop()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_is_published_comes_to_whoever_subscribed(broker: Broker, version: int, qos: int) -> None:
    async with client(broker, version) as one, client(broker, version) as other:
        assert await one.subscribe(("plant/+/speed", qos), ("other/#", 0)) == [qos, 0]
        for number in range(20):
            await other.publish(f"plant/{number}/speed", str(number).encode(), qos)
        await other.publish("elsewhere", b"", qos)
        await other.publish("other/a/b", b"last", 2)
        found = [await one.next() for _ in range(21)]
    speeds = [message for message in found if message.topic != "other/a/b"]  # whose QoS may let it overtake
    assert [message.payload for message in speeds] == [str(number).encode() for number in range(20)]
    assert {(message.qos, message.retain) for message in speeds} == {(qos, False)}
    others = [(message.payload, message.qos) for message in found if message.topic == "other/a/b"]
    assert others == [(b"last", 0)]


async def test_overlapping_subscriptions_bring_a_message_once_with_the_higher_qos(broker: Broker) -> None:
    async with client(broker) as one:
        await one.subscribe(("a/#", 0), ("a/+", 2))
        await one.publish("a/b", b"1", 2)
        await one.publish("a/b", b"2", 2)
        assert [((await one.next()).payload), (await one.next()).payload] == [b"1", b"2"]


async def test_retained_messages_come_with_the_subscription_and_an_empty_one_removes_them(
    broker: Broker,
) -> None:
    async with client(broker) as one, client(broker) as other:
        await one.publish("a/state", b"on", retain=True)
        await one.publish("b/state", b"on", retain=True)
        await one.publish("b/state", b"", retain=True)
        await other.subscribe(("+/state", 1))
        first = await other.next()
        assert (first.topic, first.payload, first.retain) == ("a/state", b"on", True)
        await other.subscribe(("+/state", SubscribeOptions(1, retainHandling=1)))  # it is there already
        await other.subscribe(("+/state", SubscribeOptions(1, retainHandling=2)))
        await one.publish("end/state", b"")
        assert (await other.next()).topic == "end/state"


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_last_will_speaks_only_where_nobody_said_good_bye(broker: Broker, version: int) -> None:
    async with client(broker, version) as watcher:
        await watcher.subscribe(("state/#", 1))
        for name, rudely in (("kind", False), ("rude", True)):
            made = Client(broker, version, name)
            made.paho.will_set(f"state/{name}", b"gone", 1, retain=True)
            await made.connect()
            await made.stop(rudely=rudely)
        last = await watcher.next()
        assert (last.topic, last.payload) == ("state/rude", b"gone")
    assert "state/kind" not in broker.router.retained


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_kept_session_gets_what_came_while_its_client_was_away(broker: Broker, version: int) -> None:
    options: dict[str, Any] = {"clean_session": False} if version == paho.MQTTv311 else {}
    connect: dict[str, Any] = {}
    if version == paho.MQTTv5:
        connect["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=3600)
        connect["clean_start"] = False
    away = Client(broker, version, "keeper", **options)
    flags, _ = await away.connect(**connect)
    assert not flags.session_present
    await away.subscribe(("news", 2))
    await away.stop()
    async with client(broker, version) as other:
        for number in range(5):
            await other.publish("news", str(number).encode(), 2)
        again = Client(broker, version, "keeper", **options)
        flags, _ = await again.connect(**connect)
        assert flags.session_present
        assert [(await again.next()).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        await again.stop()


async def test_members_of_a_shared_subscription_share(broker: Broker) -> None:
    async with client(broker) as one, client(broker) as two, client(broker) as other:
        await one.subscribe(("$share/workers/jobs", 1))
        await two.subscribe(("$share/workers/jobs", 1))
        for number in range(10):
            await other.publish("jobs", str(number).encode())
        await until(lambda: one.messages.qsize() + two.messages.qsize() == 10)
        assert one.messages.qsize() == two.messages.qsize() == 5
        assert await one.subscribe(("$share/workers", 1)) == [0x80]


async def test_properties_of_a_request_reach_the_other_side(broker: Broker) -> None:
    async with client(broker) as one, client(broker, paho.MQTTv311) as old:
        await one.subscribe(("do", SubscribeOptions(1)))
        await old.subscribe(("do", 1))
        sent = properties(
            PacketTypes.PUBLISH,
            ResponseTopic="done",
            CorrelationData=b"7",
            UserProperty=[("who", "me"), ("who", "you")],
            MessageExpiryInterval=60,
        )
        await one.publish("do", b"it", properties=sent)
        found: Any = (await one.next()).properties
        assert found is not None
        assert (found.ResponseTopic, found.CorrelationData) == ("done", b"7")
        assert found.UserProperty == [("who", "me"), ("who", "you")]
        assert 0 < found.MessageExpiryInterval <= 60
        assert (await old.next()).payload == b"it"


async def test_no_local_and_unsubscribe_are_honoured(broker: Broker) -> None:
    async with client(broker) as one, client(broker) as other:
        await one.subscribe(("a", SubscribeOptions(1, noLocal=True)), ("b", SubscribeOptions(1)))
        await one.publish("a", b"own")
        await other.publish("a", b"other's")
        assert (await one.next()).payload == b"other's"
        one.paho.unsubscribe("a")
        await one.answer()
        await other.publish("a", b"not wanted")
        await other.publish("b", b"wanted")
        assert (await one.next()).payload == b"wanted"


@pytest.mark.parametrize("version", VERSIONS)
async def test_only_the_right_password_is_let_in(version: int) -> None:
    broker = Broker(user=("joe", "secret"))
    await broker.start()
    try:
        for password, good in (("wrong", False), ("secret", True)):
            made = Client(broker, version)
            made.paho.username_pw_set("joe", password)
            _, reason = await made.connect()
            assert reason.is_failure != good
            await made.stop()
        made = Client(broker, version)
        _, reason = await made.connect()
        assert reason.is_failure
        await made.stop()
    finally:
        await broker.close()


async def test_a_second_client_of_the_same_id_takes_over_and_the_will_speaks(broker: Broker) -> None:
    one = Client(broker, name="same")
    one.paho.will_set("state/same", b"gone")
    gone: queue.Queue[Any] = queue.Queue()

    def put_out(_c: Any, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        gone.put(reason)
        one.paho.disconnect()  # or paho would come again, and take over in turn

    one.paho.on_disconnect = put_out
    await one.connect()
    async with client(broker) as watcher:
        await watcher.subscribe(("state/#", 1))
        async with client(broker, paho.MQTTv5, "same"):
            reason = await asyncio.to_thread(gone.get, True, WAIT_S)
            assert reason.value == 0x8E
            assert (await watcher.next()).payload == b"gone"
            await until(lambda: len(broker.connections) == 2)
    await one.stop()


@pytest.fixture
def raw(broker: Broker) -> Iterator[socket.socket]:
    with socket.create_connection((broker.host, broker.port), WAIT_S) as made:
        yield made


CONNECT = b"\x10\x0d\0\4MQTT\4\2\0\1\0\1r"  # keep alive 1 s


async def test_a_client_that_breaks_the_rules_is_put_out(broker: Broker, raw: socket.socket) -> None:
    raw.sendall(CONNECT + b"\xf0\0")
    while await asyncio.to_thread(raw.recv, 100):
        pass
    assert broker.malformed == 1


async def test_silence_beyond_the_keep_alive_ends_a_connection(broker: Broker, raw: socket.socket) -> None:
    raw.sendall(CONNECT)
    assert await asyncio.to_thread(raw.recv, 100) == b"\x20\2\0\0"
    assert await asyncio.to_thread(raw.recv, 100) == b""


async def test_what_was_not_acknowledged_is_sent_again_as_a_duplicate(broker: Broker) -> None:
    kept = b"\x10\x0d\0\4MQTT\4\0\0\x3c\0\1k"
    subscribe = b"\x82\6\0\1\0\1t\1"
    for flags in (0x32, 0x3A):  # PUBLISH at QoS 1; the second time with DUP
        with socket.create_connection((broker.host, broker.port), WAIT_S) as sock:
            stream = sock.makefile("rb")
            sock.sendall(kept)
            connack = await asyncio.to_thread(stream.read, 4)
            assert connack == (b"\x20\2\0\0" if flags == 0x32 else b"\x20\2\1\0")
            if flags == 0x32:
                sock.sendall(subscribe)
                assert await asyncio.to_thread(stream.read, 5) == b"\x90\3\0\1\1"
                async with client(broker) as other:
                    await other.publish("t", b"x")
            data = await asyncio.to_thread(stream.read, 8)
            assert data == bytes((flags, 6)) + b"\0\1t" + struct.pack(">H", 1) + b"x"
            stream.close()
        await until(lambda: not broker.connections)
