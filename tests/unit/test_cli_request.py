"""What `hilgate send` makes of its words."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import request
from agent.cli.exits import Exit, Failure


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ping", {"op": "ping"}),
        ("describe", {"op": "describe"}),
        ("read pump", {"op": "read", "device": "pump"}),
        ("read pump speed flow", {"op": "read", "device": "pump", "points": ["speed", "flow"]}),
        (
            "write pump setpoint=1500 on=true name=slow",
            {"op": "write", "device": "pump", "values": {"setpoint": 1500, "on": True, "name": "slow"}},
        ),
        ("call pump identify", {"op": "call", "device": "pump", "method": "identify", "args": {}}),
        (
            "call pump raw function=3 data=00ff",
            {"op": "call", "device": "pump", "method": "raw", "args": {"function": 3, "data": "00ff"}},
        ),
        ("enable", {"op": "enable"}),
        ("reserve ci-7 10min", {"op": "reserve", "holder": "ci-7", "ttl_s": 600.0}),
        ("renew", {"op": "renew"}),
        ("release", {"op": "release"}),
        ("record start", {"op": "record", "start": True}),
        ("record drive stop", {"op": "record", "stop": True, "device": "drive"}),
        (
            "record drive start format=asc",
            {"op": "record", "start": True, "device": "drive", "format": "asc"},
        ),
    ],
)
def test_words_become_a_command(words: str, expected: dict[str, object]) -> None:
    op, *rest = words.split()
    assert request.body(op, rest) == expected


def test_verify_and_reason_go_with_their_commands() -> None:
    assert request.body("write", ["pump", "a=1"], {"verify": True})["verify"] is True
    assert request.body("disable", [], {"reason": "hose"}) == {"op": "disable", "reason": "hose"}
    assert request.body("safe", [], {"reason": "smoke", "verify": False}) == {"op": "safe", "reason": "smoke"}
    asked = {"devices": ["pump"], "dte": "", "priority": 0, "deadman_s": 5.0}
    assert request.body("reserve", ["ci", "1h"], asked) == {
        "op": "reserve",
        "holder": "ci",
        "ttl_s": 3600.0,
        "devices": ["pump"],
        "priority": 0,
        "deadman_s": 5.0,
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("wriet pump a=1", "did you mean 'write'?"),
        ("explode", "known here: ping, describe"),
        ("read", "hilgate send BENCH read DEVICE [POINT...]"),
        ("write pump", "write DEVICE POINT=VALUE..."),
        ("write pump setpoint", "'setpoint' should be NAME=VALUE"),
        ("write pump =3", "'=3' should be NAME=VALUE"),
        ("write pump a=1 a=2", "'a' is given twice"),
        ("call pump", "call DEVICE METHOD"),
        ("ping pump", "hilgate send BENCH ping"),
        ("reserve ci", "hilgate send BENCH reserve HOLDER TIME"),
        ("reserve ci 60", "'60' is no time: write a number with a unit"),
        ("renew token", "hilgate send BENCH renew"),
        ("record", "hilgate send BENCH record [DEVICE] start|stop"),
        ("record drive begin", "record [DEVICE] start|stop"),
        ("record start left", "'left' should be NAME=VALUE"),
        ("record start form=asc", "record [DEVICE] start|stop"),
    ],
)
def test_wrong_words_are_usage_errors(words: str, says: str) -> None:
    op, *rest = words.split()
    with pytest.raises(Failure, match=re.escape(says)) as caught:
        request.body(op, rest)
    assert caught.value.code is Exit.USAGE


def test_options_of_another_op_are_usage_errors() -> None:
    with pytest.raises(Failure, match="--verify"):
        request.body("read", ["pump"], {"verify": True})
    with pytest.raises(Failure, match="--reason"):
        request.body("ping", [], {"reason": "why"})
    with pytest.raises(Failure, match="--deadman belongs to reserve, not to renew"):
        request.body("renew", [], {"deadman_s": 5.0})


@given(st.text())
def test_any_word_has_a_value_that_json_can_hold(text: str) -> None:
    json.dumps(request.value(text), allow_nan=False)


@pytest.mark.parametrize("digits", ["1122", "0102", "00", "1e10", "10E2"])
@pytest.mark.parametrize("name", ["data", "answer_data", "id", "answer_id", "tx", "rx"])
def test_hex_of_a_call_is_text_also_where_it_looks_like_a_number(name: str, digits: str) -> None:
    words = ["drive", "send", f"{name}={digits}", "timeout=2"]
    assert request.body("call", words)["args"] == {name: digits, "timeout": 2}


def test_payloads_in_turn_stay_a_list() -> None:
    words = ["drive", "periodic", "start=x", 'data=["01", "02"]', "extended=true"]
    args = request.body("call", words)["args"]
    assert args == {"start": "x", "data": ["01", "02"], "extended": True}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "[" * 100_000])
def test_what_json_cannot_hold_stays_a_string(text: str) -> None:
    assert request.value(text) == text


@given(st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.none())
def test_values_of_json_stay_what_they_are(value: object) -> None:
    assert request.value(json.dumps(value)) == value
