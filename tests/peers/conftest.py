"""What all tests with real peers share: a missing peer skips them, or fails them where peers are required."""

import os
from collections.abc import Iterator
from typing import Protocol

import pytest
import trustme
from brokers import GET, Artemis, Broker, Certificates, RabbitMQ3, RabbitMQ4, Users


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


@pytest.fixture(scope="session", params=[Artemis, RabbitMQ3, RabbitMQ4], ids=lambda kind: kind.name)
def broker(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    need: Need,
) -> Iterator[Broker]:
    """Each real AMQP broker in turn, started once for all tests that use it."""
    kind: type[Broker] = request.param
    need(kind.name, kind.why_missing(), GET)
    one = kind(tmp_path_factory.mktemp(kind.name), certificates, Users())
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds the end of the broker's log to the report of a failed test."""
    report = yield
    used = getattr(item, "funcargs", {}).get("broker")
    if report.failed and isinstance(used, Broker):
        tail = used.log.read_text(errors="replace").splitlines()[-40:]
        report.sections.append((f"log of {used.name}", "\n".join(tail)))
    return report
