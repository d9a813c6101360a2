"""Serial ports: opened for one alone, unplugged, plugged in again, and behind RFC 2217."""

import asyncio
import os
import socket
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from serial.rfc2217 import PortManager
from text_peer import PATIENCE_S, Peer, Recorder, connected, device, peer, running
from waiting import until

from protocols.base import DriverError, Quality
from protocols.text.driver import TextDriver


class Adapter:
    """A pty that stands for a USB adapter with an instrument on it; the loop answers for it."""

    def __init__(self, answer: bytes) -> None:
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        self.path = os.ttyname(self._theirs)
        self._answer = answer
        self.heard = b""
        asyncio.get_running_loop().add_reader(self._ours, self._readable)

    def _readable(self) -> None:
        data = os.read(self._ours, 4096)
        self.heard += data
        os.write(self._ours, self._answer * data.count(b"\n"))

    def unplug(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._theirs)
        os.close(self._ours)


def port(path: Path | str, **fields: Any) -> dict[str, Any]:
    return {"transport": "serial", "port": str(path), **fields}


async def test_an_adapter_that_is_unplugged_is_found_again_by_its_id(tmp_path: Path) -> None:
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    link = by_id / "usb-Example_PSU_0042-if00"
    first = Adapter(b"1\n")
    link.symlink_to(first.path)
    made = device(port(link), poll="20ms", connect_timeout="1s")
    async with connected(made) as driver:
        sink = Recorder()
        run = asyncio.create_task(driver.run(sink))
        await until(lambda: 1 in sink.all_of("volts"))
        link.unlink()
        first.unplug()
        with pytest.raises(DriverError, match=r"connection was lost|closed the connection") as failed:
            await run
        assert failed.value.code == "disconnected"
        await driver.close()
        with pytest.raises(DriverError, match="No such file or directory; no adapter is plugged in"):
            await driver.connect()
        await driver.close()
        second = Adapter(b"2\n")
        other = by_id / "usb-Other_DMM_0007-if00"
        other.symlink_to(second.path)
        with pytest.raises(DriverError, match="plugged in: usb-Other_DMM_0007-if00"):
            await driver.connect()
        await driver.close()
        other.rename(link)
        await driver.connect()
        assert (await driver.read(["volts"])).values == {"volts": 2}
    second.unplug()


async def test_a_port_is_opened_by_one_alone_and_with_its_settings() -> None:
    adapter = Adapter(b"5\n")
    settings = {"baudrate": 115200, "stopbits": 2, "flow": "xonxoff", "dtr": False, "rts": False}
    async with connected(device(port(adapter.path, **settings))):
        second = TextDriver(device(port(adapter.path)), {})
        with pytest.raises(DriverError, match="cannot be opened"):
            await second.connect()
        await second.close()
    adapter.unplug()


async def test_devices_on_one_port() -> None:
    adapter = Adapter(b"7\n")
    shared: dict[Any, Any] = {}
    one = device(port(adapter.path), shared=True, prefix="01 ")
    two = device(port(adapter.path), shared=True, prefix="02 ").named("two")
    async with connected(one, shared) as first, connected(two, shared) as second:
        both = await asyncio.gather(first.read(["volts"]), second.read(["volts"]))
        assert [sample.values for sample in both] == [{"volts": 7}] * 2
    assert set(adapter.heard.split(b"\n")) == {b"01 VOLT?", b"02 VOLT?", b""}
    assert shared == {}
    adapter.unplug()


class PtyPort(serial.Serial):  # type: ignore[misc]  # pyserial has no types
    """A port without modem lines: a pty refuses to set and to read them."""

    cts = dsr = ri = cd = False

    def _update_dtr_state(self) -> None:
        return

    def _update_rts_state(self) -> None:
        return


