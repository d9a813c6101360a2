"""mbpoll, a Modbus client on libmodbus, against the simulated device."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from protocols.modbus.config import ModbusDevice
from sim.modbus import SIMULATOR

pytestmark = pytest.mark.peer("mbpoll")

POINTS: dict[str, Any] = {
    "speed": {"table": "input", "address": 0, "type": "float32"},
    "count": {"table": "input", "address": 2, "type": "int32", "order": "CDAB"},
    "ready": {"table": "discrete", "address": 4},
    "setpoint": {"table": "holding", "address": 10, "type": "float32", "access": "rw"},
    "step": {"table": "holding", "address": 12, "access": "rw"},
    "valve": {"table": "coil", "address": 3, "access": "rw"},
}
CONNECTIONS: list[dict[str, Any]] = [
    {"transport": "tcp", "host": "plc.example", "unit": 7},
    {"transport": "rtu", "port": "/dev/ttyUSB0", "unit": 7},
]


@pytest.fixture(autouse=True)
def _mbpoll(need: Callable[[str, str | None, str], None]) -> None:
    missing = None if shutil.which("mbpoll") else "no command mbpoll"
    need("mbpoll", missing, "apt-get install mbpoll")


@pytest.fixture(params=CONNECTIONS, ids=lambda connection: connection["transport"])
async def there(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    raw = {
        "protocol": "modbus",
        "connection": request.param,
        "address_base": 0,
        "points": POINTS,
        "sim": {"speed": {"follow": "setpoint"}, "count": -70000, "ready": {"follow": "valve"}},
    }
    device = ModbusDevice.model_validate(raw).named("rig")
    async with SIMULATOR.start({"rig": device}) as running:
        yield running["rig"].connection


async def mbpoll(
    there: Any, *args: str, unit: int = 7, patience: str = "10", write: tuple[str, ...] = ()
) -> tuple[list[str], str]:
    """The values that mbpoll prints, and all its output."""
    where = ["-m", "rtu", "-b", "19200", "-P", "none", there.port]
    if there.transport == "tcp":
        where = ["-p", str(there.port), there.host]
    process = await asyncio.create_subprocess_exec(
        *("mbpoll", "-0", "-1", "-a", str(unit), "-o", patience, *args, *where, *write),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
    return re.findall(r"^\[\d+\]:\s+(\S+)", output, re.MULTILINE), output


async def test_mbpoll_writes_and_reads_registers(there: Any) -> None:
    _, output = await mbpoll(there, "-t", "4:float", "-B", "-r", "10", write=("12.5",))
    assert "Written 1 references" in output
    assert (await mbpoll(there, "-t", "4:float", "-B", "-r", "10"))[0] == ["12.5"]
    assert (await mbpoll(there, "-t", "3:float", "-B", "-r", "0"))[0] == ["12.5"]
    assert (await mbpoll(there, "-t", "3:int", "-r", "2"))[0] == ["-70000"]
    await mbpoll(there, "-t", "4", "-r", "12", write=("4321",))
    assert (await mbpoll(there, "-t", "4", "-r", "10", "-c", "3"))[0] == ["16712", "0", "4321"]


async def test_mbpoll_writes_and_reads_bits(there: Any) -> None:
    assert (await mbpoll(there, "-t", "0", "-r", "3"))[0] == ["0"]
    await mbpoll(there, "-t", "0", "-r", "3", write=("1",))
    assert (await mbpoll(there, "-t", "0", "-r", "3"))[0] == ["1"]
    assert (await mbpoll(there, "-t", "1", "-r", "4"))[0] == ["1"]


async def test_mbpoll_is_told_of_wrong_addresses_and_absent_units(there: Any) -> None:
    assert "Illegal data address" in (await mbpoll(there, "-t", "4", "-r", "13"))[1]
    assert "timed out" in (await mbpoll(there, "-t", "4", "-r", "12", unit=8, patience="0.5"))[1]
