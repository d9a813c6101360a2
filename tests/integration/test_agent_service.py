"""What a whole agent tells the service manager: ready once, how it is, signs of life while it goes on."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from desk import RunAgent
from scripted import Peer, always_right, tcp_device
from service_manager import Manager
from waiting import PATIENCE_S, until

from agent import notify, progress
from agent.app import Agent
from agent.notify import Service
from agent.store import keeper
from sim.broker import Broker

WATCHDOG_S = 0.2
PROFILE = """
profile: service
devices:
  plc:
    protocol: modbus
    connection: {{transport: tcp, host: {host}, port: {port}, unit: 7}}
    address_base: 0
    poll: 50ms
    timeout: 30s
    points: {{speed: {{table: holding, address: 0}}}}
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes ten seconds takes half a one, and more on a machine that is busy."""
    monkeypatch.setattr(notify, "TICK_S", 0.02)
    monkeypatch.setattr(progress, "TICK_S", 0.05)
    monkeypatch.setattr(keeper, "IDLE_S", 0.02)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(str(tmp_path / "notify"))
    yield one
    one.socket.close()


@pytest.fixture
def service(manager: Manager) -> Iterator[Service]:
    one = Service(manager.socket.getsockname(), WATCHDOG_S)
    yield one
    one.close()


@pytest.fixture
async def agent(
    run_agent: RunAgent, broker: Broker, service: Service, manager: Manager
) -> AsyncIterator[Agent]:
    """An agent that has said that it is ready."""
    profile = PROFILE.format(host="plc.bench.example", port=502)
    async with run_agent(profile, broker.url, service=service) as one:
        await until(lambda: "available" in manager.heard("STATUS"))
        await goes_on(manager)
        yield one


async def goes_on(manager: Manager) -> None:
    before = len(manager.heard("WATCHDOG"))
    await until(lambda: len(manager.heard("WATCHDOG")) > before + 2)


async def stands(manager: Manager, sentence: str) -> None:
    """The status says why, and for several of its times systemd hears no sign of life: it would act."""
    await until(lambda: manager.heard("STATUS")[-1] == sentence)
    async with asyncio.timeout(PATIENCE_S):
        before = -1
        while (now := len(manager.heard("WATCHDOG"))) != before:
            before = now
            await asyncio.sleep(3 * WATCHDOG_S)


async def test_it_is_ready_once_after_devices_and_broker_and_says_when_it_stops(
    run_agent: RunAgent, broker: Broker, service: Service, manager: Manager
) -> None:
    answering = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await answering.wait()
        await always_right(peer)

    async with tcp_device(slow) as connection:
        profile = PROFILE.format(host=connection["host"], port=connection["port"])
        async with run_agent(profile, broker.url, service=service, sil=False) as agent:
            await until(lambda: agent.client.connected)
            await goes_on(manager)  # a device that takes its time is no stall
            assert manager.heard("READY") == []
            assert "available" not in manager.heard("STATUS")
            answering.set()
            await until(lambda: "available" in manager.heard("STATUS"))
            await until(lambda: manager.heard("READY"))
            await goes_on(manager)
            assert manager.heard("STOPPING") == []
    assert manager.heard("READY") == ["1"]
    assert manager.heard("STOPPING") == ["1"]


async def test_without_a_broker_it_is_ready_and_goes_on(
    run_agent: RunAgent, unused_port: int, service: Service, manager: Manager
) -> None:
    profile = PROFILE.format(host="plc.bench.example", port=502)
    async with run_agent(profile, f"amqp://127.0.0.1:{unused_port}", service=service):
        await until(lambda: manager.heard("READY"))
        await until(lambda: manager.heard("STATUS")[-1] == "available; no connection to the broker")
        await goes_on(manager)


async def test_a_store_whose_thread_hangs_ends_the_signs_of_life_until_it_goes_on(
    agent: Agent, manager: Manager
) -> None:
    go_on = threading.Event()

    def hang(_: object) -> None:
        go_on.wait()

    try:
        agent.store._handover.operate(hang)  # a disk that does not come back
        await stands(manager, "the store's thread does not answer")
    finally:
        go_on.set()
    await goes_on(manager)


async def test_a_supervisor_that_ended_ends_the_signs_of_life(agent: Agent, manager: Manager) -> None:
    supervisor = agent.bench.devices["plc"]._supervisor
    assert supervisor is not None
    supervisor.cancel()
    await stands(manager, "the supervisor of device plc has ended")


async def test_a_part_that_ended_ends_the_signs_of_life(agent: Agent, manager: Manager) -> None:
    (commands,) = [task for task in asyncio.all_tasks() if task.get_name() == "commands"]
    commands.cancel()
    await stands(manager, "commands has ended")


async def test_a_loop_that_stands_gives_no_sign_of_life(agent: Agent, manager: Manager) -> None:
    before = len(manager.heard("WATCHDOG"))
    time.sleep(3 * WATCHDOG_S)  # noqa: ASYNC251  # the loop is to stand
    assert len(manager.heard("WATCHDOG")) == before
    await goes_on(manager)
