"""Answers that come late, twice or never: none is ever taken for the next query's."""

import asyncio
import contextlib
from typing import Any

import pytest
from text_peer import IDENTITY, SCPI, Gone, Peer, connected, device, peer
from waiting import until

from protocols.base import DriverError
from protocols.text.driver import TextDriver

POINTS = {"volts": {"query": "VOLT?"}, "amps": {"query": "CURR?"}}
RIGHT = {"VOLT?": "12.5", "CURR?": "1.5", "*IDN?": IDENTITY, "SYST:ERR?": '0,"No error"'}


async def timed_out(driver: TextDriver, point: str) -> None:
    with pytest.raises(DriverError) as failed:
        await driver.read([point])
    assert failed.value.code == "timeout"


async def test_an_answer_that_comes_with_the_next_query_is_dropped_up_to_the_known_identity() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        assert await it.command() == "VOLT?"
        # It answers in order, and long after the line was silent: only now, at the next command.
        assert await it.command() == "*IDN?"
        it.say("12.5", IDENTITY)
        await it.serve(RIGHT)

    async with peer(script) as where:
        made = device(where, POINTS, timeout="400ms", settle="50ms", **SCPI)
        async with connected(made) as driver:
            await timed_out(driver, "volts")
            assert (await driver.read(["amps"])).values == {"amps": 1.5}
            assert (await driver.call("status", {}))["dropped"] == {"not-the-answer": 1}


async def test_an_answer_that_comes_while_the_line_is_left_silent_is_dropped() -> None:
    async def script(it: Peer) -> None:
        assert await it.command() == "VOLT?"
        it.say("12.5")
        assert await it.command() == "VOLT?"
        await late.wait()
        it.say("12.5")
        await it.serve(RIGHT)

    late = asyncio.Event()
    async with peer(script) as where:
        async with connected(device(where, POINTS, timeout="400ms", settle="2s")) as driver:
            await timed_out(driver, "volts")
            asking = asyncio.create_task(driver.read(["amps"]))
            late.set()
            assert (await asking).values == {"amps": 1.5}
            assert (await driver.call("status", {}))["dropped"] == {"late": 1}


async def test_a_reader_that_is_cancelled_leaves_no_answer_behind() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        assert await it.command() == "VOLT?"
        asked.set()
        assert await it.command() == "*IDN?"
        it.say("12.5", IDENTITY)
        await it.serve(RIGHT)

    asked = asyncio.Event()
    async with peer(script) as where:
        async with connected(device(where, POINTS, timeout="20s", settle="50ms", **SCPI)) as driver:
            reading = asyncio.create_task(driver.read(["volts"]))
            await asked.wait()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            assert (await driver.read(["amps"])).values == {"amps": 1.5}


async def test_identities_that_are_late_themselves_put_nothing_out_of_step() -> None:
    async def script(it: Peer) -> None:
        await it.expect(("*IDN?", IDENTITY), ("*IDN?", IDENTITY))
        assert await it.command() == "VOLT?"
        assert await it.command() == "*IDN?"  # not answered in time
        assert await it.command() == "*IDN?"
        it.say("12.5", IDENTITY)
        await asyncio.sleep(0.05)
        it.say(IDENTITY)  # the answer to the second
        await it.serve(RIGHT)

    async with peer(script) as where:
        made = device(where, POINTS, timeout="400ms", settle="1s", identify={})
        async with connected(made) as driver:
            await timed_out(driver, "volts")
            await timed_out(driver, "amps")
            assert (await driver.read(["amps"])).values == {"amps": 1.5}


async def test_an_answer_too_many_brings_the_next_query_back_into_step() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("VOLT?", "12.5\n13.5"))
        assert await it.command() == "*IDN?"
        it.say(IDENTITY)
        await it.serve(RIGHT)

    async with peer(script) as where, connected(device(where, POINTS, settle="50ms", **SCPI)) as driver:
        assert (await driver.read(["volts"])).values == {"volts": 12.5}
        await until(lambda: driver._instrument.stale)
        assert (await driver.read(["amps"])).values == {"amps": 1.5}


