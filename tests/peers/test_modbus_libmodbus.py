"""The Modbus driver against libmodbus's server: over TCP, over a serial line, and through a serial server."""

import asyncio
import contextlib
import random
import shutil
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from protocols.base import DeviceState, DriverError, Quality, Sample
from protocols.modbus.config import ModbusDevice
from protocols.modbus.driver import ModbusDriver
from tests.tools.modbus_peer import HOW, ModbusServer, why_missing

pytestmark = pytest.mark.peer("libmodbus")

Need = Callable[[str, str | None, str], None]
PATIENCE_S = 60.0
UNIT = 5


@pytest.fixture(autouse=True)
def _libmodbus(need: Need) -> None:
    need("libmodbus", why_missing(), HOW)


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    with ModbusServer("tcp", "0") as one:
        yield one


@contextlib.asynccontextmanager
async def socat(*ends: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec("socat", *ends)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another process brings about, and of which nothing tells."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def tcp(server: ModbusServer) -> dict[str, Any]:
    return {"transport": "tcp", "host": "127.0.0.1", "port": server.port, "unit": UNIT}


@contextlib.asynccontextmanager
async def driver_for(
    connection: Mapping[str, Any], points: Mapping[str, Any], **more: Any
) -> AsyncIterator[ModbusDriver]:
    raw = {
        "protocol": "modbus",
        "connection": connection,
        "address_base": 0,
        "points": points,
        "timeout": 20.0,
        **more,
    }
    driver = ModbusDriver(ModbusDevice.model_validate(raw).named("rig"), {})
    try:
        await driver.connect()
        yield driver
    finally:
        await driver.close()


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.samples: asyncio.Queue[Sample] = asyncio.Queue()
        self.missed_cycles = 0

    def sample(self, sample: Sample) -> None:
        self.samples.put_nowait(sample)

    def state(self, state: DeviceState, reason: str = "") -> None:
        raise AssertionError(f"{state}: {reason}")

    async def kept(self) -> None:
        pass

    def missed(self, cycles: int, period: float) -> None:
        self.missed_cycles += cycles

    def frames(self, body: bytes, time_ns: int) -> None:
        raise AssertionError("Modbus has no frames")

    def lost(self, count: int, reason: str) -> None:
        raise AssertionError(f"lost {count}: {reason}")

    async def until(self, point: str, value: object) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await self.samples.get()).values.get(point) != value:
                pass


def words(layout: str, value: Any) -> list[int]:
    data = struct.pack(layout, value)
    return list(struct.unpack(f">{len(data) // 2}H", data))


def ordered(registers: list[int], order: str) -> list[int]:
    """Most significant first, brought into an order by what its name says: A is the first byte's place."""
    data = struct.pack(f">{len(registers)}H", *registers)
    if order in ("BADC", "DCBA"):
        data = b"".join(data[at : at + 2][::-1] for at in range(0, len(data), 2))
    found = list(struct.unpack(f">{len(registers)}H", data))
    return found[::-1] if order in ("CDAB", "DCBA") else found


LAYOUTS: dict[str, tuple[str, Any]] = {
    "int16": (">h", -12345),
    "uint16": (">H", 54321),
    "int32": (">i", -1234567890),
    "uint32": (">I", 3456789012),
    "int64": (">q", -(2**62) - 3),
    "uint64": (">Q", 2**64 - 3),
    "float16": (">e", 1.5),
    "float32": (">f", -1.75 * 2**40),
    "float64": (">d", 0.1),
}


@pytest.mark.parametrize("order", ["ABCD", "BADC", "CDAB", "DCBA"])
async def test_every_type_is_read_and_written_in_every_order(server: ModbusServer, order: str) -> None:
    points, expected, registers = {}, {}, {}
    for place, (kind, (layout, value)) in enumerate(LAYOUTS.items()):
        for table in ("input", "holding"):
            access = "rw" if table == "holding" else "ro"
            point = {"table": table, "address": place * 10, "type": kind, "order": order, "access": access}
            points[f"{table}-{kind}"], expected[f"{table}-{kind}"] = point, value
        registers[place * 10] = ordered(words(layout, value), order)
        server.put("i", place * 10, *registers[place * 10])
    async with driver_for(tcp(server), points) as driver:
        writable = {name: value for name, value in expected.items() if name.startswith("holding")}
        assert (await driver.write(writable)).values == writable
        for address, held in registers.items():
            assert server.get("h", address, len(held)) == held
        sample = await driver.read(list(points))
        assert sample.values == expected
        assert not sample.bad


