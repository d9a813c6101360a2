"""Serial ports: missing, taken, gone."""

import asyncio
import os
import sys
import tty
from typing import cast

import pytest
from scripted import (
    PATIENCE_S,
    UNIT,
    always_right,
    connected,
    device,
    serial_device,
)

from protocols.base import DriverError
from protocols.modbus.config import Rtu
from protocols.modbus.driver import ModbusDriver
from protocols.transport import open_serial


async def test_there_is_no_such_port() -> None:
    driver = ModbusDriver(device({"transport": "rtu", "port": "/dev/ttyNONE9"}), {})
    with pytest.raises(DriverError, match="/dev/ttyNONE9 cannot be opened") as failed:
        await driver.connect()
    assert failed.value.code == "disconnected"
    await driver.close()


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    driver = ModbusDriver(device({"transport": "rtu", "port": "/dev/ttyNONE9"}), {})
    with pytest.raises(DriverError, match=r"needs the package pyserial; install hilgate\[modbus\]"):
        await driver.connect()
    monkeypatch.setitem(sys.modules, "protocols.modbus.calls", None)
    with pytest.raises(DriverError, match=r"need the package pymodbus; install hilgate\[modbus\]"):
        await driver.call("identify", {})
    await driver.close()


async def test_a_serial_port_that_goes_away_is_lost() -> None:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    connection = {"transport": "rtu", "port": os.ttyname(theirs), "unit": UNIT}
    driver = ModbusDriver(device(connection, points={}, timeout="60s"), {})
    try:
        await driver.connect()
        calling = asyncio.create_task(driver.call("exception-status", {}))
        await asyncio.sleep(0)
        os.close(theirs)
        os.close(ours)
        with pytest.raises(DriverError, match="the connection was lost") as failed:
            await calling
        assert failed.value.code == "disconnected"
    finally:
        await driver.close()


async def test_a_serial_port_is_opened_by_one_only() -> None:
    async with serial_device(always_right) as connection, connected(connection):
        second = ModbusDriver(device(connection), {})
        with pytest.raises(DriverError, match="cannot be opened"):
            await second.connect()
        await second.close()


class Kept(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


async def test_what_a_port_does_not_take_at_once_follows() -> None:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    protocol = Kept()
    open_serial(Rtu(transport="rtu", port=os.ttyname(theirs)), protocol, extra="modbus")
    sent = bytes(range(256)) * 400  # more than the kernel keeps for a terminal
    got = bytearray()
    some = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: (got.extend(os.read(ours, 65536)), some.set()))
    try:
        async with asyncio.timeout(PATIENCE_S):
            protocol.transport.write(sent[:-1])
            protocol.transport.write(sent[-1:])
            while len(got) < len(sent):
                some.clear()
                await some.wait()
        assert got == sent
    finally:
        loop.remove_reader(ours)
        protocol.transport.close()
        protocol.transport.write(b"dropped")
        assert protocol.transport.is_closing()
        os.close(ours)
        os.close(theirs)
