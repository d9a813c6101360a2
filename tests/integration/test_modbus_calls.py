"""The calls: against pymodbus's server, with wrong arguments, and with false answers."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from scripted import UNIT, Peer, always_right, connected, recorded, tcp_device

from protocols.base import DriverError, Refused


@pytest.fixture
async def pymodbus_connection() -> AsyncIterator[dict[str, Any]]:
    """pymodbus's server: a second opinion on the functions that libmodbus does not have."""
    identity = ModbusDeviceIdentification(
        info_name={
            "VendorName": "Acme",
            "ProductCode": "P-1",
            "MajorMinorRevision": "2.3",
            "ModelName": "Pump",
        }
    )
    registers = SimData(0, values=list(range(100)), datatype=DataType.REGISTERS)
    bits = SimData(0, values=[True, False] * 8, datatype=DataType.BITS)
    unit = SimDevice(UNIT, simdata=([bits], [bits], [registers], [registers]))
    server = ModbusTcpServer(unit, address=("127.0.0.1", 0), identity=identity)
    await server.listen()
    assert isinstance(server.transport, asyncio.Server)
    port = server.transport.sockets[0].getsockname()[1]
    yield {"transport": "tcp", "host": "127.0.0.1", "port": port, "unit": UNIT}
    await server.shutdown()


async def test_calls_to_pymodbus(pymodbus_connection: dict[str, Any]) -> None:
    points = {"a": {"table": "holding", "address": 5}, "c": {"table": "coil", "address": 0}}
    async with connected(pymodbus_connection, points=points, timeout="5s") as driver:
        assert (await driver.read(["a", "c"])).values == {"a": 5, "c": True}
        basic = await driver.call("identify", {})
        assert basic == {"vendor": "Acme", "product-code": "P-1", "revision": "2.3"}
        assert (await driver.call("identify", {"level": "regular"}))["model-name"] == "Pump"
        assert (await driver.call("server-id", {}))["id"] == "Acme-P-1-2.3"
        assert await driver.call("diagnostics", {"data": "a537"}) == {"data": "a537"}
        assert await driver.call("diagnostics", {"data": "0x1234"}) == {"data": "1234"}
        assert (await driver.call("comm-event-counter", {}))["busy"] is False
        assert len((await driver.call("exception-status", {}))["flags"]) == 8
        assert await driver.call("read", {"table": "coil", "address": 1, "count": 3}) == {
            "bits": [False, True, False]
        }
        assert await driver.call("read-fifo", {"address": 0}) == {"registers": [0, 1, 2, 3]}
        assert await driver.call("read-file", {"file": 4, "record": 1, "count": 10}) == {
            "registers": list(struct.unpack(">10H", b"SERVER DUMMY RECORD."))
        }
        written = {"file": 4, "record": 7, "registers": [1, 2]}
        assert await driver.call("write-file", written) == {"registers": [1, 2]}
        swap = {"address": 0, "count": 4, "write_address": 2, "registers": [70, 80]}
        assert await driver.call("read-write", swap) == {"registers": [0, 1, 70, 80]}


@pytest.mark.parametrize(
    ("method", "args", "code"),
    [
        ("reboot", {}, "unknown-op"),
        ("identify", {"level": "all"}, "malformed"),
        ("identify", {"colour": "red"}, "malformed"),
        ("read", {"table": "holding", "address": 0, "count": 126}, "out-of-range"),
        ("read", {"table": "holding", "address": 65535, "count": 2}, "out-of-range"),
        ("raw", {"function": 3, "data": "0"}, "malformed"),
        ("raw", {"function": 128}, "malformed"),
        ("write-file", {"file": 1, "record": 0, "registers": [70000]}, "malformed"),
    ],
)
async def test_wrong_calls_are_refused(method: str, args: dict[str, Any], code: str) -> None:
    seen: list[bytes] = []
    async with tcp_device(recorded(seen)) as connection, connected(connection) as driver:
        del seen[:]
        with pytest.raises(Refused) as refused:
            await driver.call(method, args)
        assert refused.value.code == code
    assert not seen


@pytest.mark.parametrize(
    ("method", "args", "answer"),
    [
        ("identify", {}, b"\x2b\x0e"),
        ("identify", {}, b"\x2b\x0e\1\1\0\0\1\0"),
        ("server-id", {}, b"\x11"),
        ("server-id", {}, b"\x11\x00"),
        ("server-id", {}, b"\x11\x09"),
        ("server-id", {}, b"\x11\x01A\xff"),
        ("exception-status", {}, b"\x07"),
        ("diagnostics", {}, b"\x08\0\1\0\0"),
        ("comm-event-counter", {}, b"\x0b\0"),
        ("read-file", {"file": 4, "record": 1, "count": 1}, b"\x14\2\1\6"),
        ("read-file", {"file": 4, "record": 1, "count": 1}, b"\x14\4\3\6\1"),
        ("write-file", {"file": 4, "record": 1, "registers": [1]}, b"\x15\0"),
        ("read-fifo", {"address": 0}, b"\x18\0\6\0\2\0\1"),
        ("read", {"table": "input", "address": 0}, b"\x04\2\0"),
        ("raw", {"function": 100}, b"\xe4\x04"),
    ],
)
async def test_false_answers_to_calls_are_failures(method: str, args: dict[str, Any], answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        request = await peer.request()
        peer.send(peer.frame(request, answer))
        await always_right(peer)

    async with tcp_device(script) as connection, connected(connection) as driver:
        with pytest.raises(DriverError) as failed:
            await driver.call(method, args)
        assert failed.value.code == "device-error"


async def test_an_identification_in_parts_is_put_together() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        first = await peer.request()
        peer.send(peer.frame(first, b"\x2b\x0e\x03\x83\xff\x80\x01\x00\x02AB"))
        second = await peer.request()
        assert second.pdu == b"\x2b\x0e\x03\x80"
        peer.send(peer.frame(second, b"\x2b\x0e\x03\x83\x00\x00\x01\x80\x02\xff\xfe"))

    async with tcp_device(script) as connection, connected(connection) as driver:
        found = await driver.call("identify", {"level": "extended"})
    assert found == {"vendor": "AB", "object-128": "fffe"}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"PLC\xff", {"id": "PLC", "hex": "504c43ff", "running": True}),
        (b"PLC\x00", {"id": "PLC", "hex": "504c4300", "running": False}),
        (b"\xff", {"id": "", "hex": "ff", "running": True}),
        # As libmodbus does: the indicator stands before a text.
        (b"\xb4\xffLMB3", {"id": "b4ff4c4d4233", "hex": "b4ff4c4d4233", "running": None}),
    ],
)
async def test_whether_a_device_runs_is_said_only_where_it_says_so(
    data: bytes, found: dict[str, Any]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        peer.send(peer.frame(await peer.request(), bytes((0x11, len(data))) + data))

    async with tcp_device(script) as connection, connected(connection) as driver:
        assert await driver.call("server-id", {}) == found