async def test_what_whoever_had_the_line_before_left_is_no_identity() -> None:
    async def script(it: Peer) -> None:
        assert await it.command() == "*IDN?"
        it.say("99.9")  # the answer to a query of before
        it.say(IDENTITY)
        assert await it.command() == "*IDN?"
        it.say(IDENTITY)
        await it.serve(RIGHT)

    async with peer(script) as where:
        with pytest.raises(DriverError):
            async with connected(device(where, POINTS, timeout="400ms", **SCPI)):
                pass


async def test_errors_of_a_query_that_was_lost_are_not_laid_to_the_next_write() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("CURR?", None), ("*IDN?", IDENTITY))
        await it.expect(("SYST:ERR?", '-113,"Undefined header"'), ("SYST:ERR?", RIGHT["SYST:ERR?"]))
        await it.expect(("VOLT 5", None), ("SYST:ERR?", RIGHT["SYST:ERR?"]))

    points = POINTS | {"set": {"write": "VOLT {value}", "access": "wo"}}
    async with peer(script) as where:
        made = device(where, points, timeout="400ms", settle="50ms", **SCPI)
        async with connected(made) as driver:
            await timed_out(driver, "amps")
            assert (await driver.write({"set": 5})).values == {"set": 5}
            assert (await driver.call("status", {}))["errors_found"] == ['-113,"Undefined header"']


async def test_a_device_clear_is_sent_after_a_timeout() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("VOLT?", None))
        assert await it.command() == "\x03*IDN?"
        it.say(IDENTITY)
        await it.serve(RIGHT)

    async with peer(script) as where:
        made = device(where, POINTS, timeout="400ms", settle="50ms", clear="\x03", **SCPI)
        async with connected(made) as driver:
            await timed_out(driver, "volts")
            assert (await driver.read(["amps"])).values == {"amps": 1.5}


async def test_a_line_that_has_begun_unasked_is_not_half_an_answer() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        it.send(b"99")
        begun.set()
        await asyncio.sleep(0.1)
        it.send(b"9\n")
        await it.serve(RIGHT)

    begun = asyncio.Event()
    async with peer(script) as where, connected(device(where, POINTS, settle="2s", **SCPI)) as driver:
        await begun.wait()
        await until(lambda: driver._instrument.line._buffer)
        assert (await driver.read(["volts"])).values == {"volts": 12.5}


async def test_a_line_that_is_never_silent_is_given_up() -> None:
    async def script(it: Peer) -> None:
        await it.command()
        it.say("12.5")
        with contextlib.suppress(Gone):
            while True:
                it.send(b"x" * 30)
                await asyncio.sleep(0.01)

    async with peer(script) as where:
        async with connected(device(where, POINTS, timeout="400ms", settle="100ms")) as driver:
            with pytest.raises(DriverError):
                await driver.read(["volts"])
            with pytest.raises(DriverError, match="never silent") as failed:
                await driver.read(["volts"])
            assert failed.value.code == "disconnected"


async def test_devices_on_one_line_answer_to_their_prefix_and_a_dead_one_rests() -> None:
    async def script(it: Peer) -> None:
        while True:
            command = await it.command()
            if command.startswith("01"):
                it.say("02 99", "01 12.5")

    shared: dict[object, object] = {}
    common: dict[str, Any] = {"shared": True, "timeout": "400ms", "settle": "50ms", "poll": "50ms"}
    async with peer(script) as where:
        one = device(where, prefix="01 ", answer_prefix="01 ", **common)
        two = device(where, prefix="02 ", answer_prefix="02 ", **common).named("other")
        async with connected(one, shared) as driver:
            dead = TextDriver(two, shared)
            for _ in range(2):
                with pytest.raises(DriverError, match=r"did not answer '02 VOLT\?'"):
                    await dead.connect()
            assert dead._instrument._failures
            assert (await driver.read(["volts"])).values == {"volts": 12.5}
            assert (await driver.call("status", {}))["devices"] == 2
            await dead.close()
            assert (await driver.read(["volts"])).values == {"volts": 12.5}
            with pytest.raises(DriverError, match="in use by another device"):
                await TextDriver(device(where).named("third"), shared).connect()
        assert shared == {}
