"""Certificates, keys, authorities and passwords that are replaced while links are up."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from amqp_peer import Peer
from cryptography.hazmat.primitives.asymmetric import rsa
from structlog.testing import capture_logs
from tls_rig import HOST, OVER_TLS, Authority, Folder, device, far_end, serial_of
from waiting import until

from agent import certificates as watching
from agent.bench import Bench
from agent.certificates import Certificates
from agent.connection import client_options
from agent.events import Events
from agent.profile import Profile
from agent.settings import Settings
from agent.store import SqliteStore
from protocols import tls
from protocols.amqp.client import Client, LinkState
from protocols.base import DeviceState
from protocols.opcua import certificates as opcua
from sim.mqtt.broker import Broker
from sim.opcua.devices import serving

PROTOCOLS = (*OVER_TLS, "opcua")


@pytest.fixture(autouse=True)
def _looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.03)


@pytest.fixture(autouse=True)
def _one_rsa_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates differ all the same, and to make a key takes long."""
    monkeypatch.setattr(opcua, "generate_private_key", lambda **_: _rsa_key())


@functools.cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(autouse=True)
def said() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


class Agent:
    """One link, to the broker or to the device `far`, and whoever watches its files."""

    def __init__(self, store: SqliteStore, settings: Settings, config: Any = None) -> None:
        profile = Profile(profile="rig", devices={} if config is None else {"far": config})
        self.bench = Bench(profile, Events("rig", store), sil=False)
        self._link: tuple[LinkState, str] = (LinkState.CONNECTING, "")
        self.client = Client(client_options(settings, "agent"), self._on_link)
        self.certificates = Certificates(settings, self.bench, self.client, lambda: None)
        self._of_device = config is not None

    def _on_link(self, state: LinkState, reason: str) -> None:
        self._link = state, reason

    @property
    def up(self) -> bool:
        if not self._of_device:
            return self.client.connected
        return bool(self.bench.devices) and self.bench.devices["far"].status is DeviceState.ONLINE

    @property
    def connects(self) -> int:
        return self.bench.devices["far"].connects if self._of_device else self.client.connects

    @property
    def refused(self) -> str:
        """Why there is no link, while there is none."""
        if self._of_device:
            far = self.bench.devices["far"]
            return far.reason if far.status is DeviceState.OFFLINE else ""
        return self._link[1] if self._link[0] is LinkState.CONNECTING else ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Agent"]:
        works = [self.bench.run(), self.certificates.run()]
        if not self._of_device:
            works.append(self.client.run())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await until(lambda: self.up and self.certificates.not_after)
            yield self
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(ended, asyncio.CancelledError):
                    raise AssertionError("a part of the agent failed") from ended


@contextlib.contextmanager
def agent(protocol: str, port: int, folder: Path, **connection: Any) -> Iterator[Agent]:
    files = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    broker = {"broker": "amqp://127.0.0.1:1"}
    config = None
    if protocol == "amqp":
        broker = {"broker": f"amqps://{HOST}:{port}"} | {f"tls_{name}": file for name, file in files.items()}
    else:
        secured = {"transport": "tls"} | files
        config = device(protocol, port, connection or secured, folder)
    with contextlib.closing(SqliteStore(None, 10**6, 3600)) as store:
        yield Agent(store, Settings.model_validate({"bench": "rig", "sasl": "ANONYMOUS", **broker}), config)


class Place:
    """A far end, the files of the agent that it is linked with, and what both can be made to do."""

    agent: Agent
    seen: Callable[[], list[int]]
    """Serial numbers of the certificates that the agent showed."""
    serial: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def renew(self, place: Path | None = None) -> int:
        """Writes another certificate and key; gives its serial number."""
        raise NotImplementedError

    def distrust(self) -> None:
        """Trusts another authority in place of the far end's."""
        raise NotImplementedError

    def trust(self) -> None:
        """Trusts the far end's authority."""
        raise NotImplementedError


