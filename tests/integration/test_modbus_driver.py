"""The driver on a line: polls, splits, shared lines, writes, calls, TLS."""

import asyncio
import itertools
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from scripted import UNIT, Peer, connected, device, right_answer, running, serial_device, tcp_device

from protocols.base import DeviceState, DriverError, Quality, Refused
from protocols.modbus import pdu
from protocols.modbus.driver import ModbusDriver


async def always_right(peer: Peer) -> None:
    while True:
        await peer.answer_next()


def recorded(seen: list[bytes], lacking: tuple[int, ...] = ()) -> Any:
    """A device that takes every request it does not lack, and keeps them."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request.pdu)
            function = request.pdu[0]
            if function in lacking:
                peer.send(peer.frame(request, pdu.exception_answer(function, 1)))
            elif function in (1, 2, 3, 4):
                peer.answer(request)
            else:
                peer.send(peer.frame(request, pdu.write_answer(request.pdu)))

    return script


def refusing(*refused: int, most: int = 125) -> Any:
    """A device that has no such registers, and answers for at most so many at once."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            read = pdu.parse(request.pdu)
            assert isinstance(read, pdu.Read)
            if read.count > most or any(read.start <= one < read.start + read.count for one in refused):
                peer.send(peer.frame(request, pdu.exception_answer(read.function, 2)))
            else:
                peer.answer(request)

    return script


async def test_polls_keep_time_and_reuse_what_did_not_change() -> None:
    points = {
        "fast": {"table": "input", "address": 3},
        "slow": {"table": "input", "address": 4, "poll": "1h"},
    }
    async with tcp_device(always_right) as connection:
        async with connected(connection, points=points, poll="20ms") as driver, running(driver) as heard:
            await heard.until(lambda: len(heard.samples) > 12)
    fast = [sample for sample in heard.samples if "fast" in sample.values]
    assert len(heard.samples) - len(fast) == 1
    assert all(sample.values is fast[0].values for sample in fast)
    took = (fast[10].time_ns - fast[0].time_ns) / 1e9
    assert took >= 0.19


