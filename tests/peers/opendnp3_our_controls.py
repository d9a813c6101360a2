"""What our master controls of opendnp3's outstation: coroutines for rows of the interop table.

A case that returns has been seen to work; one that raises has not.
"""

import asyncio
from typing import Any

import pytest
from opendnp3_rig import NOISELESS, Pair, Rig

from protocols.base import DriverError

LAMP = {"type": "binary_output", "index": 2, "access": "rw"}


async def _times(pair: Pair, event: str = "operate") -> int:
    """How often the outstation was told to select or operate."""
    await pair.outstation.do("indicate")  # its answer comes after all that was said before
    return len(pair.outstation.of(event))


async def select_before_operate(rig: Rig) -> None:
    """SELECT, then OPERATE; operated once, with all its fields, and shown by the status point."""
    trip = {
        "type": "binary_output",
        "index": 2,
        "access": "rw",
        "operation": "trip-close",
        "on_time": 0.25,
        "off_time": 0.05,
        "count": 2,
    }
    async with rig.pair({"breaker": trip}, **NOISELESS) as pair:
        for value, tcc in ((True, "CLOSE"), (False, "TRIP")):
            written = await pair.driver.write({"breaker": value})
            assert written.values == {"breaker": value}
            told: dict[str, Any] = {
                "index": 2,
                "type": "CROB",
                "code": "PULSE_ON",
                "tcc": tcc,
                "clear": False,
            }
            often: dict[str, Any] = {"on_ms": 250, "off_ms": 50, "count": 2}
            await pair.outstation.until_said("select", **told, **often)
            await pair.outstation.until_said("operate", how="SelectBeforeOperate", **told, **often)
            assert (await pair.driver.read(["breaker"])).values == {"breaker": value}
        assert await _times(pair, "select") == await _times(pair) == 2


async def direct(rig: Rig) -> None:
    """DIRECT_OPERATE."""
    async with rig.pair({"lamp": {**LAMP, "mode": "direct"}}, **NOISELESS) as pair:
        await pair.driver.write({"lamp": True})
        await pair.outstation.until_said("operate", how="DirectOperate", code="LATCH_ON", index=2)
        await pair.driver.write({"lamp": False})
        await pair.outstation.until_said("operate", how="DirectOperate", code="LATCH_OFF", index=2)
        assert await _times(pair) == 2
        assert await _times(pair, "select") == 0


async def direct_no_ack(rig: Rig) -> None:
    """DIRECT_OPERATE_NR, which nothing answers; the point's own status shows it."""
    async with rig.pair({"lamp": {**LAMP, "mode": "direct-no-ack"}}, **NOISELESS) as pair:
        await pair.driver.write({"lamp": True})
        await pair.outstation.until_said("operate", how="DirectOperateNoAck", code="LATCH_ON", index=2)
        assert (await pair.driver.read(["lamp"])).values == {"lamp": True}
        assert await _times(pair) == 1


async def analog_outputs(rig: Rig) -> None:
    """Analog outputs in all four representations."""
    outputs = {"int16": -32768, "int32": 2**31 - 1, "float32": 0.25, "float64": 1e100}
    points = {
        output: {"type": "analog_output", "index": index, "access": "rw", "output": output}
        for index, output in enumerate(outputs)
    }
    names = {"int16": "Int16", "int32": "Int32", "float32": "Float32", "float64": "Double64"}
    async with rig.pair(points, **NOISELESS) as pair:
        written = await pair.driver.write(outputs)
        assert written.values == outputs
        for index, (output, value) in enumerate(outputs.items()):
            told: dict[str, Any] = {"index": index, "type": names[output], "value": value}
            await pair.outstation.until_said("operate", how="SelectBeforeOperate", **told)
        assert await _times(pair) == len(outputs)


async def feedback(rig: Rig) -> None:
    """A point that follows its control verifies it; one that does not fails it."""
    points = {
        "lamp": {**LAMP, "feedback": {"point": "status", "within": 1.0}},
        "status": {"type": "binary_input", "index": 2},
    }
    async with rig.pair(points, **NOISELESS) as pair:
        writing = asyncio.create_task(pair.driver.write({"lamp": True}))
        await pair.outstation.until_said("operate", code="LATCH_ON")
        await pair.outstation.do("update", points=[["binary_input", 2, True, 1, None]])
        assert (await writing).values == {"lamp": True}
        with pytest.raises(DriverError) as failed:
            await pair.driver.write({"lamp": False})
        assert failed.value.code == "verify-mismatch"
        assert await _times(pair) == 2


async def refused(rig: Rig) -> None:
    """A control that the outstation refuses: at SELECT it is not operated, at OPERATE it says so."""
    async with rig.pair({"lamp": LAMP}, **NOISELESS) as pair:
        await pair.outstation.do("answer", select="LOCAL")
        with pytest.raises(DriverError, match="local") as failed:
            await pair.driver.write({"lamp": True})
        assert failed.value.code == "device-error"
        assert await _times(pair) == 0
        await pair.outstation.do("answer", operate="HARDWARE_ERROR")
        with pytest.raises(DriverError, match="hardware") as failed:
            await pair.driver.write({"lamp": True})
        assert failed.value.code == "device-error"
        assert not failed.value.written
        assert await _times(pair) == 1


async def select_expires(rig: Rig) -> None:
    """A SELECT that has expired when OPERATE comes: nothing is operated."""
    async with rig.pair({"lamp": LAMP}, {"select_ms": 0}, **NOISELESS) as pair:
        with pytest.raises(DriverError) as failed:
            await pair.driver.write({"lamp": True})
        assert failed.value.code == "device-error"
        assert await _times(pair, "select") == 1
        assert await _times(pair) == 0
