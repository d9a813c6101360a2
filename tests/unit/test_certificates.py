"""What is said of certificates: when they end, and where the other end's is not checked."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent import certificates as watching
from agent.certificates import Certificates
from agent.device import Device
from agent.events import Events
from agent.latest import LatestValues
from agent.settings import Settings
from agent.store import SqliteStore
from protocols.base import DeviceConfig
from protocols.dnp3.config import Dnp3Device
from protocols.modbus.config import ModbusDevice
from protocols.mqtt.config import MqttDevice
from protocols.tls import UNASKED, UNVERIFIED

DAY_S = 86400.0


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as said:
        yield said


def made(**settings: Any) -> Certificates:
    raw = {"bench": "rig", "broker": "amqps://broker.example"} | settings
    return Certificates(Settings.model_validate(raw), SimpleNamespace(), SimpleNamespace(), lambda: None)  # type: ignore[arg-type]  # neither is asked here


def test_the_end_is_said_once_at_each_threshold(lines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = made()
    end = time.time() + 40 * DAY_S
    certificates._links[0].ends = {"cert": end}
    warned = {}
    for left in (40, 31, 29.5, 29, 8, 6.9, 3, 0.9, 0.5, -0.1, -5):
        now = end - left * DAY_S
        monkeypatch.setattr(watching, "time", SimpleNamespace(time=lambda now=now: now))
        before = len(lines)
        certificates._warn()
        certificates._warn()
        if lines[before:]:
            (line,) = lines[before:]
            warned[left] = line["event"]
    soon = "a certificate ends soon"
    assert warned == {29.5: soon, 6.9: soon, 0.9: soon, -0.1: "a certificate has ended"}
    assert {line["certificate"] for line in lines} == {"tls_cert"}


def test_a_new_certificate_is_warned_of_anew(lines: list[Any]) -> None:
    certificates = made()
    for days in (5, 6):
        certificates._links[0].ends = {"cert": time.time() + days * DAY_S}
        certificates._warn()
    assert len(lines) == 2


def test_certificates_have_the_names_of_their_settings() -> None:
    certificates = made()
    broker, http = certificates._links
    broker.ends, http.ends = {"ca": 1.0, "cert": 2.0}, {"ca": 3.0, "cert": 4.0}
    assert certificates.not_after == {
        "tls_ca": 1.0,
        "tls_cert": 2.0,
        "http_client_ca": 3.0,
        "http_cert": 4.0,
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, ""), ({"tls_verify": False}, f"broker: tls_{UNVERIFIED}"), ({"broker": "amqp://b.example"}, "")],
)
async def test_a_broker_that_is_not_verified_is_said(
    settings: dict[str, Any], words: str, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(**settings)
    assert one.reason == words
    monkeypatch.setattr(one._bench, "made", asyncio.Event(), raising=False)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    warned = [line["reason"] for line in lines if line["event"] == "a certificate is not checked"]
    assert [f"broker: {reason}" for reason in warned] == ([words] if words else [])


def modbus(**tls: Any) -> DeviceConfig:
    connection = {"transport": "tls", "host": "plc.example", **tls}
    return ModbusDevice.model_validate(
        {"protocol": "modbus", "connection": connection, "address_base": 0, "points": {}}
    )


def called(**tls: Any) -> DeviceConfig:
    connection = {"transport": "tls", "role": "listen", "host": "0.0.0.0", "cert": "own.pem", **tls}
    return Dnp3Device.model_validate(
        {"protocol": "dnp3", "connection": connection, "outstation": 1, "master": 2, "points": {}}
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (modbus(), ""),
        (modbus(verify=False), UNVERIFIED),
        (called(ca="ca.pem"), ""),
        (called(), UNASKED),
        (called(ca="ca.pem", verify=False), UNVERIFIED),
    ],
)
def test_a_device_that_is_not_verified_is_said_in_any_state(config: DeviceConfig, words: str) -> None:
    config = config.named("plc")
    with contextlib.closing(SqliteStore(None, 10**6, 3600)) as store:
        driver: Any = SimpleNamespace()
        device = Device(config, driver, "hil", Events("rig", store), LatestValues(), lambda: None)
        assert device.reason == words
        device._lost("it refused the connection")
        assert device.reason == "; ".join(filter(None, ("it refused the connection", words)))


def test_a_password_alone_is_a_file_to_watch() -> None:
    connection = {
        "transport": "tcp",
        "host": "h",
        "username": "me",
        "password_file": "pw",
        "allow_insecure": True,
    }
    raw = {"protocol": "mqtt", "connection": connection, "points": {}}
    config = MqttDevice.model_validate(raw).named("oven", Path("/etc/hilgate"))
    credentials = config.credentials()
    assert credentials is not None
    assert [*credentials.paths()] == [Path("/etc/hilgate/pw")]
    assert credentials.caveat == ""


@pytest.mark.parametrize("folder", ["/run/credentials/hilgate@rig.service", "/etc/hilgate"])
def test_a_device_whose_files_only_the_service_can_read_is_warned_of(
    lines: list[Any], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/hilgate@rig.service")
    certificates = made()
    files = SimpleNamespace(caveat="", paths=lambda: [Path(folder, "key.pem")])
    config = SimpleNamespace(enabled=True, credentials=lambda: files)
    device: Any = SimpleNamespace(config=config, caveat="")
    certificates._bench.devices = {"plc": device}
    certificates._of_devices()
    assert [line["link"] for line in lines] == (["plc"] if "credentials" in folder else [])
