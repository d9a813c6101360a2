"""`hilgate doctor` along the way to a broker: what breaks where, and what it says to do about it."""

import asyncio
import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from amqp_peer import Peer
from doctor_rig import findings, verdicts

from agent.events import AVAILABILITY_ADDRESS
from protocols.amqp.client import Address, Client, Delivery
from protocols.amqp.codec import Message, encode
from protocols.amqp.links import Link, SenderLink
from protocols.amqp.options import Options
from sim.broker.server import Broker

PASSWORD = "correct horse battery staple"
STEPS = ("tls", "login", "addresses")


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


def serving(authority: trustme.CA, name: str = "localhost", days: int = 365) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.datetime.now(datetime.UTC)
    begin, end = now - datetime.timedelta(days=90), now + datetime.timedelta(days=days)
    authority.issue_cert(name, not_before=begin, not_after=end).configure_cert(context)
    return context


async def test_a_broker_that_is_well() -> None:
    async with Broker() as broker:
        found = await findings("broker", broker=broker.url)
        assert verdicts(found) == dict.fromkeys(
            ("tcp", "login", "hil.rig-07.commands", "hil.availability"), "ok"
        )
        assert "hilgate-broker" in found["login"].found
        assert "flavour embedded" in found["login"].found
        assert "messages up to 16777216 bytes" in found["hil.availability"].found


async def test_no_message_is_taken() -> None:
    """A command that waits in the queue is there afterwards, undelivered."""
    async with Broker() as broker:
        options = Options(broker.url, "test")
        client = Client(options, lambda state, reason: None)
        running = asyncio.create_task(client.run())
        try:
            queue = Address("hil.rig-07.commands", "queue")
            sender = client.sender(queue)
            await sender.ready()
            await sender.post(encode(Message(b"{}")))
            assert verdicts(await findings("broker", broker=broker.url))["hil.rig-07.commands"] == "ok"
            came: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
            client.receiver(queue, came.set_result, credit=1)
            async with asyncio.timeout(30):
                delivery = await came
            assert not delivery.message().delivery_count
            delivery.accept()
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.mark.parametrize(
    ("product", "commands", "availability"),
    [
        (
            {"product": "RabbitMQ", "version": "4.0.5"},
            "/queues/hil.rig-07.commands",
            "/exchanges/amq.topic/hil.availability",
        ),
        (
            {"product": "RabbitMQ", "version": "3.10.8"},
            "/amq/queue/hil.rig-07.commands",
            "/topic/hil.availability",
        ),
        ({"product": "apache-activemq-artemis"}, "hil.rig-07.commands", "hil.availability"),
    ],
)
async def test_addresses_are_the_brokers_own_and_nothing_is_declared(
    product: dict[str, str], commands: str, availability: str
) -> None:
    peer = Asked()
    peer.product = product
    async with peer.listening():
        found = await findings("broker", broker=peer.url)
    assert set(verdicts(found).values()) == {"ok"}
    assert f"; {product['product']}" in found["login"].found
    assert sorted(peer.asked) == sorted([commands, availability]), "no link to a management node"
    assert not any(peer.credits), "no credit, no message"
    peer.refuse = {commands, availability}
    async with peer.listening():
        found = await findings("broker", broker=peer.url)
    assert found["hil.availability"].verdict == "failed"
    made_by_agent = product["product"] == "RabbitMQ"
    assert found["hil.rig-07.commands"].verdict == ("warning" if made_by_agent else "failed")
    assert found["hil.rig-07.commands"].todo