class OverTls(Place):
    """What speaks TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = Folder(folder, Authority())
        self.serial = self.files.serial

    def renew(self, place: Path | None = None) -> int:
        return self.files.take(self.files.issue(), place)

    def distrust(self) -> None:
        (self.folder / "ca.pem").write_bytes(Authority().pem)

    def trust(self) -> None:
        (self.folder / "ca.pem").write_bytes(self.files.authority.pem)


class OverOpcua(Place):
    """What speaks OPC UA, whose channel has certificates of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "trusted").mkdir()
        self.serial = self.renew()
        self.server = b""

    def renew(self, place: Path | None = None) -> int:
        place = place or self.folder
        made = opcua.self_signed("hilgate", "urn:rig.example", ["rig.example"], 90)
        (place / "key.pem").write_bytes(opcua.key_pem(made.key))
        (place / "cert.pem").write_bytes(opcua.pem(made.certificate))
        return made.certificate.serial_number

    def distrust(self) -> None:
        other = opcua.self_signed("other", "urn:other.example", ["other.example"], 90)
        (self.folder / "trusted" / "server.der").write_bytes(opcua.der(other.certificate))

    def trust(self) -> None:
        (self.folder / "trusted" / "server.der").write_bytes(self.server)


@contextlib.asynccontextmanager
async def linked(protocol: str, folder: Path) -> AsyncIterator[Place]:
    """An agent whose link is up."""
    async with contextlib.AsyncExitStack() as stack:
        place: Place
        if protocol == "opcua":
            place = secured = OverOpcua(folder)
            files = {"cert": "cert.pem", "key": "key.pem", "trust": ["trusted"]}
            raw = {"url": f"opc.tcp://{HOST}:1", "security": files}
            served = await stack.enter_async_context(serving(device("opcua", 0, raw, folder)))
            secured.server = opcua.der(served.server.iserver.certificate)
            secured.trust()
            serials: list[int] = []

            async def check(certificate: Any, _: Any) -> None:
                serials.append(certificate.serial_number)

            served.server.iserver.certificate_validator = check
            place.seen = lambda: serials
            made = agent(protocol, 0, folder, **raw | {"url": served.device.connection.url})
        else:
            place = over = OverTls(folder)
            front = await stack.enter_async_context(far_end(protocol, over.files.authority.server()))
            place.seen = lambda: front.serials
            made = agent(protocol, front.port, folder)
        place.agent = await stack.enter_async_context(stack.enter_context(made).running())
        yield place


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_new_certificate_is_shown_at_once_without_a_loss_being_said(
    protocol: str, tmp_path: Path, said: list[Any]
) -> None:
    async with linked(protocol, tmp_path) as place:
        assert {*place.seen()} == {place.serial}
        serial = place.renew()
        await until(lambda: place.agent.up and place.seen()[-1] == serial)
        await until(lambda: place.agent.connects == 2)
        assert place.agent.certificates.reason == ""
        assert "device is not reachable" not in {line["event"] for line in said}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_authority_that_is_taken_out_counts_from_then_on(protocol: str, tmp_path: Path) -> None:
    async with linked(protocol, tmp_path) as place:
        place.distrust()
        await until(lambda: "certificate" in place.agent.refused)
        assert not place.agent.up
        assert place.agent.connects == 1
        place.trust()
        await until(lambda: place.agent.up)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_files_that_are_half_written_leave_the_link_as_it_is(
    protocol: str, tmp_path: Path, said: list[Any]
) -> None:
    async with linked(protocol, tmp_path) as place:
        name = next(iter(place.agent.certificates.not_after)).partition("_")[0].partition(".")[0]
        whole = (tmp_path / "key.pem").read_bytes()
        (tmp_path / "key.pem").write_bytes(whole[: len(whole) // 2])
        certificates = place.agent.certificates
        await until(lambda: certificates.failures)
        assert "new files are not taken up" in certificates.reason
        assert str(tmp_path / "key.pem") in certificates.reason
        assert place.agent.up
        (tmp_path / "key.pem").write_bytes(whole[: len(whole) // 3])
        await until(lambda: certificates.failures == 2)
        errors = [line for line in said if line["log_level"] == "error"]
        assert len({line["reason"] for line in errors}) == len(errors), "said once each"
        assert {line["link"] for line in errors} == {name}
        assert place.agent.connects == 1
        serial = place.renew()
        await until(lambda: place.agent.up and place.seen()[-1] == serial)
        assert certificates.reason == ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_files_as_kubernetes_replaces_them(protocol: str, tmp_path: Path) -> None:
    async with linked(protocol, tmp_path) as place:
        (tmp_path / "..1").mkdir()
        for name in ("cert.pem", "key.pem"):
            (tmp_path / "..1" / name).write_bytes((tmp_path / name).read_bytes())
        (tmp_path / "..data").symlink_to("..1")
        for name in ("cert.pem", "key.pem"):
            (tmp_path / "new").symlink_to(f"..data/{name}")
            (tmp_path / "new").replace(tmp_path / name)
        (tmp_path / "..2").mkdir()
        serial = place.renew(tmp_path / "..2")
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        await until(lambda: place.agent.up and place.seen()[-1] == serial)
        await until(lambda: place.agent.connects == 2)


async def test_a_new_certificate_that_has_ended_is_not_taken_up(tmp_path: Path) -> None:
    import datetime

    async with linked("modbus", tmp_path) as place:
        assert isinstance(place, OverTls)
        before = place.agent.certificates.not_after["far.cert"]
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        ended = place.files.authority.made.issue_cert("agent.example", not_after=yesterday)
        place.files.take(ended)
        await until(lambda: "was valid until" in place.agent.certificates.reason)
        assert place.agent.up
        assert place.agent.connects == 1
        assert place.agent.certificates.not_after["far.cert"] == before
        assert serial_of(ended) not in place.seen()


@pytest.mark.parametrize("protocol", ["modbus", "amqp"])
async def test_a_new_certificate_that_is_not_valid_yet_is_taken_up_when_it_is(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(protocol, tmp_path) as place:
        certificates = place.agent.certificates
        with monkeypatch.context() as long_ago:
            long_ago.setattr(tls, "time", SimpleNamespace(time=lambda: 0.0))
            serial = place.renew()
            await until(lambda: "is valid only from" in certificates.reason)
            assert place.agent.connects == 1
        await until(lambda: place.agent.up and place.seen()[-1] == serial)
        assert (certificates.reason, certificates.failures, certificates.renewals) == ("", 1, 1)


async def test_devices_on_one_line_are_linked_anew_together(tmp_path: Path) -> None:
    """The line goes with its last device: one that came back before another left would keep the old one."""
    files = Folder(tmp_path, Authority())
    async with far_end("modbus", files.authority.server()) as front:
        with agent("modbus", front.port, tmp_path) as made:
            config = made.bench.profile.devices["far"]
            second = config.model_copy(deep=True).named("second", tmp_path)
            devices = {"far": config, "second": second}
            made.bench.profile = made.bench.profile.model_copy(update={"devices": devices})
            async with made.running():
                await until(lambda: made.bench.devices["second"].status is DeviceState.ONLINE)
                assert front.serials == [files.serial]
                serial = files.take(files.issue())
                await until(lambda: front.serials[-1] == serial)
                await until(lambda: all(one.connects == 2 for one in made.bench.devices.values()))
                assert front.serials == [files.serial, serial]


async def test_a_password_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right\n")
    broker = Broker("127.0.0.1", 0, user=("me", "right"))
    await broker.start()
    connection = {
        "transport": "tcp",
        "username": "me",
        "password_file": "password",
        "allow_insecure": True,
    }
    try:
        with agent("mqtt", broker.port, tmp_path, **connection) as made:
            tasks = [asyncio.create_task(made.bench.run()), asyncio.create_task(made.certificates.run())]
            try:
                await until(lambda: made.bench.devices and made.bench.devices["far"].connects == 1)
                (tmp_path / "password").write_text("wrong\n")
                await until(lambda: "does not let us in" in made.refused)
                (tmp_path / "password").write_text("")
                await until(lambda: "nothing in its first line" in made.certificates.reason)
                (tmp_path / "password").write_text("right\n")
                await until(lambda: made.bench.devices["far"].connects == 2)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await broker.close()


async def test_the_brokers_password_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("first\n")
    logins: list[tuple[str, str]] = []

    def verify(name: str, password: str) -> bool:
        logins.append((name, password))
        return True

    peer = Peer()
    peer.verify = verify
    async with peer.listening():
        settings = Settings.model_validate(
            {
                "bench": "rig",
                "broker": peer.url,
                "username": "agent",
                "password_file": str(tmp_path / "password"),
                "allow_plain": True,
            }
        )
        with contextlib.closing(SqliteStore(None, 10**6, 3600)) as store:
            made = Agent(store, settings)
            tasks = [
                asyncio.create_task(work)
                for work in (made.bench.run(), made.client.run(), made.certificates.run())
            ]
            try:
                await until(lambda: made.up and logins)
                (tmp_path / "password").write_text("second\n")
                await until(lambda: made.up and logins[-1] == ("agent", "second"))
                assert [password for _, password in logins] == ["first", "second"]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
