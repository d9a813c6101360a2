"""The simulated Modbus device, with pymodbus's client as an independent oracle."""

import asyncio
import os
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusTlsClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.file_message import FileRecord

from protocols.modbus.config import ModbusDevice
from protocols.modbus.framing import rtu
from sim.modbus import SIMULATOR

TCP = {"transport": "tcp", "host": "plc.example"}

POINTS: dict[str, Any] = {
    "speed": {"table": "input", "address": 0, "type": "float32", "unit": "rpm"},
    "count": {"table": "input", "address": 2, "type": "uint32", "order": "CDAB"},
    "name": {"table": "input", "address": 4, "type": "string", "length": 5},
    "level": {"table": "input", "address": 7, "type": "int16", "scale": 0.1},
    "alarm": {"table": "input", "address": 8, "bit": 3},
    "stage": {"table": "input", "address": 8, "bits": "4..7", "labels": {0: "idle", 5: "run"}},
    "serial": {"table": "input", "address": 9, "type": "bcd32"},
    "lonely": {"table": "input", "address": 20},
    "setpoint": {
        "table": "holding",
        "address": 10,
        "type": "uint16",
        "scale": 0.1,
        "access": "rw",
        "safe": 0,
    },
    "gains": {"table": "holding", "address": 11, "type": "float32", "access": "rw"},
    "flag": {"table": "holding", "address": 13, "bit": 0, "access": "rw"},
    "fixed": {"table": "holding", "address": 14, "sim_is": 7},
    "running": {"table": "coil", "address": 3, "access": "rw", "safe": True},
    "valve": {"table": "coil", "address": 4, "access": "rw"},
    "ready": {"table": "discrete", "address": 0},
    "open": {"table": "discrete", "address": 1},
}
SIM: dict[str, Any] = {
    "speed": {"follow": "setpoint"},
    "count": 0x12345678,
    "name": "pump",
    "level": -1.5,
    "alarm": True,
    "stage": "run",
    "serial": 12345678,
    "fixed": 7,
    "ready": {"follow": "running"},
    "open": True,
}


def device(name: str = "pump", **changes: Any) -> ModbusDevice:
    points = {key: {k: v for k, v in point.items() if k != "sim_is"} for key, point in POINTS.items()}
    raw = {
        "protocol": "modbus",
        "connection": TCP,
        "address_base": 0,
        "points": points,
        "sim": SIM,
        **changes,
    }
    return ModbusDevice.model_validate(raw).named(name, Path("/profiles"))


def client_of(connection: Any) -> ModbusBaseClient:
    match connection.transport:
        case "tcp":
            return AsyncModbusTcpClient(connection.host, port=connection.port)
        case "rtu-tcp":
            return AsyncModbusTcpClient(connection.host, port=connection.port, framer=FramerType.RTU)
        case "rtu":
            return AsyncModbusSerialClient(
                connection.port, baudrate=connection.baudrate, parity=connection.parity[0].upper()
            )
    context = ssl.create_default_context(cafile=connection.ca)
    if connection.cert is not None:
        context.load_cert_chain(connection.cert)
    return AsyncModbusTlsClient(connection.host, port=connection.port, sslctx=context)


@asynccontextmanager
async def client_to(one: ModbusDevice) -> AsyncIterator[ModbusBaseClient]:
    client = client_of(one.connection)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
async def client() -> AsyncIterator[ModbusBaseClient]:
    async with SIMULATOR.start({"pump": device()}) as running, client_to(running["pump"]) as made:
        yield made


def code(answer: ModbusPDU) -> int | None:
    return answer.exception_code if answer.isError() else None


CONNECTIONS: dict[str, dict[str, Any]] = {
    "tcp": TCP,
    "tls": {"transport": "tls", "host": "plc.example"},
    "mutual tls": {"transport": "tls", "host": "plc.example", "cert": "client.pem", "key": "client.key"},
    "rtu": {"transport": "rtu", "port": "/dev/ttyUSB0"},
    "rtu-tcp": {"transport": "rtu-tcp", "host": "plc.example", "port": 4001},
}


async def _ask_often(connection: dict[str, Any]) -> None:
    async with SIMULATOR.start({"pump": device(connection=connection)}) as running:
        there = running["pump"]
        assert (there.name, there.folder) == ("pump", Path("/profiles"))
        async with client_to(there) as client:
            for n in range(20):
                await client.write_register(10, n, device_id=1)
                answer = await client.read_holding_registers(10, count=1, device_id=1)
                assert answer.registers == [n]


@pytest.mark.parametrize("connection", CONNECTIONS.values(), ids=CONNECTIONS)
async def test_every_transport_answers(connection: dict[str, Any]) -> None:
    await _ask_often(connection)


