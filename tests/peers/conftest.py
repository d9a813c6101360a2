"""What all tests with real peers share: a missing peer skips them, or fails them where peers are required."""

import os
from typing import Protocol

import pytest


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
