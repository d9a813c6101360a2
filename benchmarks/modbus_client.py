"""The Modbus client: CPU per request of 125 registers from a libmodbus server, next to pymodbus.

pymodbus gives lists of registers. hilgate is measured up to the same point, and with all that its driver does
to give values by name. Each client runs in a process of its own, in turn with the others.
"""

import asyncio
import json
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.tools.modbus_peer import ModbusServer, why_missing

if TYPE_CHECKING:
    from protocols.modbus.config import ModbusDevice

REGISTERS = 125
BLOCKS = 16
FIRST = 5000  # input registers that change at each read, so that nothing can be skipped as unchanged
ROUNDS = 5
REQUESTS = 3200  # a round
WARM_UP = 320

PYMODBUS, ALIKE = "pymodbus", "hilgate"

Drive = Callable[[int], Awaitable[None]]
"""Makes so many requests."""
Measured = Callable[[Drive], Awaitable[None]]


class Client(NamedTuple):
    """What is measured: a library, its event loop, and the requests under way."""

    library: str
    loop: str
    depth: int


class Figures(NamedTuple):
    """Medians over the rounds."""

    cpu_us: float
    registers_s: float


def _check(start: int, registers: Sequence[int]) -> None:
    """All of a block have grown alike since they held their own numbers."""
    grown = {(register - start - place) & 0xFFFF for place, register in enumerate(registers)}
    assert len(registers) == REGISTERS
    assert len(grown) == 1


def _device(port: int, depth: int) -> "ModbusDevice":
    from protocols.modbus.config import ModbusDevice

    points = {f"r{n}": {"table": "input", "address": FIRST + n} for n in range(BLOCKS * REGISTERS)}
    connection = {"transport": "tcp", "host": "127.0.0.1", "port": port}
    raw = {
        "protocol": "modbus",
        "connection": connection,
        "address_base": 0,
        "depth": depth,
        "points": points,
    }
    return ModbusDevice.model_validate(raw).named("plc")


async def _registers(port: int, depth: int, measured: Measured) -> None:
    """hilgate's transaction layer: lists of registers, as pymodbus gives them."""
    from protocols.modbus import pdu
    from protocols.modbus.line import join, part

    shared: dict[Any, Any] = {}
    device = _device(port, depth)
    station = join(device, shared)
    await station.line.open(device.connect_timeout, 0.0)
    requests = [pdu.read(4, FIRST + n * REGISTERS, REGISTERS) for n in range(BLOCKS)]

    async def drive(count: int) -> None:
        for _ in range(count // BLOCKS):
            answers = await station.exchange(requests)
            for request, answer in zip(requests, answers, strict=True):
                registers = struct.unpack(f">{REGISTERS}H", pdu.answer_data(request, answer.pdu))
        _check((BLOCKS - 1) * REGISTERS, registers)

    await measured(drive)
    await part(station, shared)


async def _values(port: int, depth: int, measured: Measured) -> None:
    """hilgate's driver: values by name."""
    from protocols.base import number
    from protocols.modbus.driver import ModbusDriver

    device = _device(port, depth)
    driver = ModbusDriver(device, {})
    await driver.connect()
    names = list(device.points)

    async def drive(count: int) -> None:
        for _ in range(count // BLOCKS):
            sample = await driver.read(names)
        _check((BLOCKS - 1) * REGISTERS, [int(number(sample.values[name])) for name in names[-REGISTERS:]])

    await measured(drive)
    await driver.close()


async def _pymodbus(port: int, depth: int, measured: Measured) -> None:
    """pymodbus's asyncio client, with as many tasks as the depth says."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()

    async def one(count: int) -> None:
        for n in range(count):
            start = n % BLOCKS * REGISTERS
            answer = await client.read_input_registers(FIRST + start, count=REGISTERS, device_id=1)
        _check(start, answer.registers)

    async def drive(count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(depth):
                group.create_task(one(count // depth))

    await measured(drive)
    client.close()


CLIENTS = {PYMODBUS: _pymodbus, ALIKE: _registers, "hilgate named": _values}


def _run_client(library: str, loop: str, depth: int, port: int) -> None:
    """A round, in a process of its own: prints CPU and wall-clock seconds."""

    async def measured(drive: Drive) -> None:
        await drive(WARM_UP)
        cpu, wall = time.process_time(), time.perf_counter()
        await drive(REQUESTS)
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]))

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(CLIENTS[library](port, depth, measured))


def _loops() -> list[str]:
    try:
        import uvloop  # noqa: F401  # whether it is there
    except ImportError:
        return ["asyncio"]
    return ["asyncio", "uvloop"]


def _measure() -> dict[Client, Figures]:
    clients = [Client(library, loop, depth) for loop in _loops() for depth in (1, 16) for library in CLIENTS]
    rounds: dict[Client, list[Any]] = {client: [] for client in clients}
    with ModbusServer("tcp", "0") as server:
        server.put("i", FIRST, *range(BLOCKS * REGISTERS))
        for _ in range(ROUNDS):
            for client in clients:
                command = [sys.executable, "-m", __spec__.name, *map(str, client), str(server.port)]
                rounds[client].append(json.loads(subprocess.check_output(command)))
    return {client: _figures(each) for client, each in rounds.items()}


def _figures(rounds: list[tuple[float, float]]) -> Figures:
    cpu = statistics.median(cpu for cpu, _ in rounds)
    wall = statistics.median(wall for _, wall in rounds)
    return Figures(cpu / REQUESTS * 1e6, REQUESTS * REGISTERS / wall)


def main() -> None:
    """Measures and prints."""
    console = Console()
    if (missing := why_missing()) is not None:
        console.print(f"modbus client: not measured, {missing}")
        return
    found = _measure()
    table = Table(
        title=f"Modbus client: {REGISTERS} registers a request, libmodbus's server",
        caption=f"CPU per request, median of {ROUNDS} rounds of {REQUESTS}; named: values by name",
    )
    for column in ("loop", "depth", "client", "CPU us", "registers/s", "CPU ratio", "wanted"):
        table.add_column(column, justify="left" if column in ("loop", "client") else "right")
    for client, figures in found.items():
        ratio = wanted = ""
        if client.library != PYMODBUS:
            ratio = f"{figures.cpu_us / found[client._replace(library=PYMODBUS)].cpu_us:.2f}"
        if client.library == ALIKE:
            wanted = "<= 0.60" if client.depth == 1 else "<= 0.20"
        cells = (f"{figures.cpu_us:.0f}", f"{figures.registers_s:,.0f}", ratio, wanted)
        table.add_row(client.loop, str(client.depth), client.library, *cells)
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _library, _loop, _depth, _port = sys.argv[1:]
        _run_client(_library, _loop, int(_depth), int(_port))
    else:
        main()
