"""The MQTT driver against mosquitto: TLS and client certificates, users and their rights, kept sessions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from mosquitto import GET, mosquitto, why_missing

from protocols.base import DeviceState, DriverError, Quality, Sample
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.driver import MqttDriver

WAIT_S = 20.0
VERSIONS = ["5", "3.1.1"]
T = {"topic": "oven/t", "encoding": "plain"}
SETTING = {"topic": "oven/s", "encoding": "plain", "access": "rw", "write": {"topic": "oven/s"}}


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.holds = False

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append((state, reason))

    def frames(self, body: bytes, time_ns: int) -> None: ...

    def missed(self, cycles: int, period: float) -> None: ...

    def lost(self, count: int, reason: str) -> None: ...

    async def kept(self) -> None:
        if self.holds:
            await asyncio.Event().wait()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.samples) < count:
                await asyncio.sleep(0.005)

    @property
    def values(self) -> list[dict[str, Any]]:
        return [dict(sample.values) for sample in self.samples]


def device(
    port: int, points: dict[str, Any], connection: dict[str, Any] | None = None, **more: Any
) -> MqttDevice:
    where = {"transport": "tcp", "host": "127.0.0.1", "port": port} | (connection or {})
    fields = {
        "protocol": "mqtt",
        "connection": where,
        "points": points,
        "timeout": "20s",
        "connect_timeout": "20s",
    }
    return MqttDevice.model_validate(fields | more).named("oven")


@contextlib.asynccontextmanager
async def driven(config: MqttDevice, heard: Heard | None = None) -> AsyncIterator[tuple[MqttDriver, Heard]]:
    driver, sink = MqttDriver(config), heard or Heard()
    run = None
    try:
        await driver.connect()
        run = asyncio.create_task(driver.run(sink))
        yield driver, sink
    finally:
        if run is not None:
            run.cancel()
            await asyncio.wait([run])
            if not run.cancelled():
                run.exception()  # looked at: tests of lost links end so
        await driver.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, need: Any) -> Iterator[int]:
    need("mosquitto", why_missing(), GET)
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as port:
        yield port


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_go_both_ways(plain: int, version: str, qos: int) -> None:
    topic = f"both/{version}/{qos}"
    point = SETTING | {"topic": topic, "write": {"topic": topic, "qos": qos}}
    async with driven(device(plain, {"s": point}, {"version": version}, qos=qos)) as (driver, heard):
        for number in range(50):
            await driver.write({"s": number})
        await heard.until(50)
        assert heard.values == [{"s": number} for number in range(50)]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_overlapping_topics_bring_a_message_once(plain: int, qos: int) -> None:
    """mosquitto sends a copy for each subscription."""
    points = {"one": T | {"topic": "x/+"}, "two": T | {"topic": "+/y"}}
    async with driven(device(plain, points, qos=qos)) as (driver, heard):
        for number in range(3):
            await driver.call("publish", {"topic": "x/y", "payload": number, "qos": qos})
        await driver.call("publish", {"topic": "x/end", "payload": 9, "qos": qos})
        await heard.until(4)
        assert heard.values == [{"one": number, "two": number} for number in range(3)] + [{"one": 9}]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_not_kept_comes_again(plain: int, version: str, qos: int) -> None:
    topic = f"kept/{version}/{qos}"
    where = {"version": version, "client_id": f"kept-{version}-{qos}", "session_expiry": "1h"}
    config = device(plain, {"t": T | {"topic": topic}}, where, qos=qos)
    async with driven(device(plain, {"t": T})) as (other, _):
        killed = Heard()
        killed.holds = True
        async with driven(config, killed) as (driver, _):
            for number in range(10):
                await other.call("publish", {"topic": topic, "payload": number, "qos": qos})
            await killed.until(10)
            assert driver._client is not None
            assert driver._client._stream is not None
            driver._client._stream.abort()
        async with driven(config) as (_, again):
            await again.until(10)
            await other.call("publish", {"topic": topic, "payload": 10, "qos": qos})
            await again.until(11)
            assert again.values == [{"t": number} for number in range(11)]


async def test_requests_and_answers_by_mosquittos_own_client(plain: int) -> None:
    """`mosquitto_sub` shows that response topic and correlation data are there."""
    options = ("-h", "127.0.0.1", "-p", str(plain), "-V", "5", "-t", "ask/1", "-C", "1", "-F", "%R %D %p")
    command = ("stdbuf", "-oL", "mosquitto_sub", *options, "-d")  # line by line, also into a pipe
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        while b"SUBACK" not in await process.stdout.readline():
            pass
    async with driven(device(plain, {"t": T})) as (driver, _), driven(device(plain, {"t": T})) as (far, _):
        args = {"topic": "ask/1", "payload": "hello", "response_topic": "ask/reply", "timeout_s": 20}
        asking = asyncio.create_task(driver.call("request", args))
        async with asyncio.timeout(WAIT_S):
            said = (await process.stdout.read()).decode(errors="replace")
        assert "ask/reply" in said
        assert "hello" in said
        await far.call("publish", {"topic": "ask/reply", "payload": "hello yourself"})
        assert (await asking)["payload"] == "hello yourself"
    await process.wait()


@pytest.mark.parametrize("version", VERSIONS)
async def test_users_and_what_they_may(tmp_path: Path, need: Any, version: str) -> None:
    need("mosquitto", why_missing(), GET)
    acl = "user me\ntopic readwrite oven/t\ntopic read oven/other\n"
    (tmp_path / "secret").write_text("right\n")
    where = {"version": version, "username": "me", "password_file": "secret", "allow_insecure": True}
    with mosquitto(tmp_path, users={"me": "right"}, acl=acl) as port:
        wrong = device(port, {"t": T}, where).named("oven", tmp_path)
        points = {"t": T, "o": SETTING | {"topic": "oven/other", "write": {"topic": "oven/other"}}}
        async with driven(device(port, points, where).named("oven", tmp_path)) as (driver, heard):
            await driver.call("publish", {"topic": "oven/t", "payload": 1, "qos": 1})
            await heard.until(1)
            if version == "5":  # 3.1.1 has no word for it
                for qos in (1, 2):
                    with pytest.raises(
                        DriverError, match="refused the publish on oven/other: not authorized"
                    ):
                        await driver.call("publish", {"topic": "oven/other", "payload": 1, "qos": qos})
        (tmp_path / "secret").write_text("wrong\n")
        driver = MqttDriver(wrong)
        with pytest.raises(DriverError, match="does not let us in: not authorized; are username"):
            await driver.connect()
        await driver.close()


async def test_a_subscription_that_it_refuses(tmp_path: Path, need: Any) -> None:
    need("mosquitto", why_missing(), GET)
    with mosquitto(tmp_path, acl="topic read oven/t\ntopic deny secret/#\n") as port:
        points = {"t": T, "s": T | {"topic": "secret/#"}}
        async with driven(device(port, points)) as (driver, heard):
            status = await driver.call("status", {})
            if status["granted"]["secret/#"] == 1:
                pytest.skip("this mosquitto grants what it does not send")
            await heard.until(1)
            assert heard.samples[0].bad == {"s": Quality.BAD_CONFIG}
            assert heard.states[-1][0] is DeviceState.DEGRADED


async def test_tls_with_certificates_on_both_sides(tmp_path: Path, need: Any) -> None:
    need("mosquitto", why_missing(), GET)
    authority, stranger = trustme.CA(), trustme.CA()
    authority.issue_cert("broker.example").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "own.pem")
    )
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("agent.example").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "agent.pem")
    )
    stranger.issue_cert("agent.example").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "strange.pem")
    )
    stranger.cert_pem.write_to_path(str(tmp_path / "strange-ca.pem"))
    own = tmp_path / "own.pem"
    lines = [f"cafile {tmp_path / 'ca.pem'}", f"certfile {own}", f"keyfile {own}", "require_certificate true"]
    tls = {"transport": "tls", "ca": "ca.pem", "cert": "agent.pem", "server_name": "broker.example"}
    with mosquitto(tmp_path, *lines) as port:

        def config(**changed: Any) -> MqttDevice:
            return device(port, {"s": SETTING}, tls | changed).named("oven", tmp_path)

        for good in ({}, {"server_name": None, "verify": False}):
            async with driven(config(**good)) as (driver, heard):
                await driver.write({"s": 1})
                await heard.until(1)
        for bad, text in (
            ({"server_name": None}, "certificate not trusted"),
            ({"ca": "strange-ca.pem"}, "certificate not trusted"),
            ({"cert": None}, None),
            ({"cert": "strange.pem"}, None),
            ({"cert": "missing.pem"}, "missing.pem"),
        ):
            driver = MqttDriver(config(**bad))
            with pytest.raises(DriverError, match=text) as error:
                await driver.connect()
            assert error.value.code == "disconnected"
            await driver.close()
