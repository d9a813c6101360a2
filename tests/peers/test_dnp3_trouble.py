"""Our DNP3 master with outstations of opendnp3 where something goes wrong, or much goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import opendnp3_peer
import pytest
from opendnp3_peer import free_port, peer
from opendnp3_proxy import between
from opendnp3_rig import MASTER, NOISELESS, OUTSTATION, connect, device
from scripted import Heard, running

from protocols.base import DeviceState, DriverError
from protocols.dnp3.driver import Dnp3Driver

pytestmark = pytest.mark.peer("opendnp3")

COUNTER = {"count": {"type": "counter", "index": 0}}
CONFIRM_LENGTH = 15
"""Octets of a confirmation on the line: link header, transport octet, two octets, and their CRCs."""
UNSOLICITED = 0x10


@pytest.fixture(autouse=True)
def _opendnp3(need: Callable[[str, str | None, str], None]) -> None:
    opendnp3_peer.demand(need)


def listening() -> dict[str, Any]:
    return {"transport": "tcp", "host": "127.0.0.1", "port": free_port(), "role": "listen"}


def counted(heard: Heard) -> list[Any]:
    return [one.values["count"] for one in heard.samples if "count" in one.values]


@pytest.mark.parametrize("unsolicited", [True, False], ids=["unsolicited", "polled"])
async def test_events_whose_confirmation_is_lost_with_the_line_come_once(unsolicited: bool) -> None:
    line = listening()
    armed = asyncio.Event()

    def cut_at_confirmation(data: bytes, back: bool) -> bytes | None:
        if armed.is_set() and not back and len(data) >= CONFIRM_LENGTH and data[-3] == 0:
            armed.clear()
            return None
        return data

    fields = {} if unsolicited else NOISELESS
    addresses = {"outstation": OUTSTATION, "master": MASTER}
    async with (
        peer("outstation", line, **addresses) as far,
        between(line["port"], cut_at_confirmation) as port,
    ):
        driver = Dnp3Driver(device({**line, "role": "connect", "port": port}, COUNTER, **fields), {})
        try:
            await connect(driver)
            heard = Heard()
            async with running(driver, heard):
                await heard.until(lambda: heard.samples)
                await far.do("update", points=[["counter", 0, 1, 1, None]])
                if not unsolicited:
                    await driver.call("class-poll", {})
                await heard.until(lambda: 1 in counted(heard))
                await driver.call("read", {"group": 20})  # after its confirmation, on the same connection
                armed.set()
                await far.do("update", points=[["counter", 0, n, 1, None] for n in (2, 3, 4)])
                if not unsolicited:
                    await driver.call("class-poll", {})
                with pytest.raises(DriverError):
                    async with asyncio.timeout(30):
                        await heard.run
            assert not armed.is_set()
            await far.do("update", points=[["counter", 0, 5, 1, None]])
            await connect(driver)
            async with running(driver, heard):
                await heard.until(lambda: 5 in counted(heard))
                await far.do("update", points=[["counter", 0, 6, 1, None]])
                if not unsolicited:
                    await driver.call("class-poll", {})
                await heard.until(lambda: 6 in counted(heard))
            events = [value for value in counted(heard) if value not in (0, 5)]
            assert events == [1, 2, 3, 4, 6], counted(heard)
        finally:
            await driver.close()


async def operated(driver: Dnp3Driver) -> bool:
    """Whether an operate was answered: opendnp3 may drop one that crosses an unsolicited response."""
    try:
        await driver.write({"lamp": True})
    except DriverError as error:
        assert error.code == "timeout"
        assert "not known" in str(error)
        return False
    return True


async def test_a_busy_outstation_loses_and_repeats_nothing() -> None:
    line = listening()
    polls = {"class_1": 0.05, "integrity": "never"}
    points = {**COUNTER, "lamp": {"type": "binary_output", "index": 0, "access": "wo", "mode": "direct"}}
    addresses = {"outstation": OUTSTATION, "master": MASTER, "events": 3000}
    async with peer("outstation", line, **addresses) as far:
        driver = Dnp3Driver(device({**line, "role": "connect"}, points, polls=polls, timeout=2.0), {})
        answered = 0
        try:
            await connect(driver)
            async with running(driver) as heard:
                await heard.until(lambda: heard.samples)
                for n in range(1, 2001, 4):
                    await far.do("update", points=[["counter", 0, n + k, 1, None] for k in range(4)])
                    if n % 100 == 1:
                        answered += await operated(driver)
                await heard.until(lambda: 2000 in counted(heard))
                assert counted(heard) == [*range(1, 2001)]
                assert not heard.losses
            await far.do("indicate")
            assert answered <= len(far.of("operate")) <= 20
        finally:
            await driver.close()


async def test_of_two_outstations_on_one_channel_the_living_one_goes_on() -> None:
    line = listening()
    told = {"polls": {"class_1": 0.2, "integrity": "never"}, "timeout": 0.5}
    addresses = {"outstation": OUTSTATION, "master": MASTER, "others": [OUTSTATION + 1], "confirm_ms": 500}
    async with peer("outstation", line, **addresses) as far:
        assert await far.do("enable", address=OUTSTATION + 1)
        shared: dict[Any, Any] = {}
        drivers = [
            Dnp3Driver(device({**line, "role": "connect"}, COUNTER, outstation=address, **told), shared)
            for address in (OUTSTATION, OUTSTATION + 1)
        ]
        try:
            for driver in drivers:
                await connect(driver)
            async with running(drivers[0]) as first, running(drivers[1]) as second:
                # The second waits for the confirmation of a first unsolicited response that came too early.
                await far.do("update", points=[["counter", 0, 1, 1, None]])
                await far.do("update", points=[["counter", 0, 2, 1, None]], address=OUTSTATION + 1)
                await first.until(lambda: 1 in counted(first))
                await second.until(lambda: 2 in counted(second))
                assert await far.do("disable")
                await first.until(lambda: first.states[-1][0] is DeviceState.DEGRADED)
                for n in range(3, 13):
                    await far.do("update", points=[["counter", 0, n, 1, None]], address=OUTSTATION + 1)
                await second.until(lambda: counted(second)[-1] == 12)
                assert 12 not in counted(first)
                assert await far.do("enable")
                await far.do("update", points=[["counter", 0, 20, 1, None]])
                await first.until(lambda: 20 in counted(first))
                await first.until(lambda: first.states[-1][0] is DeviceState.ONLINE)
        finally:
            for driver in drivers:
                await driver.close()
