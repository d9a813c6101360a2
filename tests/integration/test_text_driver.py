"""The driver against scripted instruments: what is asked, written and told, and every way to fail."""

import asyncio
from typing import Any

import pytest
from text_peer import IDENTITY, SCPI, Peer, Recorder, connected, device, peer, running
from waiting import until

from protocols.base import DeviceState, DriverError, Quality, Refused
from protocols.text.driver import TextDriver

RW = {"query": "VOLT?", "write": "VOLT {value:.2f}", "access": "rw", "max": 60}
OK = '0,"No error"'


async def test_it_is_asked_once_for_all_points_of_an_answer() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("MEAS?", "12.5,1.5"), ("VOLT?", "+9.91E37"))

    points = {
        "volts": {"query": "MEAS?", "field": 1},
        "amps": {"query": "MEAS?", "field": 2},
        "set": {"query": "VOLT?"},
    }
    async with peer(script) as where, connected(device(where, points, **SCPI)) as driver:
        sample = await driver.read(["volts", "amps", "set"])
    assert sample.values == {"volts": 12.5, "amps": 1.5}
    assert sample.bad == {"set": Quality.NOT_A_NUMBER}


async def test_polls_give_samples() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("VOLT?", "1"), ("VOLT?", "1"), ("VOLT?", "x"))
        await it.serve({"VOLT?": "2"})

    async with peer(script) as where, connected(device(where, poll="20ms", **SCPI)) as driver:
        async with running(driver) as sink:
            await until(lambda: 2 in sink.all_of("volts"))
    assert sink.all_of("volts")[:4] == [1, 1, Quality.DEVICE_ERROR, 2]
    assert sink.samples[0].values is sink.samples[1].values
    assert sink.samples[0].time_ns < sink.samples[1].time_ns


async def test_init_is_sent_and_stale_errors_are_of_nobody() -> None:
    async def script(it: Peer) -> None:
        await it.expect(("*IDN?", IDENTITY), ("*IDN?", IDENTITY))
        await it.expect(("SYST:ERR?", '-410,"Query INTERRUPTED"'), ("SYST:ERR?", OK))
        await it.expect(("*CLS", None), ("SYST:REM", None), ("SYST:ERR?", OK))

    async with peer(script) as where:
        async with connected(device(where, init=["*CLS", "SYST:REM"], **SCPI)) as driver:
            status = await driver.call("status", {})
    assert status["identity"] == IDENTITY
    assert status["errors_found"] == ['-410,"Query INTERRUPTED"']


async def test_an_init_that_is_refused_is_no_connection() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("BAD", None), ("SYST:ERR?", '-113,"Undefined header"'), ("SYST:ERR?", OK))

    async with peer(script) as where:
        with pytest.raises(DriverError, match="says to init: -113") as failed:
            async with connected(device(where, init=["BAD"], **SCPI)):
                pass
    assert failed.value.code == "device-error"


async def test_another_instrument_than_expected_is_no_connection() -> None:
    async def script(it: Peer) -> None:
        await it.expect(("*IDN?", IDENTITY))

    async with peer(script) as where:
        with pytest.raises(DriverError, match=r"is 'ACME,PSU 60,0042,1.0', and 'OTHER") as failed:
            async with connected(device(where, identify={"expect": "OTHER,.*"})):
                pass
    assert failed.value.code == "device-error"


async def test_writes_are_checked_by_the_error_queue() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("VOLT 12.35", None), ("SYST:ERR?", OK))
        await it.expect(("VOLT 13.00", None), ("SYST:ERR?", OK), ("CURR 5", None))
        await it.expect(
            ("SYST:ERR?", '-222,"Data out of range"'), ("SYST:ERR?", '-221,"Conflict"'), ("SYST:ERR?", OK)
        )
        await it.expect(("BEEP 1", None), ("*IDN?", "still here"))

    points = {
        "volts": RW,
        "amps": {"write": "CURR {value}", "access": "wo"},
        "beep": {"write": "BEEP {value}", "access": "wo", "check_errors": False},
    }
    async with peer(script) as where, connected(device(where, points, **SCPI)) as driver:
        assert (await driver.write({"volts": 12.346})).values == {"volts": 12.35}
        with pytest.raises(DriverError, match='amps: -222,"Data out of range"; -221,"Conflict"') as failed:
            await driver.write({"volts": 13, "amps": 5})
        assert failed.value.code == "device-error"
        assert failed.value.written == {"volts": 13}
        await driver.write({"beep": 1})
        assert await driver.call("identify", {}) == {"answer": "still here"}