@pytest.mark.parametrize("connection", CONNECTIONS.values(), ids=CONNECTIONS)
def test_every_transport_answers_under_uvloop(connection: dict[str, Any]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_ask_often(connection))


async def test_a_serial_line_finds_its_way_back_after_garbage() -> None:
    async with SIMULATOR.start({"pump": device(connection=CONNECTIONS["rtu"])}) as running:
        there = running["pump"].connection
        request = rtu(1, bytes.fromhex("03000a0001"))
        loop = asyncio.get_running_loop()
        answers = bytearray()
        port = os.open(there.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        loop.add_reader(port, lambda: answers.extend(os.read(port, 4096)))
        try:
            os.write(port, b"\x01\x10\x00\x00\x00\x7b\xf6" + bytes(20))  # begins a request of 255 bytes
            async with asyncio.timeout(5):
                while not answers:  # a real master asks again after its timeout, here of 0.1 s
                    await asyncio.sleep(0.1)
                    for piece in (request[:3], request[3:]):
                        os.write(port, piece)
            assert bytes(answers[:7]) == rtu(1, bytes.fromhex("03020000"))
        finally:
            loop.remove_reader(port)
            os.close(port)


async def test_tls_refuses_a_client_without_a_certificate() -> None:
    connection = {"transport": "tls", "host": "plc.example", "cert": "client.pem"}
    async with SIMULATOR.start({"pump": device(connection=connection)}) as running:
        there = running["pump"].connection
        context = ssl.create_default_context(cafile=there.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 tells the client only after its handshake
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(there.host, there.port, ssl=context)


async def test_registers_hold_what_the_profile_says(client: ModbusBaseClient) -> None:
    answer = await client.read_input_registers(0, count=11, device_id=1)
    data = struct.pack(">11H", *answer.registers)
    assert struct.unpack_from(">f", data, 0) == (0.0,)
    assert data[4:8].hex() == "56781234"
    assert data[8:14] == b"pump\0\0"
    assert struct.unpack_from(">h", data, 14) == (-15,)
    assert data[16:18].hex() == "0058"
    assert data[18:22].hex() == "12345678"
    assert (await client.read_holding_registers(14, count=1, device_id=1)).registers == [7]


async def test_bits_hold_what_the_profile_says(client: ModbusBaseClient) -> None:
    assert (await client.read_coils(3, count=2, device_id=1)).bits[:2] == [True, False]
    assert (await client.read_discrete_inputs(0, count=2, device_id=1)).bits[:2] == [True, True]


async def test_writes_are_read_back_and_followed(client: ModbusBaseClient) -> None:
    await client.write_registers(10, [12345, *struct.unpack(">2H", struct.pack(">f", 2.5))], device_id=1)
    answer = await client.read_holding_registers(10, count=3, device_id=1)
    assert answer.registers == [12345, 0x4020, 0]
    speed = (await client.read_input_registers(0, count=2, device_id=1)).registers
    assert struct.unpack(">f", struct.pack(">2H", *speed)) == (1234.5,)
    await client.write_coil(3, False, device_id=1)
    await client.write_coils(3, [False, True], device_id=1)
    assert (await client.read_coils(3, count=2, device_id=1)).bits[:2] == [False, True]
    assert (await client.read_discrete_inputs(0, count=1, device_id=1)).bits[0] is False


async def test_mask_write_and_read_write(client: ModbusBaseClient) -> None:
    await client.write_register(13, 0x0012, device_id=1)
    await client.mask_write_register(address=13, and_mask=0x00F2, or_mask=0x0025, device_id=1)
    assert (await client.read_holding_registers(13, count=1, device_id=1)).registers == [
        0x0017
    ]  # section 6.16
    answer = await client.readwrite_registers(
        read_address=10, read_count=2, write_address=10, values=[77, 88], device_id=1
    )
    assert answer.registers == [77, 88]


Ask = Callable[[ModbusBaseClient], Any]


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda c: c.read_input_registers(0, count=12, device_id=1), 2),  # 11 belongs to no point
        (lambda c: c.read_input_registers(30, count=1, device_id=1), 2),
        (lambda c: c.read_input_registers(65535, count=2, device_id=1), 2),
        (lambda c: c.read_coils(2, count=2, device_id=1), 2),
        (lambda c: c.read_discrete_inputs(0, count=3, device_id=1), 2),
        (lambda c: c.write_register(14, 1, device_id=1), 2),  # read-only
        (lambda c: c.write_registers(13, [1, 1], device_id=1), 2),
        (lambda c: c.write_coil(5, True, device_id=1), 2),
        (
            lambda c: c.readwrite_registers(
                read_address=0, read_count=1, write_address=10, values=[1], device_id=1
            ),
            2,
        ),
        (lambda c: c.read_exception_status(device_id=1), None),
        (lambda c: c.diag_query_data(b"ab", device_id=1), None),
        (lambda c: c.diag_read_bus_message_count(device_id=1), 1),
        (lambda c: c.report_device_id(device_id=1), None),
        (lambda c: c.read_fifo_queue(address=99, device_id=1), 2),
        (lambda c: c.read_device_information(read_code=4, object_id=9, device_id=1), 2),
    ],
)
async def test_exceptions_are_honest(client: ModbusBaseClient, ask: Ask, expected: int | None) -> None:
    await client.write_register(10, 5, device_id=1)
    assert code(await ask(client)) == expected
    assert (await client.read_holding_registers(10, count=1, device_id=1)).registers == [5]


