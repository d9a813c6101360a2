"""What all tests with real peers share: a missing peer skips them, or fails them where peers are required."""

import os
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import pytest
import trustme
from brokers import GET, Artemis, Broker, Certificates, Embedded, RabbitMQ3, RabbitMQ4, Users


class Need(Protocol):
    """Skips (or fails) the test when a peer is missing."""

    def __call__(self, peer: str, why_missing: str | None, how: str) -> None:
        """`why_missing` is None where the peer is there; `how` is what to type to get it."""


@pytest.fixture(scope="session")
def need() -> Need:
    """Says that a test or fixture needs a peer; with HILGATE_REQUIRE_PEERS=1 a missing one is a failure."""

    def _need(peer: str, why_missing: str | None, how: str) -> None:
        if why_missing is None:
            return
        message = f"peer {peer} is missing ({why_missing}); to get it: {how}"
        if os.environ.get("HILGATE_REQUIRE_PEERS") == "1":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)

    return _need


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate for 127.0.0.1 and localhost, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = Certificates(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(made.authority)
    issued.private_key_pem.write_to_path(made.key)
    made.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return made


Brokers = Callable[[type[Broker]], Broker]


@pytest.fixture(scope="session")
def brokers(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, need: Need
) -> Iterator[Brokers]:
    """Starts a kind of broker at its first use, and stops all at the end."""
    running: dict[type[Broker], Broker] = {}

    def get(kind: type[Broker]) -> Broker:
        need(kind.name, kind.why_missing(), GET)
        if kind not in running:
            running[kind] = kind(tmp_path_factory.mktemp(kind.name), certificates, Users())
            running[kind].start()
        return running[kind]

    yield get
    for one in running.values():
        one.stop()


@pytest.fixture(params=[Artemis, RabbitMQ3, RabbitMQ4], ids=lambda kind: kind.name)
def broker(request: pytest.FixtureRequest, brokers: Brokers) -> Broker:
    """Each real AMQP broker in turn."""
    return brokers(request.param)


@pytest.fixture(params=[Artemis, RabbitMQ3, RabbitMQ4, Embedded], ids=lambda kind: kind.name)
def any_broker(request: pytest.FixtureRequest, brokers: Brokers) -> Broker:
    """Each real AMQP broker in turn, and the embedded one."""
    return brokers(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of the broker's log to the report of a failed test."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    used = fixtures.get("broker") or fixtures.get("any_broker")
    if report.failed and isinstance(used, Broker):
        tail = used.log.read_text(errors="replace").splitlines()[-40:]
        report.sections.append((f"log of {used.name}", "\n".join(tail)))
    return report
