"""The bench of the crash test: an agent that can be killed, and devices that outlive it."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from crash.plan import DEVICES, HIGHEST, REGISTERS
from tests.tools.modbus_peer import ModbusServer

_COMMAND = str(Path(sys.executable).with_name("hilgate"))
_STOP_S = 10.0
AGENT_LOG = "agent.log"
_COUNTED = 2000
"""From here on modbus_server counts the writes to a holding register in the input register of its address."""
_PULSE = 5000
"""An input register that grows each time it is read."""

_PROFILE = f"""\
  {{device}}:
    protocol: modbus
    connection: {{{{transport: tcp, host: 127.0.0.1, port: {{port}}, unit: 1}}}}
    address_base: 0
    poll: 50ms
    points:
      pulse: {{{{table: input, address: {_PULSE}}}}}
      w{{{{n}}}}:
        {{{{table: holding, address: {_COUNTED}, access: wo, max: {HIGHEST},
          repeat: {{{{count: {REGISTERS}, from: 0, step: {{{{address: 1}}}}}}}}}}}}
"""


class Devices:
    """Modbus servers of libmodbus, which count what is written to them."""

    def __init__(self, servers: dict[str, ModbusServer]) -> None:
        self._servers = servers

    def writes(self, device: str, register: int) -> int:
        """How often a register was written."""
        return self._servers[device].get("i", _COUNTED + register)[0]

    def holds(self, device: str, register: int) -> int:
        """What was written last."""
        return self._servers[device].get("h", _COUNTED + register)[0]

    def profile(self) -> str:
        """The profile of a bench with these devices."""
        devices = (_PROFILE.format(device=name, port=one.port) for name, one in self._servers.items())
        return "profile: crash-rig\ndevices:\n" + "".join(devices)


@contextlib.contextmanager
def devices() -> Iterator[Devices]:
    """Runs the devices."""
    with contextlib.ExitStack() as stack:
        yield Devices({name: stack.enter_context(ModbusServer("tcp", "0")) for name in DEVICES})


class Agent:
    """`hilgate run` as a process, with a store that outlives it."""

    def __init__(self, folder: Path, profile: str, bench: str, broker_port: int) -> None:
        self._log = folder / AGENT_LOG
        (folder / "profile.yaml").write_text(profile)
        self._arguments = (
            *("run", str(folder / "profile.yaml"), "--bench", bench, "--store", str(folder / "store")),
            # Availability lives for three heartbeats: it must outlive a broker that takes a minute to start.
            *("--broker", f"amqp://127.0.0.1:{broker_port}", "--heartbeat", "30s"),
        )
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()

    async def start(self) -> None:
        """Starts it, and waits for nothing."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                _COMMAND, *self._arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started.set()

    async def watch(self) -> None:
        """Sees to it that it ends only when it is told to; until cancelled."""
        while True:
            await self._started.wait()
            self._started.clear()
            if (process := self._process) is not None:
                status = await process.wait()
                if process is self._process:
                    self._process = None
                    raise AssertionError(f"the agent ended by itself with status {status}")

    async def kill(self) -> None:
        """SIGKILL."""
        if (process := self._process) is not None:
            assert process.returncode is None, f"the agent ended by itself with status {process.returncode}"
            self._process = None
            await _end(process)

    async def stop(self) -> None:
        """SIGTERM, and a clean end."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            raise AssertionError(f"the agent did not stop in {_STOP_S:g} s") from None
        finally:
            await _end(process)
        assert process.returncode == 0, f"the agent stopped with status {process.returncode}"


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
