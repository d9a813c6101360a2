"""Files whose reading hangs, as that of a FIFO without a writer does: the loop goes on, and it is said."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amqp_line import running
from asyncua.client.client import Client
from waiting import until

from agent import certificates as watching
from agent.authorization import source
from agent.certificates import Certificates
from agent.settings import Settings
from agent.web import access
from agent.web.access import Access
from protocols import tls, transport
from protocols.amqp.client import LinkState
from protocols.base import DriverError
from protocols.modbus.config import Tls
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.security import secure
from protocols.tls import Files, UnusableFile


@contextlib.contextmanager
def hanging(path: Path) -> Iterator[Path]:
    """A file whose reading ends with the test; or after a while, should it hold up the loop."""

    def let_go() -> None:
        with contextlib.suppress(FileNotFoundError):  # it was before
            writer = os.open(path, os.O_RDWR)
            path.unlink()  # no thread that comes late waits for another writer
            os.close(writer)

    os.mkfifo(path)
    timer = threading.Timer(20, let_go)
    timer.start()
    try:
        yield path
    finally:
        timer.cancel()
        let_go()


async def test_a_device_is_told_and_threads_do_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "READ_S", 0.05)
    with hanging(tmp_path / "ca.pem"):
        options = Tls(transport="tls", host="localhost", ca="ca.pem")
        for _ in range(8):
            with pytest.raises(DriverError, match="the file system hangs"):
                await transport.connect("localhost", 1, 5, asyncio.Protocol(), options, tmp_path)
        named = [thread for thread in threading.enumerate() if thread.name.startswith("credentials")]
        assert 1 <= len(named) <= 4


async def test_the_broker_is_not_reached_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "READ_S", 0.05)
    with hanging(tmp_path / "ca.pem") as ca:
        async with running("amqps://localhost:1", tls=Files(ca=ca)) as line:
            assert "file system hangs" in await line.until(LinkState.CONNECTING)


async def _fetched(folder: Path) -> None:
    await source.fetch("https://localhost:1/", folder / "fifo")


async def _opened(folder: Path) -> None:
    url, fifo = "opc.tcp://localhost:1", str(folder / "fifo")
    security = {"policy": "Basic256Sha256", "cert": fifo, "key": fifo, "trust": [fifo]}
    written = {"protocol": "opcua", "connection": {"url": url, "security": security}, "points": {}}
    await secure(Client(url), OpcuaDevice.model_validate(written))


@pytest.mark.parametrize("link", [_fetched, _opened])
async def test_threads_of_others_are_not_taken(
    link: Callable[[Path], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "READ_S", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with hanging(tmp_path / "fifo"):
        with pytest.raises(UnusableFile, match="the file system hangs"):
            await link(tmp_path)
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: "such as names that are looked up")


async def test_the_token_of_http_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "READ_S", 0.05)
    with hanging(tmp_path / "token") as path:
        one = Access(path, certificates=False)
        asked = (one.allows({"Authorization": "Bearer 0123456789abcdef"}, False) for _ in range(20))
        assert await asyncio.gather(*asked) == [False] * 20
        before = one._reading
        assert before is not None
        assert not await one.allows({"Authorization": "Bearer 0123456789abcdef"}, False)
        assert one._reading is before, "one thread hangs, however many ask"


class _Watched:
    """The files of one link: what is looked at, and how often they were found good."""

    caveat = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.checks = 0

    def paths(self) -> list[Path]:
        return [self._path]

    def check(self) -> dict[str, float]:
        self.checks += 1
        return {}


async def test_new_files_of_other_links_are_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.01)
    monkeypatch.setattr(watching, "WAIT_S", 0.1)
    (tmp_path / "good").write_text("first")
    files = {"hung": _Watched(tmp_path / "fifo"), "well": _Watched(tmp_path / "good")}
    configs = {
        name: SimpleNamespace(enabled=True, credentials=lambda one=one: one) for name, one in files.items()
    }
    devices = {name: SimpleNamespace(config=config, caveat="") for name, config in configs.items()}
    renewed: list[str] = []

    async def renew(names: list[str]) -> None:
        renewed.extend(names)

    async def rotated(number: int) -> None:
        (tmp_path / "good").write_text(f"new {number}")
        await until(lambda: len(renewed) == number)

    made = asyncio.Event()
    made.set()
    bench: Any = SimpleNamespace(devices=devices, made=made, renew=renew)
    settings = Settings.model_validate({"bench": "rig", "broker": "amqp://broker.example"})
    client: Any = SimpleNamespace()
    certificates = Certificates(settings, bench, client, lambda: None)
    with hanging(tmp_path / "fifo"):
        before = threading.active_count()
        watch = asyncio.create_task(certificates.run())
        try:
            async with asyncio.timeout(10):
                await until(lambda: files["well"].checks == 1)
                for number in range(1, 4):
                    await rotated(number)
            assert {*renewed} == {"well"}
            assert files["hung"].checks == 0
            assert threading.active_count() - before <= 4, "one thread for each link"
        finally:
            watch.cancel()
            await asyncio.wait([watch])


_ENDS_WHILE_A_LOOK_HANGS = """
import asyncio, sys
from pathlib import Path
from agent.certificates import Link
from agent.cli.loop import execute
from protocols.tls import TlsCredentials

async def main(stop):
    file = Path(sys.argv[1])
    look = Link("tls_", TlsCredentials(None, secrets={"password": file})).begin_look()
    assert not (await asyncio.wait([look], timeout=0.2))[0], "it hangs"

execute(main)
"""


async def test_the_process_ends_while_a_look_hangs(tmp_path: Path) -> None:
    with hanging(tmp_path / "fifo") as file:
        words = [sys.executable, "-c", _ENDS_WHILE_A_LOOK_HANGS, str(file)]
        await asyncio.to_thread(subprocess.run, words, check=True, timeout=15)