async def test_texts_codes_digits_and_bits(server: ModbusServer) -> None:
    points: dict[str, Any] = {
        "text": {"table": "holding", "address": 0, "type": "string", "length": 7, "access": "rw"},
        "raw": {"table": "holding", "address": 10, "type": "bytes", "length": 4, "access": "rw"},
        "digits": {"table": "holding", "address": 20, "type": "bcd32", "access": "rw"},
        "mode": {"table": "holding", "address": 30, "labels": {0: "off", 7: "auto"}, "access": "rw"},
        "scaled": {"table": "holding", "address": 31, "type": "int16", "scale": 0.1, "access": "rw"},
        "bit": {"table": "holding", "address": 40, "bit": 3, "access": "rw"},
        "field": {"table": "holding", "address": 40, "bits": "8..11", "access": "rw"},
        "coil": {"table": "coil", "address": 3, "access": "rw"},
        "far": {"table": "coil", "address": 700, "access": "rw"},
        "input": {"table": "discrete", "address": 9},
        "not-a-number": {"table": "input", "address": 0, "type": "float32"},
        "no-digit": {"table": "input", "address": 2, "type": "bcd16"},
        "no-label": {"table": "input", "address": 3, "labels": {0: "off"}},
    }
    values: dict[str, Any] = {
        "text": "Pumpe",
        "raw": "00ff10ab",
        "digits": 12345678,
        "mode": "auto",
        "scaled": -12.3,
        "bit": True,
        "field": 9,
        "coil": True,
        "far": True,
    }
    server.put("h", 40, 0xF0F0)
    server.put("i", 0, 0x7FC0, 0, 0x00A0, 5)
    server.put("d", 9, 1)
    async with driver_for(tcp(server), points) as driver:
        assert (await driver.write(values)).values == values
        assert server.get("h", 0, 4) == [0x5075, 0x6D70, 0x6500, 0]
        assert server.get("h", 10, 2) == [0x00FF, 0x10AB]
        assert server.get("h", 20, 2) == [0x1234, 0x5678]
        assert server.get("h", 30, 2) == [7, 0x10000 - 123]
        assert server.get("h", 40) == [0xF9F8]  # the other bits are as they were
        assert server.get("c", 2, 3) == [0, 1, 0]
        assert server.get("c", 700) == [1]
        sample = await driver.read(list(points))
        assert sample.values == {**values, "input": True}
        assert sample.bad == {
            "not-a-number": Quality.NOT_A_NUMBER,
            "no-digit": Quality.OUT_OF_RANGE,
            "no-label": Quality.OUT_OF_RANGE,
        }


async def test_a_thousand_points_at_depth_sixteen_are_each_their_own(server: ModbusServer) -> None:
    points = {f"p{n}": {"table": "holding", "address": 2 * n, "access": "rw"} for n in range(1000)}
    drawn = random.Random(1)
    values = {name: drawn.randrange(65536) for name in points}
    async with driver_for(tcp(server), points, depth=16, gap=0) as driver:  # 1,000 requests
        await driver.write(values)
        assert server.get("h", 0, 2000)[::2] == list(values.values())
        for _ in range(3):
            assert (await driver.read(list(points))).values == values


@pytest.mark.parametrize(
    ("exception", "code", "words_"),
    [
        (1, "device-error", "does not have this function"),
        (2, "device-error", "no such address"),
        (3, "device-error", "does not take this value"),
        (4, "device-error", "failed while"),
        (5, "device-error", "outcome is not known"),
        (6, "device-error", "busy"),
        (8, "device-error", "memory"),
        (10, "disconnected", "gateway has no path"),
        (11, "timeout", "does not answer the gateway"),
    ],
)
async def test_exceptions_become_failures_with_words(
    server: ModbusServer, exception: int, code: str, words_: str
) -> None:
    points = {
        "good": {"table": "holding", "address": 0},
        "wrong": {"table": "holding", "address": 9000 + exception, "access": "rw"},
    }
    async with driver_for(tcp(server), points, poll="20ms") as driver:
        with pytest.raises(DriverError, match=words_) as caught:
            await driver.write({"wrong": 1})
        assert caught.value.code == code
        sample = await driver.read(["good", "wrong"])
        assert sample.values == {"good": 0}
        if exception == 2:
            assert sample.bad == {"wrong": Quality.BAD_CONFIG}
        else:
            assert sample.bad == {"wrong": caught.value.quality}