class Asked(Peer):
    """Notes which addresses are attached to, and what credit it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.credits: list[int] = []

    def on_link(self, link: Link) -> None:
        end = link.peer_source if isinstance(link, SenderLink) else link.peer_target
        self.asked.append((end and end.address) or "")
        super().on_link(link)

    def on_credit(self, link: SenderLink) -> None:
        self.credits.append(link.credit)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = await findings("broker", broker=f"amqp://127.0.0.1:{port}")
    assert found["tcp"].verdict == "failed"
    assert found["tcp"].found == f"127.0.0.1:{port} refused the connection"
    assert f"nc -vz 127.0.0.1 {port}" in found["tcp"].todo
    assert verdicts(found) == {"tcp": "failed", "login": "not-checked", "addresses": "not-checked"}


async def test_a_name_that_nobody_knows() -> None:
    found = await findings("broker", broker="amqps://broker.invalid")
    assert found["tcp"].verdict == "failed"
    assert "the name broker.invalid is not known" in found["tcp"].found
    assert found["tcp"].todo == "getent hosts broker.invalid"
    assert verdicts(found) == {"tcp": "failed"} | dict.fromkeys(STEPS, "not-checked")


async def test_a_broker_that_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings("broker", broker=f"amqp://127.0.0.1:{port}", limit=1.0)
    assert verdicts(found) == {"tcp": "ok", "login": "failed", "addresses": "not-checked"}
    assert "did not answer in 1 s" in found["login"].found


async def test_something_else_than_amqp() -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(web, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings("broker", broker=f"amqp://127.0.0.1:{port}")
    assert found["login"].verdict == "failed"
    assert "does not speak AMQP 1.0" in found["login"].found
    assert "rabbitmq_amqp1_0" in found["login"].todo


async def test_tls_that_is_well(authority: trustme.CA, tmp_path: Path) -> None:
    async with Broker(tls=serving(authority)) as broker:
        found = await findings("broker", broker=_named(broker.url), tls_ca=tmp_path / "ca.pem")
    assert set(verdicts(found).values()) == {"ok"}
    assert found["tls"].found.startswith("TLSv1.3, ")
    assert "valid for 365 more days" in found["broker's certificate"].found


async def test_a_brokers_certificate_that_ends_soon(authority: trustme.CA, tmp_path: Path) -> None:
    async with Broker(tls=serving(authority, days=9)) as broker:
        found = await findings("broker", broker=_named(broker.url), tls_ca=tmp_path / "ca.pem")
    assert found["broker's certificate"].verdict == "warning"
    assert "valid for 9 more days" in found["broker's certificate"].found
    assert found["login"].verdict == "ok"


@pytest.mark.parametrize(
    ("name", "days", "trusted", "says", "todo"),
    [
        (
            "localhost",
            365,
            False,
            "unable to get local issuer",
            "put the authority that issued it into tls_ca",
        ),
        ("other.example", 365, True, "Hostname mismatch", "name the broker as its certificate does"),
        ("localhost", -1, True, "certificate has expired", "have the broker's certificate renewed"),
    ],
)
async def test_a_certificate_that_is_not_accepted(
    authority: trustme.CA, tmp_path: Path, name: str, days: int, trusted: bool, says: str, todo: str
) -> None:
    issuer = authority if trusted else trustme.CA()
    async with Broker(tls=serving(issuer, name, days)) as broker:
        found = await findings("broker", broker=_named(broker.url), tls_ca=tmp_path / "ca.pem")
    assert found["tls"].verdict == "failed"
    assert says in found["tls"].found
    assert todo in found["tls"].todo
    assert "openssl s_client -connect localhost:" in found["tls"].todo
    assert verdicts(found) == {
        "tcp": "ok",
        "tls": "failed",
        "login": "not-checked",
        "addresses": "not-checked",
    }


async def test_a_certificate_that_nobody_looks_at(authority: trustme.CA) -> None:
    async with Broker(tls=serving(authority, "other.example")) as broker:
        found = await findings("broker", broker=_named(broker.url), tls_verify=False)
    assert found["tls"].verdict == "warning"
    assert "tls_verify: false" in found["tls"].found
    assert found["login"].verdict == "ok"


async def test_tls_to_a_port_without_it() -> None:
    async with Broker() as broker:
        found = await findings("broker", broker=broker.url.replace("amqp:", "amqps:"), limit=3.0)
    assert found["tls"].verdict == "failed"


async def test_a_password_that_is_wrong(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    async with Broker(users={"hil-agent": PASSWORD}) as broker:
        login: dict[str, Any] = {
            "broker": broker.url,
            "username": "hil-agent",
            "password_file": secret,
            "allow_plain": True,
        }
        secret.write_text("not it")
        found = await findings("broker", **login)
        assert found["login"].verdict == "failed"
        assert "does not accept the credentials of user hil-agent" in found["login"].found
        assert "not it" not in str(found)
        secret.write_text(PASSWORD)
        found = await findings("broker", **login)
        assert found["login"].found.startswith("as hil-agent (SASL PLAIN) in ")
        assert PASSWORD not in str(found)


async def test_nobody_comes_in_without_a_name() -> None:
    async with Broker(users={"hil-agent": PASSWORD}) as broker:
        found = await findings("broker", broker=broker.url)
    assert found["login"].verdict == "failed"
    assert "give username and password_file" in found["login"].todo


async def test_settings_that_cannot_work_together(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    found = await findings(
        "broker", broker="amqp://127.0.0.1", username="joe", password_file=tmp_path / "password"
    )
    assert found["login"].verdict == "failed"
    assert "not sent" in found["login"].found
    assert AVAILABILITY_ADDRESS.name not in found


def _named(url: str) -> str:
    """The broker by the name in its certificate."""
    return url.replace("127.0.0.1", "localhost")