async def test_cycles_that_found_no_time_are_counted() -> None:
    async def slow(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await asyncio.sleep(0.05)
            peer.answer(request)

    points = {"a": {"table": "input", "address": 3}}
    async with tcp_device(slow) as connection:
        async with connected(connection, points=points, poll="20ms") as driver, running(driver) as heard:
            await heard.until(lambda: heard.missed_cycles >= 4)
    assert len(heard.samples) <= heard.missed_cycles


async def test_a_refused_block_is_split_once_and_goes_on() -> None:
    points = {f"p{n}": {"table": "input", "address": n} for n in range(6)}
    async with tcp_device(refusing(2, 4)) as connection:
        async with (
            connected(connection, points=points, gap=4, poll="10ms") as driver,
            running(driver) as heard,
        ):
            await heard.until(lambda: len(heard.samples) >= 3)
    for sample in heard.samples[:3]:
        assert sample.values == {"p0": 0, "p1": 1, "p3": 3, "p5": 5}
        assert sample.bad == {"p2": Quality.BAD_CONFIG, "p4": Quality.BAD_CONFIG}


async def test_a_hole_that_the_device_refuses_is_not_read_over_again() -> None:
    points = {"a": {"table": "input", "address": 0}, "b": {"table": "input", "address": 3}}
    async with tcp_device(refusing(1, 2)) as connection:
        async with (
            connected(connection, points=points, gap=4, poll="10ms") as driver,
            running(driver) as heard,
        ):
            await heard.until(lambda: len(heard.samples) >= 3)
    assert all((sample.values, sample.bad) == ({"a": 0, "b": 3}, {}) for sample in heard.samples[:3])


async def test_a_device_that_answers_one_register_at_a_time_gets_it() -> None:
    points = {f"p{n}": {"table": "input", "address": n} for n in range(3)}
    async with tcp_device(refusing(most=1)) as connection:
        async with connected(connection, points=points, poll="10ms") as driver, running(driver) as heard:
            await heard.until(lambda: len(heard.samples) >= 4)
    assert all(
        (sample.values, sample.bad) == ({"p0": 0, "p1": 1, "p2": 2}, {}) for sample in heard.samples[:4]
    )


async def test_a_device_that_refuses_every_point_is_said_so() -> None:
    async with tcp_device(refusing(0, 100)) as connection:
        async with connected(connection, poll="10ms") as driver:
            with pytest.raises(DriverError, match="no such address") as failed:
                await driver.read(["a", "b"])
            assert failed.value.code == "device-error"
            async with running(driver) as heard:
                await heard.until(lambda: len(heard.samples) >= 3)
    bad = {"a": Quality.BAD_CONFIG, "b": Quality.BAD_CONFIG}
    assert all((sample.values, sample.bad) == ({}, bad) for sample in heard.samples)


async def test_a_read_of_nothing_is_empty() -> None:
    async with tcp_device(always_right) as connection, connected(connection) as driver:
        assert (await driver.read([])).values == {}


@pytest.mark.parametrize("serial", [True, False])
async def test_a_dead_unit_does_not_slow_the_living(serial: bool) -> None:
    dead_asked: list[float] = []
    loop = asyncio.get_running_loop()
    dying = False

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.unit == UNIT and dying:
                dead_asked.append(loop.time())
            else:
                peer.answer(request)

    shared: dict[object, object] = {}
    fields: dict[str, Any] = {"timeout": "250ms", "poll": "20ms"}
    place = serial_device(script) if serial else tcp_device(script)
    async with (
        place as connection,
        connected(connection, shared, **fields) as dead,
        connected(connection | {"unit": UNIT + 1}, shared, **fields) as living,
        running(dead) as dead_heard,
        running(living) as living_heard,
    ):
        await dead_heard.until(lambda: len(dead_heard.samples) > 2)
        dying = True
        await dead_heard.until(lambda: dead_heard.states)
        assert dead_heard.states[0][0] is DeviceState.DEGRADED
        begun, before = loop.time(), len(living_heard.samples)
        await living_heard.until(lambda: len(living_heard.samples) >= before + 50)
        took = loop.time() - begun
        # 50 cycles of 20 ms and a timeout of 250 ms now and then, where one in each cycle would take 13 s
        assert took < 6.0
        assert len([when for when in dead_asked if when > begun]) <= 1 + took / 0.5
        assert all(not sample.bad for sample in living_heard.samples)
        assert dead_heard.samples[-1].bad == {"a": Quality.TIMEOUT, "b": Quality.TIMEOUT}
        dying = False
        await dead_heard.until(lambda: (DeviceState.ONLINE, "") in dead_heard.states)
        count = len(dead_heard.samples)
        await dead_heard.until(lambda: len(dead_heard.samples) > count)
        assert dead_heard.samples[-1].values == {"a": 0, "b": 100}


async def test_units_share_a_line_fairly() -> None:
    order: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            order.append(request.unit)
            peer.answer(request)

    points = {f"p{n}": {"table": "input", "address": 10 * n} for n in range(20)}
    shared: dict[object, object] = {}
    async with (
        tcp_device(script, rtu_frames=True) as connection,
        connected(connection, shared, points=points) as one,
        connected(connection | {"unit": UNIT + 1}, shared, points=points) as two,
    ):
        assert len(shared) == 1
        del order[:]
        await asyncio.gather(one.read(list(points)), two.read(list(points)))
        assert len(order) == 40
        assert all(abs(order[:n].count(UNIT) * 2 - n) <= 2 for n in range(40))
    assert not shared


async def test_a_line_with_other_settings_is_refused() -> None:
    shared: dict[object, object] = {}
    async with serial_device(always_right) as connection, connected(connection, shared):
        other = ModbusDriver(device(connection | {"unit": 9, "parity": "none"}), shared)
        with pytest.raises(DriverError, match="other settings"):
            await other.connect()
        await other.close()


async def test_commands_overtake_polls() -> None:
    order: list[int] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            order.append(int.from_bytes(request.pdu[1:3]))
            peer.answer(request)

    points = {f"p{n}": {"table": "input", "address": 10 * n} for n in range(50)}
    async with tcp_device(script) as connection, connected(connection, points=points, poll="1h") as driver:
        async with running(driver) as heard:
            while len(order) < 5:
                await asyncio.sleep(0)
            await driver.read(["p49"])
            assert order.index(490) < 20
            await heard.until(lambda: sum(len(sample.values) for sample in heard.samples) == 50)


async def test_pauses_are_kept() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def script(peer: Peer) -> None:
        times.append(loop.time())
        while True:
            request = await peer.request()
            times.append(loop.time())
            peer.answer(request)

    pauses = {"pause_after_connect": "60ms", "pause_between_requests": "30ms"}
    async with tcp_device(script) as connection, connected(connection, **pauses) as driver:
        await driver.read(["a", "b"])
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] >= 0.055
    assert min(gaps[1:]) >= 0.028


