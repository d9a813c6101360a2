"""Setting an outstation's clock: what is sent, what time that is, and what may go wrong."""

import time
from typing import Any

import pytest
from asked_outstation import NAME, NOT_SENT, TIMEOUT, Asked, AskedOutstation, at, outstation_with, reply

from protocols.base import DriverError
from protocols.dnp3.calls import carry_out
from protocols.dnp3.objects import Iin
from protocols.dnp3.timesync import synchronise

POLLS: Any = None
"""The clock needs no polls."""
PROFILE = outstation_with({}, time_sync="non-lan")
NOW_MS = 0x0123456789AB
SLACK_MS = 60_000
"""What a slow machine may add to what is measured."""


def written(asked: Asked, header: str) -> int:
    assert asked.function == 2
    assert asked.body.startswith(bytes.fromhex(header))
    assert len(asked.body) == 10
    return int.from_bytes(asked.body[4:], "little")


async def test_the_lan_procedure() -> None:
    outstation = AskedOutstation(at(3_600_000, 1), reply())
    assert await synchronise(outstation, "lan", lambda: NOW_MS) is None
    assert outstation.asked[0] == Asked(0x18, b"", True)
    time_ms = written(outstation.asked[1], "32 03 07 01")
    assert 3_600_000 <= NOW_MS - time_ms <= 3_600_000 + SLACK_MS


@pytest.mark.parametrize(
    ("took", "body", "delay"),
    [
        (500, "3402 07 01 6400", 200),
        (2500, "3401 07 01 0200", 250),
        (100, "3402 07 01 6500", 0),  # longer held than it took: a delay is never below nothing
    ],
)
async def test_the_non_lan_procedure(took: int, body: str, delay: int) -> None:
    outstation = AskedOutstation(at(took, took, body), reply())
    assert await synchronise(outstation, "non-lan", lambda: NOW_MS) == delay
    assert outstation.asked[0] == Asked(0x17, b"", True)
    assert written(outstation.asked[1], "32 01 07 01") == NOW_MS + delay


@pytest.mark.parametrize(
    ("procedure", "way_out"), [("lan", "set time_sync: non-lan"), ("non-lan", "set time_sync: lan, or never")]
)
async def test_a_clock_that_is_not_set_that_way(procedure: str, way_out: str) -> None:
    outstation = AskedOutstation(reply(iin=Iin.FUNCTION_NOT_SUPPORTED))
    with pytest.raises(DriverError) as caught:
        await synchronise(outstation, procedure, lambda: NOW_MS)
    assert caught.value.code == "device-error"
    assert str(caught.value).startswith(f"setting the clock of {NAME} was refused: ")
    assert way_out in str(caught.value)
    assert len(outstation.asked) == 1


async def test_a_delay_that_is_not_said() -> None:
    outstation = AskedOutstation(reply())
    with pytest.raises(DriverError, match="does not say how long it held the request; set time_sync: lan"):
        await synchronise(outstation, "non-lan", lambda: NOW_MS)
    assert len(outstation.asked) == 1


@pytest.mark.parametrize("procedure", ["lan", "non-lan"])
async def test_a_time_that_is_not_taken(procedure: str) -> None:
    first = at(0, 0, "3402 07 01 0000")
    with pytest.raises(DriverError) as caught:
        await synchronise(AskedOutstation(first, reply(iin=Iin.PARAMETER_ERROR)), procedure, lambda: NOW_MS)
    assert caught.value.code == "device-error"
    assert "not known" not in str(caught.value)
    with pytest.raises(DriverError, match="whether its clock was set is not known") as caught:
        await synchronise(AskedOutstation(first, TIMEOUT), procedure, lambda: NOW_MS)
    assert caught.value.code == "timeout"
    for answers in ([NOT_SENT], [first, NOT_SENT]):
        with pytest.raises(DriverError) as caught:
            await synchronise(AskedOutstation(*answers), procedure, lambda: NOW_MS)
        assert caught.value is NOT_SENT


async def test_time_sync_takes_the_procedure_of_the_profile() -> None:
    outstation = AskedOutstation(at(10, 10, "3402 07 01 0000"), reply())
    said = await carry_out("time-sync", {}, PROFILE, outstation, POLLS)
    asked = outstation.asked
    assert [one.function for one in asked] == [0x17, 2]
    assert said == {"procedure": "non-lan", "delay_ms": 5}
    outstation = AskedOutstation(at(0, 0), reply())
    said = await carry_out("time-sync", {"procedure": "lan"}, PROFILE, outstation, POLLS)
    asked = outstation.asked
    assert [one.function for one in asked] == [0x18, 2]
    assert said == {"procedure": "lan", "delay_ms": None}
    assert abs(written(asked[1], "32 03 07 01") - time.time() * 1000) < SLACK_MS


async def test_time_sync_of_a_profile_without_it() -> None:
    never = outstation_with({}, time_sync="never")
    outstation = AskedOutstation(at(0, 0), reply())
    assert (await carry_out("time-sync", {}, never, outstation, POLLS))["procedure"] == "lan"
