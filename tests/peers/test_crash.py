"""Agent and broker killed at random instants: nothing is lost, done twice, answered twice or out of order."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import rhea
from brokers import Artemis, Broker, RabbitMQ4
from crash.plan import SESSION, plan
from crash.session import session

from tests.tools.modbus_peer import HOW, why_missing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each session; --crash-rounds are those of one broker."""
    if "rounds" not in metafunc.fixturenames:
        return
    config = metafunc.config
    default = 100 if os.environ.get("HILGATE_REQUIRE_PEERS") == "1" else 10
    total = config.getoption("--crash-rounds") or default
    seed = config.getoption("--crash-seed") or "1"
    sessions = [(f"{seed}-{at // SESSION}", min(SESSION, total - at)) for at in range(0, total, SESSION)]
    metafunc.parametrize(("seed", "rounds"), sessions, ids=[name for name, _ in sessions])


@pytest.mark.peer("brokers")
@pytest.mark.parametrize("broker", [Artemis, RabbitMQ4], indirect=True, ids=lambda kind: kind.name)
async def test_nothing_is_lost_or_done_twice_whatever_is_killed(
    broker: Broker, seed: str, rounds: int, tmp_path: Path, need: Callable[[str, str | None, str], None]
) -> None:
    need("rhea", rhea.why_missing(), rhea.GET)
    need("libmodbus", why_missing(), HOW)
    async with session(broker, tmp_path) as one:
        for each in plan(seed, rounds):
            await one.carry_out(each)
        await one.finish()