WRITABLE: dict[str, Any] = {
    "one": {"table": "holding", "address": 1, "access": "rw"},
    "wide": {"table": "holding", "address": 2, "type": "float32", "access": "rw"},
    "scaled": {"table": "holding", "address": 8, "scale": 0.1, "access": "rw"},
    "bit": {"table": "holding", "address": 3, "bit": 0, "access": "rw"},
    "coil": {"table": "coil", "address": 5, "access": "rw"},
    "coil2": {"table": "coil", "address": 6, "access": "rw"},
}


async def test_functions_are_chosen_well() -> None:
    seen: list[bytes] = []
    async with tcp_device(recorded(seen)) as connection, connected(connection, points=WRITABLE) as driver:
        del seen[:]
        await driver.write({"scaled": 1.04})
        await driver.write({"one": 7, "wide": 1.0})
        await driver.write({"coil": True})
        await driver.write({"coil": True, "coil2": False})
        await driver.write({"bit": True})
    assert seen == [
        pdu.write_register(8, b"\0\x0a"),
        pdu.write_registers(1, b"\0\7\x3f\x80\0\0"),
        pdu.write_coil(5, True),
        pdu.write_coils(5, 2, b"\1"),
        pdu.mask_write(3, 0xFFFE, 1),
    ]


async def test_what_a_write_gives_back_is_what_the_register_holds() -> None:
    async with tcp_device(recorded([])) as connection, connected(connection, points=WRITABLE) as driver:
        assert (await driver.write({"scaled": 1500.04})).values == {"scaled": 1500.0}


async def test_functions_that_a_device_lacks_are_gone_round_and_remembered() -> None:
    seen: list[bytes] = []
    script = recorded(seen, lacking=(5, 6, 22))
    async with tcp_device(script) as connection, connected(connection, points=WRITABLE) as driver:
        del seen[:]
        for _ in range(2):
            await driver.write({"one": 7, "coil": True, "bit": True})
    functions = [request[0] for request in seen]
    assert functions == [6, 16, 5, 15, 22, 3, 16, 16, 15, 3, 16]
    assert seen[6] == pdu.write_registers(3, b"\0\3")  # register 3 held 3, and bit 0 of it was set already


@pytest.mark.parametrize(("mask_write", "functions"), [("no", [3, 6]), ("yes", [22])])
async def test_mask_write_can_be_settled(mask_write: str, functions: list[int]) -> None:
    seen: list[bytes] = []
    async with tcp_device(recorded(seen)) as connection:
        async with connected(connection, points=WRITABLE, mask_write=mask_write) as driver:
            del seen[:]
            await driver.write({"bit": False})
    assert [request[0] for request in seen] == functions


