"""Settings of all tests, and what the end of a run says about skipped ones."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

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
