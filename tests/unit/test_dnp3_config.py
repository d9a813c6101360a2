"""What a profile may say of an outstation, and where each mistake is shown."""

from typing import Any

import pytest
from pydantic import ValidationError

from protocols.dnp3 import PROTOCOL
from protocols.dnp3.config import Dnp3Device

TCP = {"transport": "tcp", "host": "rtu.bench.example"}
TLS = {"transport": "tls", "host": "rtu.bench.example"}
INPUT = {"type": "binary_input", "index": 0}
ANALOG = {"type": "analog_input", "index": 0}
OUTPUT = {"type": "binary_output", "index": 0, "access": "rw"}
SETPOINT = {"type": "analog_output", "index": 0, "access": "rw"}


def device(points: dict[str, Any] | None = None, **fields: Any) -> Dnp3Device:
    whole = {"protocol": "dnp3", "connection": TCP, "outstation": 10, "points": points or {"p": INPUT}}
    return Dnp3Device.model_validate(whole | fields)


def mistakes(points: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """Field to message."""
    with pytest.raises(ValidationError) as wrong:
        device(points, **fields)
    return {".".join(map(str, error["loc"])): error["msg"] for error in wrong.value.errors()}


def test_an_outstation_with_all_defaults() -> None:
    made = device()
    assert (made.master, made.outstation, made.unsolicited) == (1, 10, (1, 2, 3))
    assert made.polls.integrity == 3600.0
    assert made.connection.port == 20000
    assert made.points["p"].kind == "boolean"


def test_what_a_listening_end_of_tls_takes() -> None:
    connection = TLS | {
        "role": "listen",
        "cert": "c.pem",
        "ca": "ca.pem",
        "accept_from": ["192.0.2.7", "::1"],
    }
    assert device(connection=connection).connection.port == 20000


def test_polls_may_be_switched_off() -> None:
    polls = {"class_1": "100ms", "class_2": "never", "integrity": "never"}
    made = device(polls=polls, keep_alive="never")
    assert (made.polls.class_1, made.polls.class_2, made.polls.class_3) == (0.1, "never", None)
    assert made.keep_alive == "never"


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"master": 10}, "master", "master and outstation are two stations: give them two addresses"),
        ({"outstation": 65520}, "outstation", "Input should be less than or equal to 65519"),
        ({"unsolicited": [1, 1]}, "unsolicited", "name each class once"),
        ({"unsolicited": [0]}, "unsolicited.0", "Input should be 1, 2 or 3"),
        ({"tolerate": ["online"]}, "tolerate", "online is no fault; leave it out"),
        ({"simulation": {"classes": {"q": 1}}}, "simulation.classes.q", "no point is called 'q'"),
        ({"simulation": {"local": "q"}}, "simulation.local", "'q' is not a binary_input of this device"),
        (
            {"connection": TCP | {"accept_from": ["192.0.2.7"]}},
            "connection.tcp.accept_from",
            "only a listening end is called: set role: listen",
        ),
        ({"connection": TLS | {"key": "k.pem"}}, "connection.tls.key", "a key needs its cert"),
        (
            {"connection": TLS | {"role": "listen"}},
            "connection.tls.cert",
            "the listening end of TLS needs a certificate",
        ),
    ],
)
def test_each_mistake_of_a_device_is_shown_at_its_field(
    fields: dict[str, Any], field: str, text: str
) -> None:
    assert mistakes(**fields)[field] == text


def test_an_address_to_be_called_from_is_one() -> None:
    said = mistakes(connection=TCP | {"role": "listen", "accept_from": ["rtu.bench.example"]})
    assert "does not appear to be an IPv4 or IPv6 address" in said["connection.tcp.accept_from.0"]


def test_several_mistakes_are_said_at_once() -> None:
    assert set(mistakes(master=10, tolerate=["online"])) == {"master", "tolerate"}


def test_two_points_are_not_one() -> None:
    assert mistakes({"a": INPUT, "b": INPUT}) == {"points.b.index": "binary_input 0 is 'a' already"}
    device({"a": INPUT, "b": INPUT | {"field": "flags"}, "c": INPUT | {"type": "double_bit_input"}})


@pytest.mark.parametrize(
    ("control", "shown", "text"),
    [
        (OUTPUT, None, "no point is called 'shown'"),
        (OUTPUT, INPUT | {"field": "flags"}, "'shown' cannot show it: take another point that can be read"),
        (
            OUTPUT,
            OUTPUT | {"index": 1, "access": "wo"},
            "'shown' cannot show it: take another point that can be read",
        ),
        (OUTPUT, ANALOG, "'shown' (type number) cannot show a value of type boolean"),
        (
            OUTPUT,
            {"type": "octet_string", "index": 0},
            "'shown' (type string) cannot show a value of type boolean",
        ),
        (SETPOINT, INPUT, "'shown' (type boolean) cannot show a value of type number"),
        (
            SETPOINT,
            {"type": "double_bit_input", "index": 0},
            "'shown' (type enumeration) cannot show a value of type number",
        ),
    ],
)
def test_feedback_that_cannot_be(control: dict[str, Any], shown: dict[str, Any] | None, text: str) -> None:
    points = {"control": control | {"feedback": {"point": "shown", "within": "1s"}}}
    if shown is not None:
        points["shown"] = shown
    assert mistakes(points) == {"points.control.feedback.point": text}


def test_a_point_is_not_its_own_feedback() -> None:
    points = {"control": OUTPUT | {"feedback": {"point": "control", "within": "1s"}}}
    assert "cannot show it" in mistakes(points)["points.control.feedback.point"]


@pytest.mark.parametrize(
    ("control", "shown"),
    [
        (OUTPUT, INPUT),
        (OUTPUT, OUTPUT | {"index": 1}),
        (OUTPUT, {"type": "double_bit_input", "index": 0}),
        (SETPOINT, ANALOG),
        (SETPOINT, {"type": "counter", "index": 0}),
    ],
)
def test_feedback_that_can_be(control: dict[str, Any], shown: dict[str, Any]) -> None:
    device({"control": control | {"feedback": {"point": "shown", "within": "1s"}}, "shown": shown})


def test_the_simulation_of_points_that_are_there() -> None:
    made = device({"local": INPUT, "a": ANALOG}, simulation={"local": "local", "classes": {"a": 3}})
    assert made.simulation.classes == {"a": 3}
    said = mistakes({"a": ANALOG}, simulation={"local": "a"})
    assert said == {"simulation.local": "'a' is not a binary_input of this device"}


def test_the_protocol_knows_its_model_and_what_writes() -> None:
    assert PROTOCOL.config() is Dnp3Device
    assert set(PROTOCOL.writing) <= set(PROTOCOL.methods)
