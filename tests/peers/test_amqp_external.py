"""SASL EXTERNAL at a real broker: who the client is, its certificate says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from brokers import GET, Certificates, Users
from brokers.rabbitmq import RabbitMQ
from lines import connected

from protocols.tls import Files

pytestmark = pytest.mark.peer("brokers")


class Certified(RabbitMQ):
    """RabbitMQ 4 that takes the common name of a client's certificate for its user."""

    name = "rabbitmq4"
    flavour = "rabbitmq"
    chapter = "RabbitMQ 4"
    plugins = ("rabbitmq_auth_mechanism_ssl",)
    settings = (
        "auth_mechanisms.1 = EXTERNAL",
        "auth_mechanisms.2 = PLAIN",
        "ssl_cert_login_from = common_name",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
    )


class Place:
    """The broker, and an authority whose certificates it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        files = Certificates(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        self.authority.cert_pem.write_to_path(files.authority)
        issued.private_key_pem.write_to_path(files.key)
        issued.cert_chain_pems[0].write_to_path(files.chain)
        self.broker = Certified(folder, files, Users())

    def files(self, name: str) -> Files:
        """What a client shows that is called so."""
        shown = self.folder / f"{name}.pem"
        issued = self.authority.issue_cert("rig.example", common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(shown)
        return Files(ca=self.folder / "ca.pem", cert=shown)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[[str, str | None, str], None]
) -> Iterator[Place]:
    need(Certified.name, Certified.why_missing(), GET)
    made = Place(tmp_path_factory.mktemp("external"))
    made.broker.start()
    yield made
    made.broker.stop()


async def test_a_certificate_logs_its_user_in(place: Place) -> None:
    user = place.broker.users.agent.name
    async with connected(place.broker.tls_url, tls=place.files(user)) as line:
        await line.until_state("connected")
        shown = place.broker.ctl("list_connections", "user", "auth_mechanism")
    assert (user, "EXTERNAL") in [tuple(row.split()) for row in shown.splitlines()]


async def test_a_certificate_of_nobody_the_broker_knows_is_refused(place: Place) -> None:
    async with connected(place.broker.tls_url, tls=place.files("stranger"), backoff_min=0.1) as line:
        why = await line.until(
            lambda: next((text for state, text in line.states if state == "connecting" and text), ""), "why"
        )
    assert "does not accept the credentials" in why
    assert "EXTERNAL" in why


async def test_a_password_is_taken_beside_a_certificate_where_there_is_a_name(place: Place) -> None:
    user = place.broker.users.agent
    tls = place.files("stranger")
    async with connected(place.broker.tls_url, tls=tls, username=user.name, password=user.password) as line:
        await line.until_state("connected")
