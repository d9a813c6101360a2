"""Settings of all tests, and what the end of a run says about skipped ones."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, settings

from tests import guest
from tests.patience import PatientLoop

# Busy machines make single examples slow: that says nothing about the code.
settings.register_profile("hilgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hilgate")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/peers/test_crash.py; only this file is read early enough to add any."""
    group = parser.getgroup("hilgate")
    group.addoption("--crash-seed", help="another plan for the crash test than that of seed 1")
    group.addoption(
        "--crash-rounds", type=int, help="faults for each broker (10; 100 where peers are required)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tests marked `socketcan` run in a guest where this kernel has no CAN."""
    guest.register(config)


def pytest_asyncio_loop_factories() -> Mapping[str, type[PatientLoop]]:
    """Tests run on a loop whose clock does not count that the machine had no time for them."""
    return {"patient": PatientLoop}


@pytest.fixture
def vcan() -> Iterator[str]:
    """The name of a CAN FD interface that only this test has; for tests marked `socketcan`."""
    with guest.new_vcan() as name:
        yield name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why tests were skipped, each reason once: a missing peer, and how to get it."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("skipped tests", "=")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4}  {reason}")