async def test_an_error_queue_that_never_ends_is_given_up() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("VOLT 1.00", None))
        await it.serve({"SYST:ERR?": "-350,overflow"})

    errors = {"errors": {"query": "SYST:ERR?", "most": 3}}
    async with peer(script) as where, connected(device(where, {"volts": RW}, **SCPI | errors)) as driver:
        with pytest.raises(DriverError, match=r"-350,overflow; -350,overflow; -350,overflow$"):
            await driver.write({"volts": 1})


async def test_a_write_is_answered() -> None:
    async def script(it: Peer) -> None:
        await it.expect(("R1=1", "OK"), ("R1=0", "ERR locked"), ("R1=1", None))

    points = {"relay": {"write": "R1={value:d}", "access": "wo", "type": "integer", "answer": "OK"}}
    async with peer(script) as where, connected(device(where, points, timeout="400ms")) as driver:
        await driver.write({"relay": 1})
        with pytest.raises(DriverError, match="says to relay: 'ERR locked'") as failed:
            await driver.write({"relay": 0})
        assert failed.value.code == "device-error"
        with pytest.raises(DriverError, match="whether relay was written is not known") as failed:
            await driver.write({"relay": 1})
        assert failed.value.code == "timeout"


async def test_calls() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.expect(("VOLT?", "12.5"), ("DISP ON", None), ("SYST:ERR?", OK), ("*IDN?", IDENTITY))
        await it.expect(("CURV?", None))
        it.send(b"#14\x00\n\x01\xff\n")

    async with peer(script) as where, connected(device(where, **SCPI)) as driver:
        assert await driver.call("query", {"command": "VOLT?"}) == {"answer": "12.5"}
        assert await driver.call("send", {"command": "DISP ON"}) == {}
        assert (await driver.call("identify", {}))["model"] == "PSU 60"
        assert await driver.call("query", {"command": "CURV?", "block": True}) == {"block": "000a01ff"}
        assert (await driver.call("status", {}))["in_step"] is True
        for method, args in (
            ("reboot", {}),
            ("query", {}),
            ("query", {"command": "A?", "more": 1}),
            ("query", {"command": 5}),
            ("query", {"command": "A\nB"}),
            ("send", {"command": ""}),
            ("identify", {"x": 1}),
        ):
            with pytest.raises(Refused):
                await driver.call(method, args)


async def test_lines_that_come_unasked_are_values_also_between_query_and_answer() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        assert await it.command() == "VOLT?"
        it.say("KEY 1", "12.5")
        await go.wait()
        it.say("KEY 0")
        await it.serve({"VOLT?": "12.5"})

    go = asyncio.Event()
    points = {"volts": {"query": "VOLT?"}, "key": {"report": "KEY ([01])", "type": "boolean"}}
    async with peer(script) as where, connected(device(where, points, poll="50ms", **SCPI)) as driver:
        assert (await driver.read(["key"])).bad == {"key": Quality.STALE}
        assert (await driver.read(["key", "volts"])).values == {"key": True, "volts": 12.5}
        async with running(driver) as sink:
            go.set()
            await until(lambda: len(sink.all_of("key")) > 1)
            assert sink.all_of("key") == [True, False]
            told = [sample.time_ns for sample in sink.samples if "key" in sample.values]
            for points_ in (["key"], ["volts", "key"]):
                sample = await driver.read(points_)
                assert (sample.values["key"], sample.time_ns) == (False, told[-1])  # no newer than it is
        status = await driver.call("status", {})
    assert status["dropped"] == {}
    assert set(sink.all_of("volts")) <= {12.5}