async def test_a_block_that_reaches_past_the_end_is_split(server: ModbusServer) -> None:
    points = {f"p{address}": {"table": "input", "address": address} for address in range(9990, 10002)}
    server.put("i", 9999, 7)
    async with driver_for(tcp(server), points) as driver:
        sample = await driver.read(list(points))
        assert sample.bad == {"p10000": Quality.BAD_CONFIG, "p10001": Quality.BAD_CONFIG}
        assert (sample.values["p9990"], sample.values["p9999"]) == (0, 7)


async def test_polls_see_changes_and_survive_a_restart_of_the_server(server: ModbusServer) -> None:
    points = {"level": {"table": "input", "address": 1}, "open": {"table": "coil", "address": 1}}
    async with driver_for(tcp(server), points, poll="20ms") as driver:
        heard = Heard()
        polling = asyncio.create_task(driver.run(heard))
        await heard.until("level", 0)
        server.put("i", 1, 42)
        await heard.until("level", 42)
        server.kill()
        with pytest.raises(DriverError) as caught:
            await asyncio.wait_for(polling, PATIENCE_S)
        assert caught.value.code == "disconnected"
        with pytest.raises(DriverError):
            await driver.connect()
        server.start()
        server.put("i", 1, 43)
        await driver.connect()
        polling = asyncio.create_task(driver.run(heard))
        await heard.until("level", 43)
        polling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polling


async def test_calls(server: ModbusServer) -> None:
    server.put("h", 3, 1, 2, 3)
    async with driver_for(tcp(server), {"any": {"table": "holding", "address": 0}}) as driver:
        identity = await driver.call("server-id", {})
        assert bytes.fromhex(identity["hex"]).startswith(b"\xb4\xffLMB")
        assert identity["running"] is None  # libmodbus says it in the middle
        answer = await driver.call("read", {"table": "holding", "address": 3, "count": 3})
        assert answer == {"registers": [1, 2, 3]}
        swap = {"address": 3, "count": 4, "write_address": 5, "registers": [7, 8]}
        assert await driver.call("read-write", swap) == {"registers": [1, 2, 7, 8]}
        assert await driver.call("raw", {"function": 3, "data": "00030001"}) == {"data": "020001"}
        with pytest.raises(DriverError, match="does not have this function"):
            await driver.call("identify", {})


@pytest.fixture
def _socat(need: Need) -> None:
    need("socat", None if shutil.which("socat") else "no command socat", "apt-get install socat")


POINTS: dict[str, Any] = {
    "speed": {"table": "input", "address": 0, "type": "float32"},
    "setpoint": {"table": "holding", "address": 10, "access": "rw"},
    "running": {"table": "coil", "address": 3, "access": "rw"},
}


async def _read_write_poll(server: ModbusServer, driver: ModbusDriver) -> None:
    server.put("i", 0, *words(">f", 12.5))
    await driver.write({"setpoint": 1500, "running": True})
    assert (server.get("h", 10), server.get("c", 3)) == ([1500], [1])
    for _ in range(20):
        sample = await driver.read(list(POINTS))
        assert sample.values == {"speed": 12.5, "setpoint": 1500, "running": True}
    heard = Heard()
    polling = asyncio.create_task(driver.run(heard))
    server.put("h", 10, 1600)
    await heard.until("setpoint", 1600)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling


@pytest.mark.usefixtures("_socat")
async def test_rtu_over_a_serial_line(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    async with socat(f"pty,raw,echo=0,link={ours}", f"pty,raw,echo=0,link={theirs}"):
        await until(lambda: ours.exists() and theirs.exists())
        with ModbusServer("rtu", str(theirs), "115200", str(UNIT)) as server:
            serial = {
                "transport": "rtu",
                "port": str(ours),
                "unit": UNIT,
                "baudrate": 115200,
                "parity": "none",
            }
            async with driver_for(serial, POINTS, poll="50ms") as driver:
                await _read_write_poll(server, driver)


@pytest.mark.usefixtures("_socat")
async def test_rtu_through_a_serial_server(tmp_path: Path, unused_tcp_port: int) -> None:
    theirs = tmp_path / "theirs"
    listen = f"tcp-listen:{unused_tcp_port},bind=127.0.0.1,reuseaddr"
    async with socat(f"pty,raw,echo=0,link={theirs}", listen):
        await until(theirs.exists)
        with ModbusServer("rtu", str(theirs), "115200", str(UNIT)) as server:
            there = {"transport": "rtu-tcp", "host": "127.0.0.1", "port": unused_tcp_port, "unit": UNIT}
            async with driver_for(there, POINTS, poll="50ms") as driver:
                await _read_write_poll(server, driver)
