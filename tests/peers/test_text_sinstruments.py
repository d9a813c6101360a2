"""Our driver at instruments that we did not write: sinstruments over TCP, a pty and socat."""

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protocols.base import DriverError
from protocols.text.config import TextDevice
from protocols.text.driver import TextDriver

PATIENCE_S = 60.0
POINTS: dict[str, Any] = {
    "volts": {"query": "MEAS:VOLT?", "unit": "V"},
    "set": {"query": "VOLT?", "write": "VOLT {value:.3f}", "access": "rw"},
}

SERVER = '''
"""A process of its own: sinstruments runs on gevent, which patches what asyncio stands on."""
import sys
from sinstruments.simulator import BaseDevice, create_server_from_config

class Supply(BaseDevice):
    newline = b"\\n"

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.volts = b"0.000"

    def handle_message(self, message):
        message = message.strip()
        if message == b"*IDN?":
            return b"ACME,Supply,7,1.0\\n"
        if message in (b"VOLT?", b"MEAS:VOLT?"):
            return self.volts + b"\\n"
        if message.startswith(b"VOLT "):
            self.volts = message[5:]

import sinstruments.simulator as simulator
where = {"type": sys.argv[1], "url": sys.argv[2]}
supply = {"class": "Supply", "package": "__main__", "name": "supply", "transports": [where]}
server = create_server_from_config({"devices": [supply]})
print("ready", flush=True)
server.serve_forever()
'''


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts processes, and ends them."""
    running: list[asyncio.subprocess.Process] = []

    async def run(*words: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def connected(connection: dict[str, Any]) -> AsyncIterator[TextDriver]:
    device = TextDevice.model_validate(
        {
            "protocol": "text",
            "connection": connection,
            "points": POINTS,
            "identify": {"expect": "ACME,Supply,.*"},
            "timeout": 20.0,
        }
    ).named("supply")
    driver = TextDriver(device, {})
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await driver.connect()
                    break
                except DriverError:  # it is not up yet
                    await driver.close()
                    await asyncio.sleep(0.1)
            yield driver
    finally:
        await driver.close()


async def exercised(driver: TextDriver) -> None:
    assert (await driver.call("identify", {}))["model"] == "Supply"
    assert (await driver.write({"set": 12.3456})).values == {"set": 12.346}
    assert (await driver.read(["volts", "set"])).values == {"volts": 12.346, "set": 12.346}
    assert (await driver.call("status", {}))["dropped"] == {}


async def test_over_tcp(start: Callable[..., Any], tmp_path: Path, unused_port: int) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    await start(sys.executable, str(script), "tcp", f"127.0.0.1:{unused_port}")
    async with connected({"transport": "tcp", "host": "127.0.0.1", "port": unused_port}) as driver:
        await exercised(driver)


async def test_on_its_serial_line(start: Callable[..., Any], tmp_path: Path) -> None:
    script, port = tmp_path / "server.py", tmp_path / "supply"
    script.write_text(SERVER)
    await start(sys.executable, str(script), "serial", str(port))
    async with connected({"transport": "serial", "port": str(port)}) as driver:
        await exercised(driver)


async def test_over_a_pair_of_ptys_by_socat(
    start: Callable[..., Any], tmp_path: Path, unused_port: int, need: Any
) -> None:
    need("socat", None if shutil.which("socat") else "no socat on PATH", "apt-get install socat")
    script, port = tmp_path / "server.py", tmp_path / "by-id"
    script.write_text(SERVER)
    await start(sys.executable, str(script), "tcp", f"127.0.0.1:{unused_port}")
    await start("socat", f"PTY,link={port},raw,echo=0", f"TCP:127.0.0.1:{unused_port},retry=100,interval=0.1")
    async with connected({"transport": "serial", "port": str(port), "baudrate": 115200}) as driver:
        await exercised(driver)
