"""What a service manager is told, on a socket of the test's own."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from service_manager import Manager
from structlog.testing import capture_logs
from waiting import until

from agent import notify
from agent.notify import STATUS_LIMIT, Service, service


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@hilgate-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    one = Manager(address)
    yield one
    one.socket.close()


class Agent:
    """What a service is asked about."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.stalled = ""
        self.status = "starting"


@contextlib.asynccontextmanager
async def told(one: Service, agent: Agent) -> AsyncIterator[None]:
    task = asyncio.create_task(one.keep_told(agent.ready, lambda: agent.stalled, lambda: agent.status))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        one.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "TICK_S", 0.002)


def test_without_a_manager_nobody_is_told() -> None:
    assert service({}) is None
    assert service({"NOTIFY_SOCKET": "vsock:2:1234"}) is None


@pytest.mark.parametrize(
    ("usec", "pid", "period"),
    [
        ("20000000", "", 20.0),
        ("20000000", str(os.getpid()), 20.0),
        ("20000000", str(os.getpid() + 1), None),
        ("", "", None),
        ("0", "", None),
        ("soon", "", None),
    ],
)
def test_the_environment_says_who_and_is_cleaned(usec: str, pid: str, period: float | None) -> None:
    environ = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid, "HOME": "/"}
    one = service(environ)
    assert one is not None
    one.close()
    assert (one.watchdog, environ) == (period, {"HOME": "/"})


def test_a_line_break_makes_no_second_assignment(manager: Manager, address: str) -> None:
    one = Service(address)
    one.tell(STATUS="degraded\nREADY=1\nMAINPID=1")
    one.close()
    assert manager.listen() == [{"STATUS": "degraded READY=1 MAINPID=1"}]


def test_a_manager_that_is_gone_or_does_not_read_holds_nobody_up(manager: Manager, address: str) -> None:
    one = Service(address)
    with capture_logs() as logs:
        for _ in range(5000):
            one.tell(WATCHDOG="1")
    assert "Resource temporarily unavailable" in logs[-1]["reason"]
    manager.socket.close()
    with capture_logs() as logs:
        one.tell(READY="1")
    one.close()
    assert logs[0]["what"] == "READY"


async def test_ready_comes_once_and_only_when_it_is(manager: Manager, address: str) -> None:
    agent = Agent()
    async with told(Service(address), agent):
        await until(lambda: manager.heard("STATUS") == ["starting"])
        agent.status = "degraded; plc is offline"
        await until(lambda: len(manager.heard("STATUS")) == 2)
        assert manager.heard("READY") == []
        agent.ready.set()
        await until(lambda: manager.heard("READY"))
        agent.status = "available"
        await until(lambda: manager.heard("STATUS")[-1] == "available")
    assert manager.heard("READY") == ["1"]
    assert manager.heard("WATCHDOG") == []  # nobody asked for it


async def test_a_status_is_said_when_it_changes_and_is_short(manager: Manager, address: str) -> None:
    agent = Agent()
    async with told(Service(address), agent):
        agent.ready.set()
        await until(lambda: manager.heard("READY"))
        agent.status = "x" * 5000
        await until(lambda: len(manager.heard("STATUS")) == 2)
        agent.status = "available"
        await until(lambda: len(manager.heard("STATUS")) == 3)
    assert len(manager.heard("STATUS")[1]) == STATUS_LIMIT


async def test_signs_of_life_stop_while_something_is_stalled(manager: Manager, address: str) -> None:
    agent = Agent()
    async with told(Service(address, watchdog=0.02), agent):
        agent.ready.set()
        await until(lambda: len(manager.heard("WATCHDOG")) > 3)
        agent.stalled = "the store's thread does not answer"
        await until(lambda: manager.heard("STATUS")[-1] == agent.stalled)
        before = len(manager.heard("WATCHDOG"))
        agent.status = "a later look"
        await asyncio.sleep(0.2)  # ten of its periods
        assert len(manager.heard("WATCHDOG")) == before
        agent.stalled = ""
        await until(lambda: len(manager.heard("WATCHDOG")) > before + 3)
    assert manager.heard("STATUS")[-1] == "a later look"


async def test_signs_of_life_come_at_half_the_time_and_not_at_every_look(
    manager: Manager, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    one = Service(address, watchdog=0.4)
    clock: Callable[[], float] = asyncio.get_running_loop().time
    monkeypatch.setattr(one, "tell", lambda **fields: times.append(clock()) if "WATCHDOG" in fields else None)
    async with told(one, Agent()):
        await until(lambda: len(times) == 4)
    # Later is a slow machine; sooner would be one at each of two hundred looks.
    assert all(later - sooner > 0.15 for sooner, later in itertools.pairwise(times))
