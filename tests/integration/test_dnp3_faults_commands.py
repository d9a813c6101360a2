"""What can become of a control: it is never sent twice, and nothing is said to be done that may not be."""

import pytest
from dnp3_rig import DIRECT, OPERATE, SELECT, SILENCE, Asked, FarEnd, connected, outstations
from scripted import running

from protocols.base import DriverError

CLOSE = b"\x0c\x01\x17\x01\x03\x41\x01" + (100).to_bytes(4, "little") + bytes(4)
"""Pulse on and close of output 3, once, for 100 ms, without its status."""
CONTROLS = (SELECT, OPERATE, DIRECT)


def controls(far: FarEnd) -> list[int]:
    return [one.function for one in far.asked if one.function in CONTROLS]


def with_status(asked: Asked, status: int) -> bytes:
    return asked.body[:-1] + bytes((status,))


async def test_a_control_is_selected_and_then_operated_under_the_next_number() -> None:
    far = FarEnd()
    async with outstations(far) as place, connected(place.connection) as driver:
        sample = await driver.write({"close": True})
    assert sample.values == {"close": True}
    select, operate = (one for one in far.asked if one.function in CONTROLS)
    assert (select.function, operate.function) == (SELECT, OPERATE)
    assert select.body == operate.body
    assert select.body[:3] in (CLOSE[:3], b"\x0c\x01\x28")
    assert select.body.endswith(CLOSE[5:] + b"\x00")
    assert operate.sequence == (select.sequence + 1) % 16


async def test_polls_do_not_come_between_select_and_operate() -> None:
    far = FarEnd()
    polls = {"class_1": "1ms", "class_2": "1ms", "class_3": "1ms"}
    async with outstations(far) as place, connected(place.connection, polls=polls) as driver:
        async with running(driver):
            for _ in range(10):
                await driver.write({"close": True})
    functions = far.functions()
    after = [functions[n + 1] for n, function in enumerate(functions) if function == SELECT]
    assert after == [OPERATE] * 10
    assert functions.count(OPERATE) == 10


@pytest.mark.parametrize(("status", "words"), [(1, "."), (2, "select")])
async def test_a_select_that_expired_is_a_failure_and_nothing_is_sent_again(status: int, words: str) -> None:
    far = FarEnd()

    async def expired(asked: Asked) -> bool:
        if asked.function != OPERATE:
            return False
        far.respond(asked, with_status(asked, status))
        return True

    far.twist = expired
    async with outstations(far) as place, connected(place.connection, retries=3) as driver:
        with pytest.raises(DriverError, match=f"(?i){words}") as failed:
            await driver.write({"close": True})
    assert failed.value.code == "device-error"
    assert not failed.value.written
    assert controls(far) == [SELECT, OPERATE]


@pytest.mark.parametrize("status", [4, 7, 9, 10, 126, 127])
async def test_a_select_that_is_refused_is_not_operated(status: int) -> None:
    far = FarEnd()

    async def refuse(asked: Asked) -> bool:
        if asked.function != SELECT:
            return False
        far.respond(asked, with_status(asked, status))
        return True

    far.twist = refuse
    async with outstations(far) as place, connected(place.connection, retries=3) as driver:
        with pytest.raises(DriverError, match="close") as failed:
            await driver.write({"close": True})
    assert failed.value.code == "device-error"
    assert controls(far) == [SELECT]


