"""The `sim:` section: what is accepted, what each mistake is told, and that good ones run as they say."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from protocols.base import DeviceConfig, Kind, Point
from sim.behaviour import Behaviour, Spec, behaviours


class DummyPoint(Point):
    as_kind: Kind = "number"
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return self.as_kind

    @property
    def choices(self) -> tuple[str, ...]:
        return self.labels


class Dummy(DeviceConfig):
    points: Mapping[str, DummyPoint]


POINTS: dict[str, Any] = {
    "speed": {},
    "count": {"as_kind": "integer"},
    "running": {"as_kind": "boolean"},
    "text": {"as_kind": "string"},
    "state": {"as_kind": "enumeration", "labels": ["idle", "run"]},
    "setpoint": {"access": "rw", "min": 10, "max": 100},
    "enable": {"as_kind": "boolean", "access": "rw", "safe": True},
}


def made(sim: Any, folder: Path = Path()) -> dict[str, Behaviour]:
    device = Dummy.model_validate({"protocol": "dummy", "points": POINTS, "sim": sim}).named("rig", folder)
    return behaviours(device)


def mistakes(sim: Any, folder: Path = Path()) -> dict[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        made(sim, folder)
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_points_without_behaviour_hold_still() -> None:
    still = made({})
    assert {name: one.at(5.0) for name, one in still.items()} == {
        "speed": 0,
        "count": 0,
        "running": False,
        "state": "idle",
        "setpoint": 10,  # zero is below its min
        "enable": True,  # its safe value
    }
    assert all(one.steady for one in still.values())


def test_each_source_gives_values_of_its_points_kind() -> None:
    run = made(
        {
            "speed": {"sine": {"min": 20, "max": 30, "period": "10s"}, "noise": 0.1},
            "count": {"ramp": {"from": 0, "to": 100, "period": "20s"}},
            "running": {"square": {"period": "2s"}},
            "text": "hello",
            "state": {"square": {"low": "idle", "high": "run", "period": "4s", "duty": 0.25}},
        }
    )
    assert run["speed"].at(2.5) == pytest.approx(30, abs=0.1)
    assert run["count"].at(5.01) == 25
    assert isinstance(run["count"].at(5.01), int)
    assert [run["running"].at(t) for t in (0.5, 1.5)] == [True, False]
    assert run["text"].at(0) == "hello"
    assert [run["state"].at(t) for t in (0.5, 1.5)] == ["run", "idle"]
    assert [name for name, one in run.items() if not one.steady] == ["speed", "count", "running", "state"]


def test_following_closes_in_on_what_was_written() -> None:
    speed = made({"speed": {"follow": "setpoint", "tau": "2s", "gain": 10, "offset": 1}})["speed"]
    assert speed.follows == "setpoint"
    assert speed.at(0) == 1
    assert speed.at(100.0) == pytest.approx(101)  # 10 is where the setpoint begins
    speed.aim(100.0, 50.0)
    assert speed.at(102.0) == pytest.approx(501 - 400 * math.exp(-1))


def test_a_boolean_follows_a_boolean() -> None:
    running = made({"running": {"follow": "enable", "tau": "1s"}})["running"]
    assert [running.at(t) for t in (0.1, 5)] == [False, True]


def test_noise_is_the_points_own_and_can_be_seeded() -> None:
    sim = {"speed": {"constant": 0, "noise": 1}, "count": {"constant": 0, "noise": 1000}}
    one, again = made(sim), made(sim)
    assert one["speed"].at(1.5) == again["speed"].at(1.5)
    speed = one["speed"].at(1.5)
    assert isinstance(speed, float)
    assert round(speed * 1000) != one["count"].at(1.5)
    assert made({"speed": {"constant": 0, "noise": 1, "seed": 9}})["speed"].at(1.5) != one["speed"].at(1.5)


@pytest.mark.parametrize(
    ("sim", "loc", "words"),
    [
        ({"sped": 5}, ("sped",), "did you mean 'speed'"),
        ({"speed": {"follow": "setpont"}}, ("speed", "follow"), "did you mean 'setpoint'"),
        ({"speed": {"follow": "count"}}, ("speed", "follow"), "'count' is not writable (access: ro)"),
        ({"text": {"follow": "setpoint"}}, ("text", "follow"), "'text' is a string"),
        ({"speed": {"sine": {"min": 0, "max": 1}}}, ("speed", "sine", "period"), "Field required"),
        ({"speed": {"sine": {"min": 0, "max": 1, "period": 5}}}, ("speed", "sine", "period"), "with a unit"),
        ({"speed": {"sinus": 5}}, ("speed", "sinus"), "not permitted"),
        ({"speed": {"noise": 5}}, ("speed",), "give a value or one of constant, ramp"),
        ({"speed": {"constant": 1, "follow": "setpoint"}}, ("speed",), "got constant and follow"),
        ({"speed": {"constant": 1, "tau": "1s"}}, ("speed",), "tau only goes with follow"),
        ({"speed": "fast"}, ("speed",), "takes a value of type number"),
        ({"speed": [1]}, ("speed",), "type number; got [1]"),
        ({"speed": {"constant": {"a": [math.inf]}}}, ("speed", "constant"), "finite"),
        ({"speed": float("nan")}, ("speed", "constant"), "finite"),
        ({"state": "walk"}, ("state",), "takes one of idle, run"),
        (
            {"state": {"square": {"high": "ran", "low": "idle", "period": "1s"}}},
            ("state", "square", "high"),
            "idle",
        ),
        (
            {"running": {"sine": {"min": 0, "max": 1, "period": "1s"}}},
            ("running", "sine"),
            "constant, square or csv",
        ),
        ({"running": {"constant": True, "noise": 1}}, ("running", "noise"), "no noise"),
        (
            {"setpoint": {"ramp": {"from": 0, "to": 1, "period": "1s"}}},
            ("setpoint", "ramp"),
            "keeps what is written",
        ),
        ({"speed": {"walk": {"min": 3, "max": 1, "step": 1}}}, ("speed", "walk"), "not below max"),
        ({"speed": {"walk": {"min": 0, "max": 1, "step": 1, "start": 2}}}, ("speed", "walk"), "not between"),
        ({"speed": {"csv": {"file": "a.csv", "column": "a"}}}, ("speed", "csv"), "either `time`"),
        (
            {"speed": {"csv": {"file": "no.csv", "column": "a", "time": "t"}}},
            ("speed", "csv"),
            "No such file",
        ),
    ],
)
def test_a_mistake_is_named_where_it_is(sim: Any, loc: tuple[str, ...], words: str) -> None:
    found = mistakes(sim)
    assert list(found) == [loc]
    assert words in found[loc]


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes({"sped": 1, "count": {"follow": "speed"}, "speed": {"walk": {"step": 0}}})
    assert set(found) == {
        ("sped",),
        ("count", "follow"),
        ("speed", "walk", "min"),
        ("speed", "walk", "max"),
        ("speed", "walk", "step"),
    }


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("speed\n1\n2.5\n", {"interval": "1s"}, [1, 1, 2.5, 2.5, 1]),
        ("t,speed\n10,1\n10.5,2\n11,3\n", {"time": "t"}, [1, 2, 3, 1, 2]),
        ("t,speed\n10,1\n10.5,2\n11,3\n", {"time": "t", "loop": False}, [1, 2, 3, 3, 3]),
        ("t,speed\n7,4\n", {"time": "t"}, [4, 4, 4, 4, 4]),
    ],
)
def test_csv_plays_back(tmp_path: Path, text: str, args: dict[str, Any], expected: list[float]) -> None:
    (tmp_path / "run.csv").write_text(text, encoding="utf-8-sig")
    speed = made({"speed": {"csv": {"file": "run.csv", "column": "speed", **args}}}, tmp_path)["speed"]
    assert [speed.at(n * 0.5) for n in range(5)] == expected


def test_csv_gives_every_kind(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(
        "count,running,text,state\n9007199254740993,1,a b,run\n-2.6,false,,idle\n"
    )
    names = ("count", "running", "text", "state")
    sim = {name: {"csv": {"file": "run.csv", "column": name, "interval": "1s"}} for name in names}
    run = made(sim, tmp_path)
    assert [run[name].at(0) for name in names] == [9007199254740993, True, "a b", "run"]
    assert [run[name].at(1) for name in names] == [-3, False, "", "idle"]


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", "speed", "no values"),
        ("speed\n", "speed", "no values"),
        ("sped\n1\n", "speed", "did you mean 'sped'"),
        ("speed\n1\nx\n", "speed", "run.csv:3: 'x' is not a number"),
        ("speed\ninf\n", "speed", "'inf' is not a number"),
        ("t,speed\n0,1\n0\n", "speed", "run.csv:3: too few cells"),
        ("t,speed\n1,1\n1,2\n", "speed", "run.csv:3: time 1 does not come after 1"),
        ("t,running\n0,yes\n", "running", "neither true nor false"),
        ("t,state\n0,walk\n", "state", "takes one of idle, run"),
    ],
)
def test_a_wrong_csv_is_told_with_its_line(tmp_path: Path, text: str, column: str, words: str) -> None:
    (tmp_path / "run.csv").write_text(text)
    timed = {"time": "t"} if text.startswith("t") else {"interval": "1s"}
    [message] = mistakes({column: {"csv": {"file": "run.csv", "column": column, **timed}}}, tmp_path).values()
    assert words in message


def test_a_csv_that_is_none_or_too_large_is_refused(tmp_path: Path) -> None:
    spec = {"file": "run.csv", "column": "speed", "interval": "1s"}
    (tmp_path / "run.csv").write_bytes(b"speed\n\xff\xfe\n")
    assert "not a CSV file in UTF-8" in mistakes({"speed": {"csv": spec}}, tmp_path)["speed", "csv"]
    with (tmp_path / "run.csv").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    assert "larger than 16 MiB" in mistakes({"speed": {"csv": spec}}, tmp_path)["speed", "csv"]


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Spec.model_fields, "min", "max", "period", "x{y}"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*POINTS, "other"]), hostile, max_size=3))
def test_anything_is_accepted_or_a_validation_error(sim: Any) -> None:
    try:
        run = made(sim)
    except ValidationError as error:
        strays = [one["loc"] for one in error.errors() if one["loc"][0] not in sim]
        if strays:
            pytest.fail(f"errors outside of the section: {strays}")
    else:
        assert all(isinstance(one.at(1.0), bool | int | float | str) for one in run.values())


def test_the_schema_allows_the_short_form() -> None:
    schema = TypeAdapter(dict[str, Spec]).json_schema()
    assert {"type": ["boolean", "number", "string", "array"]} in schema["$defs"]["Spec"]["anyOf"]
