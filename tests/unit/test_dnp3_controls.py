"""Controls as octets, held against bytes written by hand and py1815's parser; echoes that are none."""

import struct
from typing import Any

import pytest
from asked_outstation import echo, outstation_with, reply
from hypothesis import given
from hypothesis import strategies as st
from py1815.application import parse_object_blocks, parse_request
from py1815.control import (
    AnalogOutput,
    CommandStatus,
    ControlError,
    ControlRelayOutputBlock,
    decode_control,
    object_size,
)

from protocols.base import Value
from protocols.dnp3.controls import MOST_CONTROLS, Control, control_of, encode, relay, setpoint, statuses
from protocols.dnp3.decoder import decode
from protocols.dnp3.objects import Iin
from protocols.dnp3.refusals import refusal, status_in_words

DIRECT_OPERATE = 5
ANY_STATUS = [*range(1, 19), 126, 127]


def control(value: Value, **fields: Any) -> Control:
    point = {"type": "binary_output", "index": 3, "access": "rw"} | fields
    return control_of(outstation_with({"p": point}).points["p"], value)


@pytest.mark.parametrize(
    ("value", "fields", "octets"),
    [
        # code, count, on-time, off-time, status
        (True, {}, "03 01 64000000 00000000 00"),
        (False, {}, "04 01 64000000 00000000 00"),
        (True, {"operation": "pulse"}, "01 01 64000000 00000000 00"),
        (False, {"operation": "pulse"}, "02 01 64000000 00000000 00"),
        (True, {"operation": "pulse-on", "count": 3, "off_time": "1s"}, "01 03 64000000 e8030000 00"),
        (True, {"operation": "trip-close"}, "41 01 64000000 00000000 00"),
        (False, {"operation": "trip-close", "on_time": "250ms"}, "81 01 fa000000 00000000 00"),
        (
            True,
            {"on_time": "1.003s", "off_time": "1.001s"},
            "03 01 eb030000 e9030000 00",
        ),  # no float loses 1 ms
        (True, {"operation": "trip-close", "clear": True, "on_time": "0s"}, "61 01 00000000 00000000 00"),
    ],
)
def test_a_relay_by_hand(value: Value, fields: dict[str, Any], octets: str) -> None:
    one = control(value, **fields)
    assert (one.group, one.variation, one.index) == (12, 1, 3)
    assert one.octets == bytes.fromhex(octets)


def test_the_longest_times_fit() -> None:
    most = control(True, on_time="4294967s", off_time="4294967s", count=255)
    assert most.octets == struct.pack("<BBIIB", 3, 255, 4294967000, 4294967000, 0)


@pytest.mark.parametrize(
    ("value", "fields", "variation", "octets"),
    [
        (-2, {"output": "int32"}, 1, "feffffff 00"),
        (1000, {"output": "int16"}, 2, "e803 00"),
        (12.75, {}, 3, "00004c41 00"),
        (12.75, {"output": "float64"}, 4, "0000000000802940 00"),
        (100.4, {"output": "int16", "scale": 0.1, "offset": 50}, 2, "f801 00"),
    ],
)
def test_a_setpoint_by_hand(value: Value, fields: dict[str, Any], variation: int, octets: str) -> None:
    one = control(value, type="analog_output", **fields)
    assert (one.group, one.variation) == (41, variation)
    assert one.octets == bytes.fromhex(octets)


def test_a_setpoint_that_does_not_fit() -> None:
    for output, raw in (("int16", 40000), ("int32", 3e9), ("float32", 1e39), ("float64", float("nan"))):
        with pytest.raises(ControlError):
            setpoint("p", 0, output, raw)  # type: ignore[arg-type]


def test_a_request_by_hand() -> None:
    close = relay("cb", 1, 0x41, on_s=0.1)
    crob = "41 01 64000000 00000000 00"
    assert encode([close]) == bytes.fromhex(f"0c 01 17 01 01 {crob}")
    assert encode([relay("cb", 256, 0x41, on_s=0.1)]) == bytes.fromhex(f"0c 01 28 0100 0001 {crob}")
    several = [close, setpoint("sp", 7, "int16", 9), setpoint("sp2", 300, "int16", 1), relay("l", 2, 3)]
    assert encode(several) == bytes.fromhex(
        f"0c 01 17 01 01 {crob}"
        "29 02 28 0200 0700 0900 00 2c01 0100 00"  # a wide index makes the whole header wide
        "0c 01 17 01 02 03 01 00000000 00000000 00"
    )