async def test_blocks() -> None:
    async def script(it: Peer) -> None:
        for data in (b"#14\x00\x01\xff\xff\n", b"#0\x00\x02\n\n\n", b'-1,"no"\n'):
            assert await it.command() == "CURV?"
            for place in range(0, len(data), 2):
                it.send(data[place : place + 2])
                await asyncio.sleep(0)
        assert await it.command() == "DATA #14\x00\x05\x00"  # and 10 is a line feed
        assert await it.command() == ""

    points = {
        "trace": {
            "query": "CURV?",
            "write": "DATA {value}",
            "access": "rw",
            "type": "array",
            "block": {"items": "int16"},
        }
    }
    async with peer(script) as where:
        async with connected(device(where, points, settle="300ms")) as driver:
            assert (await driver.read(["trace"])).values == {"trace": [2, 2570]}
            with pytest.raises(DriverError, match="a block was asked for, and"):
                await driver.read(["trace"])
            await driver.write({"trace": [5, 10]})


async def test_one_command_at_a_time_and_a_pause_between() -> None:
    async def script(it: Peer) -> None:
        while True:
            await it.command()
            it.say("1")

    now = asyncio.get_running_loop().time
    async with peer(script) as where, connected(device(where, pause="60ms")) as driver:
        began = now()
        await asyncio.gather(*(driver.read(["volts"]) for _ in range(4)))
        assert now() - began >= 3 * 0.06


async def test_a_connection_that_ends_fails_what_is_under_way_and_ends_run() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()
        await it.command()
        it.hang_up()

    async with peer(script) as where, connected(device(where, poll="60s", timeout="20s", **SCPI)) as driver:
        sink = Recorder()
        with pytest.raises(DriverError, match="closed the connection") as failed:
            await driver.run(sink)
        assert failed.value.code == "disconnected"
        assert sink.all_of("volts") in ([], [Quality.DISCONNECTED])
        with pytest.raises(DriverError, match="closed the connection"):
            await driver.read(["volts"])


async def test_before_connect_and_after_close_it_is_disconnected() -> None:
    driver = TextDriver(device({"transport": "tcp", "host": "127.0.0.1"}), {})
    for asked in (driver.read(["volts"]), driver.call("query", {"command": "A?"})):
        with pytest.raises(DriverError) as failed:
            await asked
        assert failed.value.code == "disconnected"
    assert (await driver.call("status", {}))["open"] is False
    await driver.close()
    await driver.close()


async def test_nobody_there(unused_port: int) -> None:
    driver = TextDriver(device({"transport": "tcp", "host": "127.0.0.1", "port": unused_port}), {})
    with pytest.raises(DriverError, match="refused the connection"):
        await driver.connect()
    await driver.close()


@pytest.mark.parametrize(
    ("fields", "said", "text"),
    [
        ({}, b"\xff\xfe\n", "is not ascii"),
        ({"encoding": "utf-8"}, b"\xc3(\n", "is not utf-8"),
        ({}, b"1" * 5000, "longer than max_line"),
        ({"checksum": {"algorithm": "xor", "on": "answers"}}, b"12.500\n", "has the checksum"),
        ({"echo": True}, b"VOLT\n12.5\n", "echo is not what was sent"),
        ({"prompt": "> "}, b"\r\n> ", "has not answered"),
    ],
)
async def test_what_cannot_be_an_answer_is_an_error(fields: dict[str, Any], said: bytes, text: str) -> None:
    async def script(it: Peer) -> None:
        while True:
            await it.command()
            it.send(said)

    async with peer(script) as where:
        with pytest.raises(DriverError, match=text) as failed:
            async with connected(device(where, settle="50ms", **fields)):
                pass
    assert failed.value.code == "device-error"


async def test_a_silent_instrument_is_degraded_and_then_given_up() -> None:
    async def script(it: Peer) -> None:
        await it.introduce()

    made = device({"transport": "tcp", "host": "x"}, poll="50ms", timeout="400ms", settle="50ms", **SCPI)
    async with peer(script) as where:
        made = made.model_copy(update={"connection": device(where).connection})
        async with connected(made) as driver:
            sink = Recorder()
            with pytest.raises(DriverError, match="does not answer any more"):
                await driver.run(sink)
    assert [state for state, _ in sink.states] == [DeviceState.DEGRADED]
    assert set(sink.all_of("volts")) <= {Quality.TIMEOUT, Quality.DISCONNECTED}
