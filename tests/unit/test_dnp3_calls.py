"""Calls: what is sent, what is given back, and what is refused before anything is sent."""

import json
import math
import struct
from collections.abc import Sequence
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

from protocols.base import DriverError, Refused
from protocols.dnp3 import PROTOCOL
from protocols.dnp3.calls import METHODS, MOST_OBJECTS, carry_out
from protocols.dnp3.fragment import Reply
from protocols.dnp3.objects import Iin

DEVICE = outstation_with({"p": {"type": "binary_input", "index": 0}})


class Polls:
    """A master whose polls are answered by one reply."""

    def __init__(self, answer: Reply | None = None) -> None:
        self._answer = answer or reply()
        self.polled: list[Sequence[int]] = []

    async def integrity(self) -> Reply:
        self.polled.append((1, 2, 3, 0))
        return self._answer

    async def classes(self, classes: Sequence[int]) -> Reply:
        self.polled.append(classes)
        return self._answer

    def disabling(self, classes: Sequence[int]) -> None:
        pass


async def call(method: str, *answers: Answer, **args: Any) -> tuple[Any, list[Asked]]:
    outstation = AskedOutstation(*answers)
    said = await carry_out(method, args, DEVICE, outstation, Polls())
    json.dumps(said, allow_nan=False)
    return said, outstation.asked


async def refused(method: str, **args: Any) -> Refused:
    outstation = AskedOutstation()
    with pytest.raises(Refused) as caught:
        await carry_out(method, args, DEVICE, outstation, Polls())
    assert outstation.asked == []
    return caught.value


async def failing(method: str, *answers: Answer, **args: Any) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await call(method, *answers, **args)
    return caught.value


def request(function: int, body: str = "") -> list[Asked]:
    return [Asked(function, bytes.fromhex(body), True)]


# What is wrong by itself.


def test_the_methods_are_those_that_are_told() -> None:
    assert list(METHODS) == list(PROTOCOL.methods)
    assert set(METHODS) >= set(PROTOCOL.writing)


async def test_an_unknown_method() -> None:
    error = await refused("reboot")
    assert error.code == "unknown-op"
    assert "a dnp3 device has no method 'reboot'; it has integrity, class-poll," in str(error)


@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_argument(method: str) -> None:
    error = await refused(method, bogus=1)
    assert error.code == "malformed"
    assert f"{method} has no argument 'bogus'; it takes " in str(error)


@pytest.mark.parametrize(
    ("method", "args", "text"),
    [
        ("class-poll", {"classes": []}, "length >= 1"),
        ("class-poll", {"classes": [0]}, "value 0"),
        ("read", {}, "`group`"),
        ("read", {"group": 0}, ">= 1"),
        ("read", {"group": 1, "variation": 256}, "<= 255"),
        ("read", {"group": 1, "start": -1}, ">= 0"),
        ("read", {"group": 1, "start": 65536}, "<= 65535"),
        ("read", {"group": 1, "stop": 4}, "stop needs start"),
        ("read", {"group": True}, "bool"),
        ("operate", {"index": 1}, "takes code (of a binary output) or value (of an analog output)"),
        ("operate", {"index": 1, "code": "trip", "value": 1}, "takes code"),
        (
            "operate",
            {"index": 1, "code": "open"},
            "one of pulse-on, pulse-off, latch-on, latch-off, close, trip",
        ),
        ("operate", {"index": 1, "code": 256}, "<= 255"),
        ("operate", {"index": 1, "code": True}, "bool"),
        ("operate", {"index": 1, "value": 10**400}, "$.value"),
        ("operate", {"index": 1, "code": "trip", "mode": "twice"}, "'twice'"),
        ("freeze", {"stop": 3}, "stop needs start"),
        ("assign-class", {"type": "counter"}, "`class`"),
        ("assign-class", {"type": "counter", "class": 4}, "value 4"),
        ("assign-class", {"type": "relay", "class": 1}, "'relay'"),
        ("time-sync", {"procedure": "ntp"}, "'ntp'"),
        ("unsolicited", {}, "`enable`"),
        ("unsolicited", {"enable": 1}, "bool"),
    ],
)
async def test_arguments_that_are_wrong(method: str, args: dict[str, Any], text: str) -> None:
    error = await refused(method, **args)
    assert error.code == "malformed"
    assert text in str(error)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("read", {"group": 30, "start": 5, "stop": 4}),
        ("operate", {"index": 1, "value": 40000, "output": "int16"}),
        ("operate", {"index": 1, "value": math.inf}),
    ],
)
async def test_arguments_that_do_not_fit(method: str, args: dict[str, Any]) -> None:
    assert (await refused(method, **args)).code == "out-of-range"


# Polls and reads.


