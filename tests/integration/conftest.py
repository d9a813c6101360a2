"""What integration tests share: an embedded broker, and agents that run beside the test."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from desk import RunAgent

from agent.app import Agent
from agent.notify import Service
from agent.profile import load_profile
from agent.settings import load_settings
from sim.broker import Broker


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    """The embedded broker on a free port of loopback."""
    async with Broker("127.0.0.1", 0) as one:
        yield one


@pytest.fixture
def run_agent(tmp_path: Path) -> RunAgent:
    """Runs an agent for a profile text; leaving stops it gracefully."""

    @contextlib.asynccontextmanager
    async def run(
        profile: str, broker_url: str, *, bench: str = "rig", service: Service | None = None, **settings: Any
    ) -> AsyncIterator[Agent]:
        path = tmp_path / "profile.yaml"
        path.write_text(profile)
        defaults = {"sil": True, "heartbeat": "200ms", "store": tmp_path / f"store-{bench}"}
        chosen = defaults | settings | {"bench": bench, "broker": broker_url}
        agent = Agent(load_profile(path, {}), load_settings(None, {}, chosen), service)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(agent.run(stop))
            try:
                yield agent
            finally:
                stop.set()
                async with asyncio.timeout(30):
                    await running

    return run


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