ECHOES = {
    "nothing": lambda body: b"",
    "another index": lambda body: body[:4] + b"\x07" + body[5:],
    "another code": lambda body: body[:5] + b"\x81" + body[6:],
    "cut short": lambda body: body[:-3],
    "two of it": lambda body: body + body,
    "an analog value": lambda body: b"\x1e\x01\x00\x00\x00\x01\x00\x00\x00\x00",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
async def test_a_select_whose_echo_differs_is_not_operated(echo: object) -> None:
    far = FarEnd()

    async def differ(asked: Asked) -> bool:
        if asked.function != SELECT:
            return False
        far.respond(asked, echo(asked.body))  # type: ignore[operator]
        return True

    far.twist = differ
    async with outstations(far) as place, connected(place.connection) as driver:
        with pytest.raises(DriverError) as failed:
            await driver.write({"close": True})
    assert failed.value.code == "device-error"
    assert controls(far) == [SELECT]


@pytest.mark.parametrize(
    ("point", "silent", "sent", "words"),
    [
        ("close", SELECT, [SELECT], "not|nothing"),
        ("close", OPERATE, [SELECT, OPERATE], "not known"),
        ("fan", DIRECT, [DIRECT], "not known"),
    ],
)
async def test_a_control_whose_answer_is_lost_is_never_sent_again(
    point: str, silent: int, sent: list[int], words: str
) -> None:
    far = FarEnd()

    async def lose(asked: Asked) -> bool:
        return asked.function == silent

    far.twist = lose
    async with outstations(far) as place, connected(place.connection, timeout=SILENCE, retries=5) as driver:
        with pytest.raises(DriverError, match=words) as failed:
            await driver.write({point: True})
        assert failed.value.code == "timeout"
        far.twist = None
        await driver.read(["breaker"])
    assert controls(far) == sent
    assert ("not known" in str(failed.value)) == (silent != SELECT)


@pytest.mark.parametrize("point", ["close", "fan"])
async def test_a_connection_that_ends_on_a_control_leaves_it_unknown(point: str) -> None:
    far = FarEnd()

    async def cut(asked: Asked) -> bool:
        if asked.function not in (OPERATE, DIRECT):
            return False
        assert far.line is not None
        far.line.hang_up()
        return True

    far.twist = cut
    async with outstations(far) as place, connected(place.connection, retries=5) as driver:
        with pytest.raises(DriverError, match="not known") as failed:
            await driver.write({point: True})
        assert failed.value.code == "disconnected"
        sent = controls(far)
        with pytest.raises(
            DriverError, match=r"not operated|not sent|nothing|not connected|not open"
        ) as unsent:
            await driver.write({point: True})
        assert unsent.value.code == "disconnected"
        assert "not known" not in str(unsent.value)
        far.twist = None
        await driver.connect()
        await driver.read(["breaker"])
    assert controls(far) == sent
    assert sent.count(OPERATE) + sent.count(DIRECT) == 1


async def test_the_late_answer_to_a_control_is_not_that_to_the_next() -> None:
    far = FarEnd()
    late: list[Asked] = []

    async def slow(asked: Asked) -> bool:
        if asked.function != DIRECT:
            return False
        if late:
            far.respond(late[0], late[0].body)
            far.respond(asked, with_status(asked, 4))
        else:
            late.append(asked)
        return True

    far.twist = slow
    async with outstations(far) as place, connected(place.connection, timeout=SILENCE) as driver:
        with pytest.raises(DriverError):
            await driver.write({"fan": True})
        with pytest.raises(DriverError) as refused:
            await driver.write({"fan": True})
    assert refused.value.code == "device-error"
    assert controls(far) == [DIRECT, DIRECT]


async def test_a_direct_control_that_is_refused_says_why() -> None:
    far = FarEnd()

    async def refuse(asked: Asked) -> bool:
        if asked.function != DIRECT:
            return False
        far.respond(asked, with_status(asked, 7))
        return True

    far.twist = refuse
    async with outstations(far) as place, connected(place.connection) as driver:
        with pytest.raises(DriverError, match=r"(?i)local") as failed:
            await driver.write({"fan": True})
    assert failed.value.code == "device-error"


async def test_an_outstation_that_knows_no_controls_says_so() -> None:
    far = FarEnd()

    async def refuse(asked: Asked) -> bool:
        if asked.function not in CONTROLS:
            return False
        far.send(far.fragment(asked.sequence, b"")[:2] + b"\x00\x01")
        return True

    far.twist = refuse
    async with outstations(far) as place, connected(place.connection) as driver:
        for point in ("close", "fan"):
            with pytest.raises(
                DriverError, match=r"not supported|does not support|no such function"
            ) as failed:
                await driver.write({point: True})
            assert failed.value.code == "device-error"
    assert controls(far) == [SELECT, DIRECT]
