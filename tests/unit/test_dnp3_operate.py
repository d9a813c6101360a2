"""Writing outputs: what is sent in which order, what every answer means, and whether the field followed."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from asked_outstation import (
    NAME,
    NOT_SENT,
    TIMEOUT,
    Answer,
    Asked,
    AskedOutstation,
    echo,
    outstation_with,
    reply,
)
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import DriverError, Quality, Sample, Value
from protocols.dnp3.controls import control_of, encode
from protocols.dnp3.objects import Iin
from protocols.dnp3.operate import write

SELECT, OPERATE, DIRECT, DIRECT_NO_ACK = 3, 4, 5, 6

POINTS: dict[str, Any] = {
    "breaker": {"type": "binary_output", "index": 0, "operation": "trip-close", "access": "wo"},
    "lamp": {"type": "binary_output", "index": 1, "access": "rw"},
    "horn": {"type": "binary_output", "index": 2, "access": "rw", "mode": "direct"},
    "siren": {"type": "binary_output", "index": 3, "access": "rw", "mode": "direct"},
    "quiet": {"type": "binary_output", "index": 4, "access": "rw", "mode": "direct-no-ack"},
    "tap": {"type": "analog_output", "index": 0, "access": "rw", "output": "int16", "scale": 0.5},
    "level": {"type": "analog_output", "index": 1, "access": "rw", "mode": "direct"},
    "position": {"type": "double_bit_input", "index": 0},
    "lit": {"type": "binary_input", "index": 0},
    "tap_shown": {"type": "analog_input", "index": 0},
}

Read = Callable[[Sequence[str]], Awaitable[Sample]]


async def never_read(points: Sequence[str]) -> Sample:
    raise AssertionError("nothing is to be read")


def shows(*samples: dict[str, Value] | DriverError) -> tuple[list[list[str]], Read]:
    """A read that gives these one after the other, and the last one ever after; and what was asked of it."""
    asked: list[list[str]] = []
    left = list(samples)

    async def read(points: Sequence[str]) -> Sample:
        asked.append(list(points))
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, DriverError):
            raise now
        bad = {name: Quality.STALE for name in points if name not in now}
        return Sample(1, {name: now[name] for name in points if name in now}, bad)

    return asked, read


def device(**feedback: dict[str, Any]) -> Any:
    changed = {name: POINTS[name] | {"feedback": told} for name, told in feedback.items()}
    return outstation_with(POINTS | changed)


def octets(**values: Value) -> bytes:
    points = device().points
    return encode([control_of(points[name], value) for name, value in values.items()])


async def failing(values: dict[str, Value], *answers: Answer) -> tuple[DriverError, AskedOutstation]:
    outstation = AskedOutstation(*answers)
    with pytest.raises(DriverError) as caught:
        await write(device(), outstation, values, never_read)
    return caught.value, outstation


# What is sent.


async def test_select_before_operate() -> None:
    outstation = AskedOutstation(echo(), echo())
    sample = await write(device(), outstation, {"breaker": False, "lamp": True}, never_read)
    body = octets(breaker=False, lamp=True)
    assert outstation.asked == [Asked(SELECT, body, True), Asked(OPERATE, body, True)]
    assert sample.values == {"breaker": False, "lamp": True}


async def test_direct_operate() -> None:
    outstation = AskedOutstation(echo())
    await write(device(), outstation, {"horn": True}, never_read)
    assert outstation.asked == [Asked(DIRECT, octets(horn=True), True)]


async def test_direct_operate_without_an_answer() -> None:
    outstation = AskedOutstation()
    sample = await write(device(), outstation, {"quiet": True}, never_read)
    assert outstation.asked == [Asked(DIRECT_NO_ACK, octets(quiet=True), False)]
    assert sample.values == {"quiet": True}


async def test_the_order_of_the_values_is_kept() -> None:
    outstation = AskedOutstation(*[echo()] * 9)
    values: dict[str, Value] = {
        "horn": True,
        "lamp": True,
        "breaker": True,
        "tap": 1.0,
        "level": 2.5,
        "siren": True,
    }
    assert list((await write(device(), outstation, values, never_read)).values) == list(values)
    assert [(one.function, one.body) for one in outstation.asked] == [
        (DIRECT, octets(horn=True)),
        (SELECT, octets(lamp=True, breaker=True)),
        (OPERATE, octets(lamp=True, breaker=True)),
        (SELECT, octets(tap=1.0)),
        (OPERATE, octets(tap=1.0)),
        (DIRECT, octets(level=2.5)),
        (DIRECT, octets(siren=True)),
    ]


async def test_many_points_take_several_requests() -> None:
    points = {f"p{one}": POINTS["horn"] | {"index": one} for one in range(250)}
    outstation = AskedOutstation(*[echo()] * 3)
    sample = await write(outstation_with(points), outstation, dict.fromkeys(points, True), never_read)
    assert [one.body[3] for one in outstation.asked] == [100, 100, 50]
    assert list(sample.values) == list(points)


async def test_the_result_is_what_was_sent_not_what_was_asked_for() -> None:
    sample = await write(device(), AskedOutstation(echo(), echo()), {"tap": 1.7}, never_read)
    assert sample.values == {"tap": 1.5}


# Refusals.


async def test_a_refused_select_operates_nothing() -> None:
    error, outstation = await failing({"breaker": True, "lamp": True}, echo(0, 7))
    assert outstation.functions == [SELECT]
    assert error.code == "device-error"
    assert str(error) == (
        f"{NAME} did not select lamp: the outstation is in local control (LOCAL): "
        "its local/remote switch has to stand on remote; breaker, lamp were not operated"
    )
    assert error.written == {}


@pytest.mark.parametrize(
    "answer",
    [
        reply(),
        reply(octets(breaker=True)[:-1]),
        reply(octets(breaker=False)),
        reply(octets(lamp=True)),
        reply(octets(breaker=True, lamp=True)),
        reply(octets(breaker=True) + b"\1\2\3"),
    ],
    ids=["empty", "cut", "another control", "another point", "one too many", "unreadable end"],
)
async def test_an_echo_that_differs_is_not_operated(answer: Answer) -> None:
    error, outstation = await failing({"breaker": True}, answer)
    assert outstation.functions == [SELECT]
    assert error.code == "device-error"
    assert "its answer is no echo of this control" in str(error)
    assert str(error).endswith("; breaker was not operated")


@given(st.binary(max_size=40))
async def test_only_the_echo_selects(body: bytes) -> None:
    _, outstation = await failing({"breaker": True}, reply(body))
    assert outstation.functions == [SELECT]


async def test_a_select_that_had_expired() -> None:
    error, outstation = await failing({"breaker": True}, echo(), echo(1))
    assert outstation.functions == [SELECT, OPERATE]
    assert error.code == "device-error"
    assert "did not operate breaker: the select had expired" in str(error)


async def test_some_points_were_operated() -> None:
    error, _ = await failing({"horn": True, "siren": True}, echo(0, 6))
    assert error.code == "device-error"
    assert error.written == {"horn": True}
    assert (
        str(error)
        == f"{NAME} did not operate siren: the outstation reports a hardware error (HARDWARE_ERROR)"
    )


async def test_one_reason_for_several_points_is_said_once() -> None:
    error, _ = await failing({"horn": True, "siren": True}, echo(15))
    assert str(error) == f"{NAME} did not operate horn, siren: the operation is blocked (BLOCKED)"


async def test_the_first_failure_ends_it() -> None:
    error, outstation = await failing({"horn": True, "lamp": True, "siren": True}, echo(), echo(7))
    assert outstation.functions == [DIRECT, SELECT]
    assert error.written == {"horn": True}


async def test_an_operate_whose_echo_differs_is_in_doubt() -> None:
    error, _ = await failing({"horn": True, "siren": True}, reply(octets(horn=True)))
    assert error.written == {"horn": True}
    assert "siren: its answer is no echo of this control; whether it was operated is not known" in str(error)


@pytest.mark.parametrize(
    ("iin", "words"),
    [
        (Iin.FUNCTION_NOT_SUPPORTED, "does not support this function; write the point with mode: direct"),
        (Iin.OBJECT_UNKNOWN, "it has no such objects"),
        (Iin.PARAMETER_ERROR, "it does not take these parameters"),
    ],
)
async def test_indications_refuse_a_select(iin: Iin, words: str) -> None:
    error, outstation = await failing({"breaker": True}, reply(iin=iin))
    assert outstation.functions == [SELECT]
    assert error.code == "device-error"
    assert words in str(error)


async def test_the_way_out_of_an_unknown_direct_operate() -> None:
    error, _ = await failing({"horn": True}, reply(iin=Iin.FUNCTION_NOT_SUPPORTED))
    assert "mode: select" in str(error)


async def test_a_status_says_more_than_the_indication_with_it() -> None:
    error, _ = await failing({"horn": True}, echo(4, iin=Iin.PARAMETER_ERROR))
    assert "(NOT_SUPPORTED)" in str(error)


async def test_success_with_a_refusing_indication_does_not_select() -> None:
    error, outstation = await failing({"breaker": True}, echo(0, iin=Iin.PARAMETER_ERROR))
    assert outstation.functions == [SELECT]
    assert "these parameters" in str(error)


async def test_success_with_a_refusing_indication_is_in_doubt() -> None:
    error, _ = await failing({"horn": True}, echo(0, iin=Iin.PARAMETER_ERROR))
    assert error.written == {}
    assert "whether it was operated is not known" in str(error)


async def test_lasting_indications_refuse_nothing() -> None:
    lasting = Iin.CONFIGURATION_CORRUPT | Iin.DEVICE_TROUBLE | Iin.LOCAL_CONTROL | Iin.NEED_TIME
    outstation = AskedOutstation(echo(0, iin=lasting))
    assert (await write(device(), outstation, {"horn": True}, never_read)).values == {"horn": True}


# Lost answers.


async def test_a_select_without_an_answer() -> None:
    error, outstation = await failing({"breaker": True}, TIMEOUT)
    assert outstation.functions == [SELECT]
    assert error.code == "timeout"
    assert str(error) == f"{TIMEOUT}; it was asked to select, so breaker was not operated"


@pytest.mark.parametrize("values", [{"breaker": True}, {"horn": True}], ids=["operate", "direct"])
async def test_an_operate_without_an_answer(values: dict[str, Value]) -> None:
    (name,) = values
    error, outstation = await failing(values, *([echo()] if name == "breaker" else []), TIMEOUT)
    assert outstation.functions[-1] in (OPERATE, DIRECT)
    assert len(outstation.asked) == (2 if name == "breaker" else 1), "it was sent again"
    assert error.code == "timeout"
    assert str(error) == f"{TIMEOUT}; whether {name} was operated is not known"


@pytest.mark.parametrize("answers", [[NOT_SENT], [echo(), NOT_SENT]], ids=["select", "operate"])
async def test_what_was_not_sent_was_not_operated(answers: list[Answer]) -> None:
    error, _ = await failing({"breaker": True}, *answers)
    assert error.code == "disconnected"
    assert str(error) == f"{NOT_SENT}; breaker was not operated"


async def test_what_was_not_sent_without_an_answer() -> None:
    error, _ = await failing({"quiet": True}, NOT_SENT)
    assert error.code == "disconnected"
    assert error.written == {}


async def test_a_lost_connection_keeps_what_was_written_before() -> None:
    error, _ = await failing({"horn": True, "lamp": True}, echo(), NOT_SENT)
    assert error.written == {"horn": True}


# Feedback.


SHOWN = {"point": "position", "within": "60s"}


async def test_feedback_is_awaited() -> None:
    asked, read = shows({"position": "on"}, {"position": "intermediate"}, {"position": "off"})
    outstation = AskedOutstation(echo(), echo())
    sample = await write(device(breaker=SHOWN), outstation, {"breaker": False}, read)
    assert sample.values == {"breaker": False}
    assert asked == [["position"]] * 3


@pytest.mark.parametrize(
    ("point", "value", "feedback", "shown"),
    [
        ("breaker", True, "position", "on"),
        ("lamp", True, "lit", True),
        ("lamp", False, "lit", False),
        ("tap", 1.7, "tap_shown", 1.5),
        ("tap", 1.7, "tap_shown", 1.6),
        ("level", 12.3, "tap_shown", 12.300001),
    ],
)
async def test_feedback_shows_it(point: str, value: Value, feedback: str, shown: Value) -> None:
    told: dict[str, Any] = {"point": feedback, "within": "60s"}
    if point == "tap":
        told["tolerance"] = 0.1
    _, read = shows({feedback: shown})
    outstation = AskedOutstation(echo(), echo())
    await write(device(**{point: told}), outstation, {point: value}, read)


@pytest.mark.parametrize(
    ("point", "value", "feedback", "shown", "text"),
    [
        ("breaker", True, "position", "intermediate", "position shows intermediate, not true"),
        ("breaker", False, "position", "on", "position shows on, not false"),
        ("breaker", False, "position", "indeterminate", "position shows indeterminate, not false"),
        ("lamp", True, "lit", False, "lit shows false, not true"),
        ("tap", 1.5, "tap_shown", 1.75, "tap_shown shows 1.75, not 1.5"),
        ("lamp", True, "lit", None, "lit has no good value (stale)"),
    ],
)
async def test_feedback_that_does_not_follow(
    point: str, value: Value, feedback: str, shown: Value | None, text: str
) -> None:
    _, read = shows({} if shown is None else {feedback: shown})
    told = {"point": feedback, "within": "20ms"}
    with pytest.raises(DriverError) as caught:
        await write(device(**{point: told}), AskedOutstation(echo(), echo()), {point: value}, read)
    assert caught.value.code == "verify-mismatch"
    assert str(caught.value) == f"the field did not follow: {point}: {text} after 0.02 s"
    assert caught.value.written == {point: value}


async def test_a_read_that_fails_has_not_shown_it() -> None:
    asked, read = shows(TIMEOUT, {"position": "off"})
    await write(device(breaker=SHOWN), AskedOutstation(echo(), echo()), {"breaker": False}, read)
    assert len(asked) == 2


async def test_reads_that_only_fail() -> None:
    _, read = shows(TIMEOUT)
    told = {"point": "position", "within": "20ms"}
    with pytest.raises(DriverError, match=r"position could not be read .*did not answer") as caught:
        await write(device(breaker=told), AskedOutstation(echo(), echo()), {"breaker": False}, read)
    assert caught.value.code == "verify-mismatch"


async def test_several_feedbacks_are_awaited_together() -> None:
    asked, read = shows({"position": "on", "lit": False}, {"position": "off", "lit": False}, {"lit": True})
    told = device(breaker=SHOWN, lamp={"point": "lit", "within": "10s"})
    await write(told, AskedOutstation(echo(), echo()), {"breaker": False, "lamp": True}, read)
    assert asked == [["position", "lit"], ["position", "lit"], ["lit"]]


async def test_the_first_time_that_is_over_ends_it() -> None:
    _, read = shows({"position": "on", "lit": False})
    told = device(breaker=SHOWN | {"within": "1h"}, lamp={"point": "lit", "within": "20ms"})
    with pytest.raises(DriverError) as caught:
        await write(told, AskedOutstation(echo(), echo()), {"breaker": False, "lamp": True}, read)
    assert str(caught.value) == "the field did not follow: lamp: lit shows false, not true after 0.02 s"
    assert caught.value.written == {"breaker": False, "lamp": True}


async def test_what_nobody_answered_is_verified() -> None:
    _, read = shows({"lit": False}, {"lit": True})
    told = device(quiet={"point": "lit", "within": "10s"})
    await write(told, AskedOutstation(), {"quiet": True}, read)


async def test_nothing_is_verified_of_a_refused_write() -> None:
    with pytest.raises(DriverError, match="did not select"):
        await write(device(breaker=SHOWN), AskedOutstation(echo(7)), {"breaker": True}, never_read)
