"""The MQTT driver and brokers that refuse, fall silent, or break the protocol."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mqtt_rig import device, driven, far_end, takes
from scripted import Heard, running
from waiting import until

from protocols.base import DeviceState, DriverError, Quality
from protocols.mqtt.driver import MqttDriver
from sim.mqtt.broker import Broker

POINT = {"t": {"topic": "oven/t", "encoding": "plain"}}
ORDER = {"o": {"access": "wo", "encoding": "plain", "write": {"topic": "oven/set"}}}
CONNACK = {"5": b"\x20\x03\0\0\0", "3.1.1": b"\x20\x02\0\0"}


def suback(packet: bytes, reason: int, version: str = "5") -> bytes:
    """The answer to a SUBSCRIBE with one filter."""
    body = packet[2:4] + (b"\0" if version == "5" else b"") + bytes((reason,))
    return bytes((0x90, len(body))) + body


class Scripted:
    """A broker that answers each kind of packet by a script."""

    def __init__(self, answers: Mapping[int, Callable[[bytes], bytes]]) -> None:
        self.answers = answers
        self.packets: list[bytes] = []
        self.port = 0
        self.reads = asyncio.Event()
        """Cleared: it takes nothing from its socket any more."""
        self.reads.set()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self.reads.wait():
                head = await reader.readexactly(2)
                while head[-1] & 0x80:
                    head += await reader.readexactly(1)
                length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[1:]))
                packet = head + await reader.readexactly(length)
                self.packets.append(packet)
                if (answer := self.answers.get(packet[0] >> 4)) is not None:
                    writer.write(answer(packet))
        writer.close()

    def send(self, data: bytes) -> None:
        self._writers[-1].write(data)


@contextlib.asynccontextmanager
async def scripted(answers: Mapping[int, Callable[[bytes], bytes]]) -> AsyncIterator[Scripted]:
    broker = Scripted(answers)
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        for writer in broker._writers:
            writer.transport.abort()
        await server.wait_closed()


def well(version: str = "5", reason: int = 1) -> dict[int, Callable[[bytes], bytes]]:
    """Lets in and grants everything."""
    return {1: lambda _: CONNACK[version], 8: lambda packet: suback(packet, reason, version)}


async def failing(config: Any) -> DriverError:
    """How connecting fails."""
    driver = MqttDriver(config)
    try:
        with pytest.raises(DriverError) as error:
            await driver.connect()
    finally:
        await driver.close()
    return error.value


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_wrong_password_is_said_in_words(tmp_path: Path, version: str) -> None:
    broker = Broker(user=("me", "right"))
    await broker.start()
    file = tmp_path / "password"
    where = {"version": version, "username": "me", "password_file": "password", "allow_insecure": True}
    config = device(broker.port, POINT, where).named("oven", tmp_path)
    file.write_text("wrong\n")
    assert "does not let us in: not authorized; are username and password_file" in str(await failing(config))
    file.write_text("right\n")
    async with driven(config):
        pass
    file.unlink()
    assert f"password_file: {file} cannot be read" in str(await failing(config))
    await broker.close()


CONNACKS = [
    ("5", b"\x20\x03\0\x86\0", "bad user name or password; are username and password_file right?"),
    ("5", b"\x20\x03\0\x85\0", "client identifier not valid; is client_id allowed there?"),
    ("5", b"\x20\x09\0\x97\x06\x1f\0\x03now", "quota exceeded; it says 'now'"),
    ("5", b"\x20\x02\0\x01", "unsupported protocol version; try the other version"),
    ("3.1.1", b"\x20\x02\0\x04", "bad user name or password"),
    ("3.1.1", b"\x20\x02\0\x05", "not authorized"),
    ("3.1.1", b"\x20\x02\0\x03", "server unavailable"),
    ("3.1.1", b"\x20\x02\0\x01", "before it let us in"),
    ("5", b"SSH-2.0\r\n", "did not answer CONNECT in 500ms"),
    ("5", b"\x20\x03\0\x55\0", "before it let us in"),
    ("5", b"", "did not answer CONNECT in 500ms"),
]


@pytest.mark.parametrize(("version", "answer", "text"), CONNACKS)
async def test_a_broker_that_does_not_let_us_in_is_told_of(version: str, answer: bytes, text: str) -> None:
    async with scripted({1: lambda _: answer}) as broker:
        error = await failing(device(broker.port, POINT, {"version": version}, connect_timeout="500ms"))
        assert text in str(error)
        assert error.code == ("timeout" if "did not answer" in text else "disconnected")


async def test_nobody_there_is_said(unused_port: int) -> None:
    assert "refused the connection" in str(await failing(device(unused_port, POINT)))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_refused_subscription_degrades_and_its_points_are_bad(version: str) -> None:
    reason = 0x87 if version == "5" else 0x80
    async with scripted(well(version, reason)) as broker:
        async with driven(device(broker.port, POINT, {"version": version})) as (_, heard):
            await heard.until(lambda: heard.states and heard.samples)
            state, told = heard.states[-1]
            assert state is DeviceState.DEGRADED
            assert told.startswith("the broker refused subscriptions: oven/t: ")
            assert takes(heard, "t") == [Quality.BAD_CONFIG]


async def test_a_broker_that_does_not_answer_a_subscription_is_a_time_out() -> None:
    async with scripted({1: lambda _: CONNACK["5"]}) as broker:
        error = await failing(device(broker.port, POINT, timeout="300ms"))
        assert (error.code, "did not acknowledge SUBSCRIBE in 300ms" in str(error)) == ("timeout", True)


LAST_WORDS = [
    (b"\xe0\x02\x8e\0", "session taken over; another client has the same client_id"),
    (b"\xe0\x00", "it ended the connection"),
    (b"\x30\x02\0\x05", "it broke the protocol"),
    (b"\x36\x04\0\x01a\0", "it broke the protocol"),
    (b"\xf0\x00", "it broke the protocol"),
    (b"\x30\xff\xff\xff\x7f" + b"x" * 100, "larger than max_payload can bear"),
    (b"\x30\xff\xff\xff\xff\x7f", "it broke the protocol"),
]


@pytest.mark.parametrize(("data", "text"), LAST_WORDS)
async def test_a_broker_that_ends_it_or_breaks_the_rules_is_a_lost_link(data: bytes, text: str) -> None:
    async with scripted(well()) as broker:
        async with driven(device(broker.port, POINT)) as (driver, heard):
            await heard.until(lambda: heard.states)
            broker.send(data)
            with pytest.raises(DriverError, match="broker") as error:
                await heard.run
            assert text in str(error.value)
            assert error.value.code == "disconnected"
            with pytest.raises(DriverError, match="not connected"):
                await driver.call("publish", {"topic": "a"})


async def test_a_broker_that_goes_silent_is_a_lost_link() -> None:
    """It takes everything and answers no ping."""
    async with scripted(well()) as broker:
        driver = MqttDriver(device(broker.port, POINT, {"keep_alive": 1}))
        await driver.connect()
        async with running(driver) as heard:
            with pytest.raises(DriverError, match="said nothing for 1 s"):
                await heard.run
        await driver.close()
        assert b"\xc0\0" in broker.packets


async def test_a_topic_that_is_no_text_is_counted_and_the_next_is_taken() -> None:
    async with scripted(well()) as broker:
        async with driven(device(broker.port, POINT)) as (driver, heard):
            broker.send(b"\x30\x05\0\x01\xff\0x" + b"\x30\x0a\0\x06oven/t\x00\x37")
            await heard.until(lambda: takes(heard, "t") == [7])
            await heard.until(lambda: heard.losses == [(1, "malformed-topic")])
            assert (await driver.call("status", {}))["lost"] == {"malformed-topic": 1}


async def test_pieces_of_packets_are_put_together() -> None:
    async with scripted(well()) as broker:
        async with driven(device(broker.port, POINT)) as (_, heard):
            await heard.until(lambda: heard.states)
            for byte in b"\x30\x0a\0\x06oven/t\x00\x31" * 3:
                broker.send(bytes((byte,)))
                await asyncio.sleep(0)
            await heard.until(lambda: takes(heard, "t") == [1, 1, 1])


PUBACKS = [
    (1, lambda packet: b"\x40\x03" + packet[12:14] + b"\x87", "not authorized"),
    (2, lambda packet: b"\x50\x03" + packet[12:14] + b"\x97", "quota exceeded"),
]


@pytest.mark.parametrize(("qos", "answer", "text"), PUBACKS)
async def test_a_refused_publish_is_an_error(qos: int, answer: Callable[[bytes], bytes], text: str) -> None:
    points = {"o": ORDER["o"] | {"write": {"topic": "oven/set", "qos": qos}}}
    async with scripted(well() | {3: answer}) as broker:
        async with driven(device(broker.port, points)) as (driver, _):
            with pytest.raises(DriverError, match=text) as error:
                await driver.write({"o": 1})
            assert (error.value.code, error.value.written) == ("device-error", {})


async def test_a_publish_that_nobody_acknowledges_is_not_repeated() -> None:
    async with scripted(well()) as broker:
        async with driven(device(broker.port, ORDER, timeout="200ms")) as (driver, _):
            with pytest.raises(DriverError, match="is not known, and it is not repeated") as error:
                await driver.write({"o": 1})
            assert error.value.code == "timeout"
        assert len([packet for packet in broker.packets if packet[0] >> 4 == 3]) == 1


async def test_a_link_lost_under_a_publish_leaves_it_unknown() -> None:
    async with scripted(well()) as broker:
        async with driven(device(broker.port, ORDER)) as (driver, heard):
            writing = asyncio.create_task(driver.write({"o": 1}))
            await until(lambda: broker.packets[-1][0] >> 4 == 3)
            broker._writers[-1].transport.abort()
            with pytest.raises(DriverError, match="was lost before it acknowledged") as error:
                await writing
            assert error.value.code == "disconnected"
            with pytest.raises(DriverError):
                await heard.run


async def deaf(broker: Scripted, driver: MqttDriver) -> list[DriverError]:
    """Lets the broker read no more, and publishes until nothing more is taken; how each publish failed."""
    broker.reads.clear()
    failures: list[DriverError] = []

    async def publish() -> None:
        try:
            await driver.call("publish", {"topic": "oven/set", "payload": "x" * 500_000})
        except DriverError as error:
            failures.append(error)

    while not failures:
        await asyncio.gather(*(publish() for _ in range(30)))
    return failures


async def test_publishes_to_a_broker_that_does_not_read_wait_and_then_were_not_sent() -> None:
    async with scripted(well()) as broker:
        async with driven(device(broker.port, ORDER, timeout="300ms")) as (driver, _):
            await deaf(broker, driver)  # from now on all twenty slots may be taken
            late = await deaf(broker, driver)
            unsent = [error for error in late if "nothing was published" in str(error)]
            assert all(error.code == "timeout" for error in late)
            assert len(unsent) >= 10
            client = driver._client
            assert client is not None
            assert client._paho is not None
            assert len(client._paho._out_packet) <= 20
            assert client._published == {}
            with pytest.raises(DriverError, match="nothing was published") as error:
                await driver.write({"o": 1})
            assert (error.value.code, error.value.written) == ("timeout", {})


async def test_a_broker_that_talks_and_does_not_read_is_not_read_either_until_it_does() -> None:
    """Or the answers to it would pile up here: a PUBREL has one, whatever it is for."""
    async with scripted(well()) as broker:
        async with driven(device(broker.port, POINT | ORDER, timeout="300ms")) as (driver, heard):
            await deaf(broker, driver)
            client = driver._client
            assert client is not None
            assert client._paho is not None
            waiting = len(client._paho._out_packet)
            broker.send(b"\x62\x02\0\1" * 10_000 + b"\x30\x0a\0\x06oven/t\x00\x31")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await heard.until(lambda: heard.samples)
            assert len(client._paho._out_packet) <= waiting + 1
            broker.reads.set()
            await heard.until(lambda: takes(heard, "t") == [1])


async def test_what_the_broker_does_not_take_is_not_sent() -> None:
    limits = b"\x20\x0c\0\0\x09\x24\0\x25\0\x27\0\0\0\x10"  # no QoS, nothing retained, 16 bytes at most
    async with scripted(well() | {1: lambda _: limits}) as broker:
        async with driven(device(broker.port, ORDER)) as (driver, _):
            for args, text in (
                ({"qos": 1}, "takes no QoS 1"),
                ({"retain": True}, "retains nothing"),
                ({"payload": "x" * 20}, "takes no message of 21 bytes"),
            ):
                with pytest.raises(DriverError, match=text) as error:
                    await driver.call("publish", {"topic": "a", **args})
                assert error.value.code == "device-error"
        assert not [packet for packet in broker.packets if packet[0] >> 4 == 3]


async def test_hostile_topics_do_no_harm() -> None:
    broker = Broker()
    await broker.start()
    config = device(broker.port, {"t": {"topic": "#", "encoding": "plain"}}, presence={"topic": "p"})
    async with driven(config) as (_, heard), far_end(broker.port) as far:
        for topic in ("/", "//", "a" * 60000, "$x", "oven/t\u0001", "ä/\U0001f600", " "):
            await far.says(topic, "1")
        await far.says("last", "2")
        await heard.until(lambda: takes(heard, "t")[-1:] == [2])
        assert takes(heard, "t") == [1] * 6 + [2]  # but $x, which wildcards do not match
    await broker.close()


async def test_closing_works_at_any_time_and_twice(unused_port: int) -> None:
    driver = MqttDriver(device(unused_port, POINT))
    await driver.close()
    with pytest.raises(DriverError):
        await driver.connect()
    await driver.close()
    await driver.close()
    for ask in (driver.read(["t"]), driver.write({"t": 1}), driver.call("status", {}), driver.run(Heard())):
        with pytest.raises(DriverError, match="not connected"):
            await ask