class SerialServer:
    """A serial port behind pyserial's RFC 2217 server, with an instrument on it that answers each line."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        tty.setraw(self.theirs)
        self.heard = b""
        self.port = PtyPort(os.ttyname(self.theirs), timeout=0.05)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.number = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._serve, self._instrument)]
        for thread in self._threads:
            thread.start()

    def _instrument(self) -> None:
        os.set_blocking(self.ours, False)
        while not self._stop.wait(0.005):
            try:
                data = os.read(self.ours, 4096)
            except (BlockingIOError, OSError):
                continue
            self.heard += data
            if data.endswith(b"\n"):
                os.write(self.ours, b"12.5\n" if data == b"VOLT?\n" else b"#14\x00\xff\xff\r\n")

    def _serve(self) -> None:
        try:
            caller, _ = self._listener.accept()
        except OSError:
            return
        with caller:
            caller.settimeout(0.05)

            class Connection:
                def write(self, data: bytes) -> None:
                    caller.sendall(data)

            manager = PortManager(self.port, Connection())
            while not self._stop.is_set():
                try:
                    data = caller.recv(1024)
                except TimeoutError:
                    data = None
                except OSError:
                    return
                if data == b"":
                    return
                if data:
                    self.port.write(b"".join(manager.filter(data)))
                if self.port.in_waiting:
                    caller.sendall(b"".join(manager.escape(self.port.read(self.port.in_waiting))))

    def close(self) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self.port.close()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def server() -> Iterator[SerialServer]:
    one = SerialServer()
    yield one
    one.close()


async def test_a_port_behind_pyserials_rfc_2217_server(server: SerialServer) -> None:
    where = {"transport": "rfc2217", "host": "127.0.0.1", "port": server.number}
    settings = {"baudrate": 19200, "bytesize": 8, "stopbits": 2, "dtr": False, "rts": True}
    points = {
        "volts": {"query": "VOLT?"},
        "trace": {"query": "CURV?", "type": "array", "block": {"items": "uint8"}},
    }
    made = device(where | settings, points, connect_timeout="20s", timeout="10s", terminator="\n")
    async with connected(made) as driver:
        assert (await driver.read(["volts"])).values == {"volts": 12.5}
        assert (server.port.baudrate, server.port.stopbits) == (19200, 2)
        assert (server.port.dtr, server.port.rts) == (False, True)
        # 0xFF is doubled on the way there and back.
        assert await driver.call("query", {"command": "CURV?", "block": True, "timeout": 10}) == {
            "block": "00ffff0d"
        }


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        (b"\xff\xfe\x2c", "disconnected", "it is no RFC 2217 server, try transport: tcp"),
        (b"login: ", "timeout", "speaks no Telnet; for a serial server in raw mode say transport: tcp"),
        (
            b"\xff\xfd\x2c\xff\xfa\x2c\x65\x00\x00\x12\xc0\xff\xf0",
            "disconnected",
            "does not take the line's baudrate: asked 9600, has 4800",
        ),
        (
            b"\xff\xfd\x2c\xff\xfa\x2c\x65\x00\x00\x25\x80\xff\xf0",
            "timeout",
            "missing are bytesize, parity, stopbits, flow, dtr or rts",
        ),
        (b"\xff\xfa" + b"a" * 2000, "disconnected", "does not end"),
        (b"", "disconnected", "it closed the connection"),
    ],
)
async def test_servers_that_do_not_take_the_settings(said: bytes, code: str, text: str) -> None:
    async def script(it: Peer) -> None:
        it.send(said)
        if not said:
            it.hang_up()

    async with peer(script) as where:
        where = {**where, "transport": "rfc2217"}
        driver = TextDriver(device(where, connect_timeout="500ms"), {})
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(DriverError, match=text) as failed:
                await driver.connect()
        assert failed.value.code == code
        await driver.close()


async def test_a_server_may_ask_to_wait_and_unknown_options_are_refused() -> None:
    confirmed = b"".join(
        b"\xff\xfa\x2c" + bytes([100 + command]) + value + b"\xff\xf0"
        for command, value in (
            (1, (9600).to_bytes(4)), (2, b"\x08"), (3, b"\x01"), (4, b"\x01"), (5, b"\x01"))
    )  # fmt: skip
    heard = bytearray()

    async def script(it: Peer) -> None:
        it.send(b"\xff\xfd\x2c" + b"\xff\xfb\x2a" * 50 + confirmed + b"\xff\xfa\x2c\x6c\xff\xf0")
        while b"\xff\xfe\x2a" not in heard:
            heard.extend(await it._reader.read(100))
        assert b"VOLT" not in heard
        it.send(b"\xff\xfa\x2c\x6d\xff\xf0")
        while b"VOLT?\n" not in heard:
            heard.extend(await it._reader.read(100))
        it.send(b"12.5\n")

    async with peer(script) as where:
        where = {**where, "transport": "rfc2217"}
        async with connected(device(where, timeout="20s")) as driver:
            assert driver._instrument.line.is_open
    assert heard.count(b"\xff\xfe\x2a") == 1


async def test_a_port_that_is_hung_up_is_lost() -> None:
    adapter = Adapter(b"3\n")
    async with connected(device(port(adapter.path), poll="60s")) as driver, running(driver) as sink:
        await until(lambda: sink.all_of("volts"))
        adapter.unplug()
        await until(lambda: not driver._instrument.line.is_open)
        with pytest.raises(DriverError) as failed:
            await driver.read(["volts"])
        assert failed.value.quality is Quality.DISCONNECTED