async def test_identification(client: Any) -> None:
    basic = await client.read_device_information(read_code=1, object_id=0, device_id=1)
    assert basic.information == {0: b"hilgate", 1: b"SIM", 2: b"1"}
    regular = await client.read_device_information(read_code=2, object_id=0, device_id=1)
    assert regular.information[4] == b"pump"
    one = await client.read_device_information(read_code=4, object_id=4, device_id=1)
    assert one.information == {4: b"pump"}
    server = await client.report_device_id(device_id=1)
    assert (server.identifier, server.status) == (b"pump", True)


async def test_files_and_fifo(client: Any) -> None:
    record = FileRecord(file_number=2, record_number=7, record_data=b"\1\2\3\4")
    assert code(await client.write_file_record([record], device_id=1)) is None
    asked = FileRecord(file_number=2, record_number=7, record_length=4)
    answer = await client.read_file_record([asked], device_id=1)
    assert answer.records[0].record_data == b"\1\2\3\4"
    beyond = FileRecord(file_number=2, record_number=255, record_length=4)
    assert code(await client.read_file_record([beyond], device_id=1)) == 2
    for value in range(40):
        await client.write_register(10, value, device_id=1)
    assert (await client.read_fifo_queue(address=10, device_id=1)).values == list(range(9, 40))


async def test_diagnostic_counters(client: Any) -> None:
    await client.diag_clear_counters(device_id=1)
    await client.read_holding_registers(10, count=1, device_id=1)
    await client.read_holding_registers(99, count=1, device_id=1)
    assert (await client.diag_read_bus_exception_error_count(device_id=1)).message == 1
    assert (await client.diag_read_device_message_count(device_id=1)).message == 4


async def test_units_on_one_line_answer_for_themselves_only() -> None:
    def unit(number: int, value: int) -> ModbusDevice:
        points = {"value": {"table": "holding", "address": 0, "access": "rw"}}
        connection = {"transport": "rtu", "port": "/dev/ttyS0", "unit": number}
        return device(f"unit-{number}", connection=connection, points=points, sim={"value": value})

    async with SIMULATOR.start({"a": unit(3, 30), "b": unit(4, 40)}) as running:
        assert running["a"].connection.port == running["b"].connection.port
        async with client_to(running["a"]) as client:
            client.comm_params.timeout_connect = 1
            assert (await client.read_holding_registers(0, count=1, device_id=3)).registers == [30]
            assert (await client.read_holding_registers(0, count=1, device_id=4)).registers == [40]
            await client.write_register(0, 7, device_id=0, no_response_expected=True)  # a broadcast
            assert (await client.read_holding_registers(0, count=1, device_id=4)).registers == [7]
            assert (await client.read_holding_registers(0, count=1, device_id=3)).registers == [7]


async def test_pipelined_requests_are_all_answered_in_order() -> None:
    async with SIMULATOR.start({"pump": device()}) as running:
        there = running["pump"].connection
        reader, writer = await asyncio.open_connection(there.host, there.port)
        requests = [struct.pack(">HHHBBHH", n, 0, 6, 1, 3, 10, 1) for n in range(50)]
        silent = struct.pack(">HHHBBHH", 99, 0, 6, 9, 3, 10, 1)  # no such unit
        stream = silent + b"".join(requests)
        for start in range(0, len(stream), 7):  # in pieces
            writer.write(stream[start : start + 7])
            await writer.drain()
        answers = await asyncio.wait_for(reader.readexactly(50 * 11), 5)
        assert [answer[0] for answer in struct.iter_unpack(">H9x", answers)] == list(range(50))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""  # closed
        writer.close()


async def test_leaving_closes_everything() -> None:
    async with SIMULATOR.start({"pump": device()}) as running:
        there = running["pump"].connection
        reader, writer = await asyncio.open_connection(there.host, there.port)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(there.host, there.port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