async def test_integrity() -> None:
    answer = reply(bytes.fromhex("1e02 00 00 01 01 0100 01 0200"), Iin.NEED_TIME | Iin.CLASS_1_EVENTS)
    polls = Polls(answer)
    said = await carry_out("integrity", {}, DEVICE, AskedOutstation(), polls)
    assert said == {"objects": 2, "iin": ["class-1-events", "need-time"]}
    assert polls.polled == [(1, 2, 3, 0)]


async def test_class_poll() -> None:
    polls = Polls(reply(b"\xff"))
    said = await carry_out("class-poll", {"classes": [3, 1, 3]}, DEVICE, AskedOutstation(), polls)
    assert polls.polled == [[1, 3]]
    assert said["problem"]
    await carry_out("class-poll", {}, DEVICE, AskedOutstation(), polls)
    assert polls.polled[1] == [1, 2, 3]


@pytest.mark.parametrize("method", ["integrity", "class-poll"])
async def test_a_poll_that_is_refused(method: str) -> None:
    polls = Polls(reply(iin=Iin.OBJECT_UNKNOWN))
    with pytest.raises(DriverError, match=f"poll of {NAME} was refused: it has no such objects"):
        await carry_out(method, {}, DEVICE, AskedOutstation(), polls)


@pytest.mark.parametrize(
    ("args", "body"),
    [
        ({"group": 30}, "1e 00 06"),
        ({"group": 30, "variation": 5, "start": 3}, "1e 05 00 03 03"),
        ({"group": 1, "start": 0, "stop": 255}, "01 00 00 00 ff"),
        ({"group": 1, "start": 0, "stop": 256}, "01 00 01 0000 0001"),
    ],
)
async def test_read_asks(args: dict[str, Any], body: str) -> None:
    said, asked = await call("read", reply(), **args)
    assert asked == request(1, body)
    assert said == {"objects": [], "iin": []}


async def test_read_gives_objects() -> None:
    body = bytes.fromhex(
        "0102 00 0505 81"  # binary input 5, online, true
        "0302 00 0101 91"  # double-bit input 1, on, online and locally forced
        "2003 17 01 07 21 feffffff e803 0000 0000"  # an event with its time, over range
        "1e05 00 0000 01 0000807f"  # infinity
        "6e03 00 0202 613062"  # an octet string
        "3302 07 01 000000000000"
        "0203 17 01 04 01 0a00"  # relative to a time that was not set
    )
    said, _ = await call("read", reply(body), group=60, variation=1)
    assert said["objects"] == [
        {"group": 1, "variation": 2, "index": 5, "value": True, "flags": ["online"]},
        {"group": 3, "variation": 2, "index": 1, "value": "on", "flags": ["online", "local-forced"]},
        {
            "group": 32,
            "variation": 3,
            "index": 7,
            "value": -2,
            "flags": ["online", "over-range"],
            "time": "1970-01-01T00:00:01.000000000Z",
        },
        {"group": 30, "variation": 5, "index": 0, "value": "inf", "flags": ["online"]},
        {"group": 110, "variation": 3, "index": 2, "value": "613062"},
        {"group": 51, "variation": 2, "value": 0},
        {
            "group": 2,
            "variation": 3,
            "index": 4,
            "value": False,
            "flags": ["online"],
            "time": "1970-01-01T00:00:00.010000000Z",
            "synchronised": False,
        },
    ]


async def test_read_gives_so_many() -> None:
    half = struct.pack("<BBBHH", 30, 4, 1, 0, 699) + bytes(1400)
    said, _ = await call("read", reply(half * 2), group=30)
    assert len(said["objects"]) == MOST_OBJECTS
    assert said["objects"][-1]["index"] == 299
    assert said["left_out"] == 400


async def test_read_says_what_could_not_be_read() -> None:
    said, _ = await call("read", reply(bytes.fromhex("0101 00 0000 01 f701 00 0000")), group=1)
    assert len(said["objects"]) == 1
    assert said["problem"]


@given(st.binary(max_size=80))
async def test_whatever_comes_can_be_said(body: bytes) -> None:
    await call("read", reply(body), group=1)


async def test_read_is_refused() -> None:
    error = await failing("read", reply(iin=Iin.OBJECT_UNKNOWN), group=99)
    assert error.code == "device-error"
    assert str(error).startswith(f"reading group 99 of {NAME} was refused: it has no such objects: compare")


async def test_status() -> None:
    outstation = AskedOutstation()
    said = await carry_out("status", {}, DEVICE, outstation, Polls())
    assert said == {"outstation": NAME, "iin": [], "heard": None, "dropped": {}}
    outstation.last_iin, outstation.heard_ns = Iin.LOCAL_CONTROL, 1_000_000_001
    outstation.dropped["other destination"] = 2
    assert await carry_out("status", {}, DEVICE, outstation, Polls()) == {
        "outstation": NAME,
        "iin": ["local-control"],
        "heard": "1970-01-01T00:00:01.000000001Z",
        "dropped": {"other destination": 2},
    }
    assert outstation.asked == []


