"""Serial ports: missing, taken, gone."""

import asyncio
import os
import tty

import pytest
from scripted import (
    UNIT,
    always_right,
    connected,
    device,
    serial_device,
)

from protocols.base import DriverError
from protocols.modbus.driver import ModbusDriver


async def test_there_is_no_such_port() -> None:
    driver = ModbusDriver(device({"transport": "rtu", "port": "/dev/ttyNONE9"}), {})
    with pytest.raises(DriverError, match="/dev/ttyNONE9 cannot be opened") as failed:
        await driver.connect()
    assert failed.value.code == "disconnected"
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