async def test_bits_of_one_register_written_at_once_do_not_undo_each_other() -> None:
    register = 0

    async def script(peer: Peer) -> None:
        nonlocal register
        while True:
            request = await peer.request()
            if request.pdu[0] == 3:
                body = pdu.read_answer(3, register.to_bytes(2))
            else:
                register = int.from_bytes(request.pdu[3:5])
                body = pdu.write_answer(request.pdu)
            peer.send(peer.frame(request, body))

    points = {f"b{n}": {"table": "holding", "address": 0, "bit": n, "access": "rw"} for n in range(16)}
    async with tcp_device(script) as connection:
        async with connected(connection, points=points, mask_write="no") as driver:
            await asyncio.gather(*(driver.write({f"b{n}": True}) for n in range(16)))
    assert register == 0xFFFF


async def test_a_write_that_fails_on_the_way_says_what_was_written() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_next()
        first = await peer.request()
        peer.send(peer.frame(first, pdu.write_answer(first.pdu)))
        second = await peer.request()
        peer.send(peer.frame(second, pdu.exception_answer(second.pdu[0], 4)))
        await always_right(peer)

    async with tcp_device(script) as connection, connected(connection, points=WRITABLE) as driver:
        with pytest.raises(DriverError, match="exception 4") as failed:
            await driver.write({"scaled": 2.0, "one": 7, "coil": True})
        assert failed.value.written == {"scaled": 2.0}
        assert failed.value.code == "device-error"


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
    assert server.transport is not None
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
        ("server-id", {}, b"\x11\x09"),
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


class Authority:
    """A certificate authority, a server that asks for client certificates, and a client's files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)
        authority.configure_trust(self.server)
        self.server.verify_mode = ssl.CERT_REQUIRED
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        client = authority.issue_cert("agent@rig.example")
        client.private_key_pem.write_to_path(self.key)
        for blob in client.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)
        self.client = {"ca": self.ca, "cert": self.cert, "key": self.key}


async def in_two_records(peer: Peer) -> None:
    while True:
        request = await peer.request()
        whole = peer.frame(request, right_answer(request.pdu))
        peer.send(whole[:4])
        peer.send(whole[4:])


async def test_tls_with_a_client_certificate_and_answers_in_two_records(tmp_path: Path) -> None:
    files = Authority(tmp_path)
    async with tcp_device(in_two_records, tls=files.server) as connection:
        async with connected(connection | files.client, timeout="5s") as driver:
            assert (await driver.read(["a", "b"])).values == {"a": 0, "b": 100}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (lambda files: {"ca": files.ca}, "connection was lost|closed the connection|TLS failed"),
        (lambda files: {"cert": files.cert, "key": files.key}, "certificate not trusted"),
        (
            lambda files: {
                "ca": files.ca,
                "cert": files.cert,
                "key": files.key,
                "server_name": "plc.example",
            },
            "certificate not trusted",
        ),
        (lambda files: {"ca": files.ca, "cert": files.ca + ".missing"}, "cannot be opened"),
        (lambda files: {"ca": files.ca, "cert": files.key}, "TLS failed"),
    ],
    ids=["no client certificate", "unknown authority", "another name", "no file", "no certificate in it"],
)
async def test_tls_that_is_refused(tmp_path: Path, fields: Any, words: str) -> None:
    files = Authority(tmp_path)
    async with tcp_device(always_right, tls=files.server) as connection:
        driver = ModbusDriver(device(connection | fields(files), timeout="5s"), {})
        with pytest.raises(DriverError, match=words) as failed:
            await driver.connect()
        assert failed.value.code == "disconnected"
        await driver.close()


async def test_closing_twice_and_before_connecting() -> None:
    async with tcp_device(always_right) as connection:
        driver = ModbusDriver(device(connection), {})
        await driver.close()
        await driver.connect()
        await driver.close()
        await driver.close()
        with pytest.raises(DriverError, match="not connected"):
            await driver.read(["a"])