# Controls.


async def test_operate_selects_first() -> None:
    said, asked = await call("operate", echo(), echo(), index=2, code="trip", on_ms=250, count=2)
    body = "0c01 17 01 02 81 02 fa000000 00000000 00"
    assert asked == request(3, body) + request(4, body)
    assert said == {"status": "success"}


@pytest.mark.parametrize(
    ("args", "body"),
    [
        ({"code": "close"}, "0c01 17 01 02 41 01 64000000 00000000 00"),
        ({"code": 0, "clear": True, "on_ms": 0}, "0c01 17 01 02 20 01 00000000 00000000 00"),
        ({"code": "latch-off", "off_ms": 2**32 - 1}, "0c01 17 01 02 04 01 64000000 ffffffff 00"),
        ({"value": 12.75}, "2903 17 01 02 00004c41 00"),
        ({"value": -2, "output": "int16"}, "2902 17 01 02 feff 00"),
    ],
)
async def test_operate_directly(args: dict[str, Any], body: str) -> None:
    said, asked = await call("operate", echo(), index=2, mode="direct", **args)
    assert asked == request(5, body)
    assert said == {"status": "success"}


async def test_operate_without_an_answer() -> None:
    said, asked = await call("operate", index=2, code="latch-on", mode="direct-no-ack")
    assert [(one.function, one.responds) for one in asked] == [(6, False)]
    assert said == {"status": "not asked for"}


async def test_operate_is_refused() -> None:
    error = await failing("operate", echo(12), index=2, value=7, mode="direct")
    assert error.code == "device-error"
    assert "did not operate analog output 2: the value is out of the point's range (OUT_OF_RANGE)" in str(
        error
    )
    assert "did not select binary output 2" in str(await failing("operate", echo(7), index=2, code="trip"))


async def test_operate_in_doubt() -> None:
    error = await failing("operate", echo(), TIMEOUT, index=2, code="trip")
    assert error.code == "timeout"
    assert str(error).endswith("; whether binary output 2 was operated is not known")


# What changes the outstation.

CHANGES: list[tuple[str, dict[str, Any], int, str]] = [
    ("freeze", {}, 7, "14 00 06"),
    ("freeze", {"clear": True, "start": 1, "stop": 3}, 9, "14 00 00 01 03"),
    ("assign-class", {"type": "analog_input", "class": 2}, 0x16, "3c 03 06 1e 00 06"),
    ("assign-class", {"type": "octet_string", "class": 0, "start": 300}, 0x16, "3c 01 06 6e 00 01 2c01 2c01"),
    ("unsolicited", {"enable": True}, 0x14, "3c 02 06 3c 03 06 3c 04 06"),
    ("unsolicited", {"enable": False, "classes": [3, 2]}, 0x15, "3c 03 06 3c 04 06"),
    ("cold-restart", {}, 0x0D, ""),
    ("warm-restart", {}, 0x0E, ""),
]


@pytest.mark.parametrize(("method", "args", "function", "body"), CHANGES)
async def test_changes(method: str, args: dict[str, Any], function: int, body: str) -> None:
    said, asked = await call(method, reply(iin=Iin.DEVICE_RESTART), **args)
    assert asked == request(function, body)
    assert said == ({"seconds": None} if "restart" in method else {"iin": ["device-restart"]})


@pytest.mark.parametrize(("method", "args", "function", "body"), CHANGES)
@pytest.mark.parametrize(
    ("iin", "words"),
    [
        (Iin.FUNCTION_NOT_SUPPORTED, "it does not support this function"),
        (Iin.PARAMETER_ERROR, "it does not take these parameters"),
        (Iin.ALREADY_EXECUTING, "wait and try again"),
    ],
)
async def test_changes_that_are_refused(
    method: str, args: dict[str, Any], function: int, body: str, iin: Iin, words: str
) -> None:
    error = await failing(method, reply(iin=iin), **args)
    assert error.code == "device-error"
    assert f"{NAME} was refused: " in str(error)
    assert words in str(error)


@pytest.mark.parametrize(("method", "args", "function", "body"), CHANGES)
async def test_changes_in_doubt(method: str, args: dict[str, Any], function: int, body: str) -> None:
    error = await failing(method, TIMEOUT, **args)
    assert error.code == "timeout"
    assert str(error).endswith(f"{TIMEOUT}; whether it had effect is not known")
    assert await failing(method, NOT_SENT, **args) is NOT_SENT


@pytest.mark.parametrize(("body", "seconds"), [("3401 07 01 0500", 5), ("3402 07 01 c409", 2.5)])
async def test_a_restart_says_how_long(body: str, seconds: float) -> None:
    for method in ("cold-restart", "warm-restart"):
        said, _ = await call(method, reply(bytes.fromhex(body)))
        assert said == {"seconds": seconds}