RELAYS = st.builds(
    relay,
    st.just("b"),
    st.integers(0, 65535),
    st.integers(0, 255),
    count=st.integers(0, 255),
    on_s=st.integers(0, 2**32 - 1).map(lambda ms: ms / 1000),
    off_s=st.integers(0, 2**32 - 1).map(lambda ms: ms / 1000),
    clear=st.booleans(),
)
SETPOINTS = st.one_of(
    st.builds(
        setpoint, st.just("a"), st.integers(0, 65535), st.just("int16"), st.integers(-(2**15), 2**15 - 1)
    ),
    st.builds(
        setpoint, st.just("a"), st.integers(0, 65535), st.just("int32"), st.integers(-(2**31), 2**31 - 1)
    ),
    st.builds(
        setpoint,
        st.just("a"),
        st.integers(0, 65535),
        st.just("float32"),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.builds(
        setpoint,
        st.just("a"),
        st.integers(0, 65535),
        st.just("float64"),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
)
CONTROLS = st.lists(RELAYS | SETPOINTS, min_size=1, max_size=8)


def parsed(body: bytes) -> list[tuple[int, int, int, ControlRelayOutputBlock | AnalogOutput]]:
    """The controls of a request, as py1815's outstation reads them."""
    request = parse_request(bytes((0xC0, DIRECT_OPERATE)) + body)
    return [
        (head.group, head.variation, index, decode_control(head.group, head.variation, octets))
        for head, items in ((one.header, one.items) for one in parse_object_blocks(request, object_size))
        for index, octets in items
    ]


@given(CONTROLS)
def test_py1815_reads_what_is_encoded(controls: list[Control]) -> None:
    assert parsed(encode(controls)) == [
        (one.group, one.variation, one.index, decode_control(one.group, one.variation, one.octets))
        for one in controls
    ]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_py1815_reads_the_same_relay(code: int, count: int, on_ms: int, off_ms: int) -> None:
    one = relay("b", 0, code, count=count, on_s=on_ms / 1000, off_s=off_ms / 1000)
    assert decode_control(12, 1, one.octets) == ControlRelayOutputBlock(code, count, on_ms, off_ms)


def test_the_most_controls_fit_a_request() -> None:
    dearest = [
        setpoint("a", 256 + place, "float64" if place % 2 else "int16", 1.0) for place in range(MOST_CONTROLS)
    ]
    relays = [relay("b", 256 + place, 3) for place in range(MOST_CONTROLS)]
    assert len(encode(dearest)) + 2 <= 2048
    assert len(encode(relays)) + 2 <= 2048


# Echoes.


@given(CONTROLS, st.data())
def test_statuses_are_read_of_an_echo(controls: list[Control], data: st.DataObject) -> None:
    said = data.draw(st.lists(st.integers(0, 255), min_size=len(controls), max_size=len(controls)))
    assert statuses(controls, echo(*said)(encode(controls))) == said


@given(CONTROLS, st.data())
def test_an_echo_with_another_octet_is_none(controls: list[Control], data: st.DataObject) -> None:
    body = bytearray(encode(controls))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    assert any(status != 0 for status in statuses(controls, reply(bytes(body))))


@given(CONTROLS, st.data())
def test_an_echo_that_is_cut_is_none(controls: list[Control], data: st.DataObject) -> None:
    body = encode(controls)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    assert any(status != 0 for status in statuses(controls, reply(cut)))


@given(CONTROLS, st.binary(min_size=1, max_size=20))
def test_an_echo_with_more_behind_it_is_none(controls: list[Control], more: bytes) -> None:
    body = encode(controls) + more
    if decode(body) != decode(encode(controls)):  # a header without objects says nothing
        assert statuses(controls, reply(body)) == [None] * len(controls)


@given(CONTROLS, st.binary(max_size=60))
def test_other_objects_are_no_echo(controls: list[Control], other: bytes) -> None:
    if not other.startswith(encode(controls)):
        assert any(status != 0 for status in statuses(controls, reply(other)))


def test_a_swapped_echo_is_none() -> None:
    one, other = relay("a", 1, 3), relay("b", 2, 3)
    assert statuses([one, other], reply(encode([other, one]))) == [None, None]


def test_an_echo_that_lacks_the_last_tells_of_the_first() -> None:
    one, other = relay("a", 1, 3), relay("b", 2, 3)
    assert statuses([one, other], reply(encode([one]))) == [0, None]


def test_a_time_is_no_echo() -> None:
    one = relay("a", 1, 3)
    assert statuses([one], reply(encode([one]) + bytes.fromhex("34 02 07 01 0a00"))) == [None]


# Words.


@pytest.mark.parametrize("status", ANY_STATUS)
def test_each_status_has_words_and_its_name(status: int) -> None:
    assert f"({CommandStatus(status).name})" in status_in_words(status)


def test_a_status_of_no_meaning() -> None:
    assert "99" in status_in_words(99)


def test_no_refusal() -> None:
    assert refusal(Iin.DEVICE_RESTART | Iin.NEED_TIME | Iin.CONFIGURATION_CORRUPT) == ""
    both = refusal(Iin.OBJECT_UNKNOWN | Iin.PARAMETER_ERROR)
    assert "no such objects" in both
    assert "these parameters" in both
